"""Serve the demo model, ask it with curl and with OpenAI's client, and stop it."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai

MODELS = Path(__file__).parent / "models"
PORT = 8123
URL = f"http://127.0.0.1:{PORT}"
BODY = {"model": "text-target", "prompt": "Once upon a time", "max_tokens": 32, "seed": 1}


def main() -> None:
    """Start, ask twice, stop."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", str(PORT)]
    command += ["--target", str(MODELS / "text-target"), "--drafter", str(MODELS / "text-draft")]
    server = subprocess.Popen(command, cwd=MODELS.parent.parent)
    try:
        wait(server)
        print("\n$ curl", flush=True)
        by_curl()
        print("\n\nOpenAI's client, streamed, with the same seed:", flush=True)
        by_client()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def wait(server: "subprocess.Popen[bytes]") -> None:
    """Until the server is ready."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{URL}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    sys.exit("the server did not start")


def by_curl() -> None:
    """A whole answer."""
    header = "Content-Type: application/json"
    address = f"{URL}/v1/completions"
    subprocess.run(["curl", "-sS", address, "-H", header, "-d", json.dumps(BODY)], check=True)


def by_client() -> None:
    """The same text, as it comes."""
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="none") as client:
        for chunk in client.completions.create(stream=True, **BODY):
            print(chunk.choices[0].text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
