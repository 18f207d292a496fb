"""llm-comply's cases of three interfaces; those that stay are written in docs/serve.md."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from pipelines.serve.bodies import plan as planning
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server

# Images are not read; `model` may be left out where one model is served.
KNOWN = {
    "openai-chat": {"chat-image-input", "chat-error-handling"},
    "open-responses": {"image-input", "error-handling"},
    "anthropic": {"anth-image-input"},
}
END = "\u010a"  # a line's end: this model has learned no end of a turn
SEED = 2


@pytest.fixture(scope="module")
def url(demo_target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the demo model with a longer context, whose answers end with a line."""
    folder = tmp_path_factory.mktemp("comply") / "demo"
    shutil.copytree(demo_target, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(folder / "config.json", max_position_embeddings=4096)
    change(folder / "generation_config.json", eos_token_id=[0, tokenizer.token_to_id(END)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "drawn_seed", lambda: SEED)  # the cases send none
        with local_server(replace(demo_config(str(folder), "lookup"), max_length=2048)) as found:
            yield found


def change(file: Path, **values: Any) -> None:
    given = json.loads(file.read_text())
    file.write_text(json.dumps(given | values))


@pytest.mark.slow
@pytest.mark.parametrize("form", KNOWN)
def test_all_cases_but_a_written_list_pass(url: str, form: str) -> None:
    command = [sys.executable, "-m", "llm_comply.cli", "--format", form, "--json"]
    options = ["--base-url", f"{url}/v1", "--api-key", "none", "--model", "demo"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    results = {result["id"]: result for result in json.loads(run.stdout)["results"]}
    failed = {name for name, result in results.items() if result["status"] == "failed"}
    assert failed == KNOWN[form], {name: results[name]["errors"] for name in failed}
    assert len(results) >= 9
