"""Serve a model, ask it with curl and with OpenAI's client, and stop it.

The model is the real one of examples/real_model.py where it is, else the demo model.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai

MODELS = Path(__file__).parent / "models"
PORT = 8123
URL = f"http://127.0.0.1:{PORT}"
REAL = "smollm2-135m-instruct"
ASKED = {"prompt": "Once upon a time", "max_tokens": 32, "seed": 1}


def main() -> None:
    """Start, ask twice, stop."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", str(PORT)]
    name, drafter = chosen(MODELS)
    body = {"model": name, **ASKED}
    command += ["--target", str(MODELS / name), "--drafter", drafter]
    server = subprocess.Popen(command, cwd=MODELS.parent.parent)
    try:
        wait(server)
        print("\n$ curl", flush=True)
        by_curl(body)
        print("\n\nOpenAI's client, streamed, with the same seed:", flush=True)
        by_client(body)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def chosen(models: Path) -> tuple[str, str]:
    """The target's folder in `models`, and the drafter."""
    if (models / REAL / "config.json").exists():
        return REAL, "lookup"
    return "text-target", str(models / "text-draft")


def wait(server: "subprocess.Popen[bytes]") -> None:
    """Until the server is ready."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{URL}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    sys.exit("the server did not start")


def by_curl(body: dict[str, Any]) -> None:
    """A whole answer."""
    header = "Content-Type: application/json"
    address = f"{URL}/v1/completions"
    subprocess.run(["curl", "-sS", address, "-H", header, "-d", json.dumps(body)], check=True)


def by_client(body: dict[str, Any]) -> None:
    """The same text, as it comes."""
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="none") as client:
        for chunk in client.completions.create(stream=True, **body):
            print(chunk.choices[0].text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
