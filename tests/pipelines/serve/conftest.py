"""One server on the session's Ray cluster, its client, and rows that `generate` wrote."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from models.engine_config import EngineConfig
from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.local import local_server
from tests.ports import free_port

CHATML = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
QUEUED, ROWS = 40, 4
TAG = 1000  # the token that becomes the tag of tool calls


@pytest.fixture(scope="session")
def served_target(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny target with a chat template."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(checkpoints["target"], folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="session")
def demo_target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model with a chat template."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    shutil.copytree("examples/models/text-target", folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(settings | {"chat_template": CHATML}))
    return str(folder)


@pytest.fixture(scope="session")
def demo_url(demo_target: str) -> Iterator[str]:
    """A server of the demo model without Ray, with lookup as its drafter."""
    with local_server(demo_config(demo_target, "lookup")) as url:
        yield url


@pytest.fixture(scope="session")
def demo(demo_url: str) -> Iterator[openai.OpenAI]:
    """Its client."""
    with openai.OpenAI(base_url=f"{demo_url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="session")
def tagged(demo_target: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model with a template that has the tag, and a token that is the tag."""
    folder = tmp_path_factory.mktemp("tagged") / "demo"
    shutil.copytree(demo_target, folder)
    settings = folder / "tokenizer_config.json"
    given = json.loads(settings.read_text())
    template = given["chat_template"] + "{# calls: <tool_call> #}"
    settings.write_text(json.dumps(given | {"chat_template": template}))
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (old,) = [text for text, token in vocabulary.items() if token == TAG]
    del vocabulary[old]
    vocabulary["<tool_call>"] = TAG
    merges = [m.split(" ") if isinstance(m, str) else m for m in tokenizer["model"]["merges"]]
    kept = [m for m in merges if old not in (*m, "".join(m))]
    tokenizer["model"]["merges"] = kept
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": TAG, "content": "<tool_call>", **flags})
    file.write_text(json.dumps(tokenizer))
    return str(folder)


@pytest.fixture(scope="session")
def tagged_clients(tagged: str) -> Iterator[list[openai.OpenAI]]:
    """Of servers without and with a drafter."""
    with (
        local_server(demo_config(tagged, "none")) as plain,
        local_server(demo_config(tagged, "lookup")) as lookup,
    ):
        urls = [f"{url}/v1" for url in (plain, lookup)]
        made = [openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in urls]
        yield made
        for each in made:
            each.close()


def demo_config(target: str, drafter: str) -> EngineConfig:
    """Small, on one thread."""
    return EngineConfig(
        target=target, drafter=drafter, batch_size=4, max_length=512, device="cpu", threads=1
    )


@pytest.fixture(scope="module")
def server(ray_cluster: None, served_target: str, checkpoints: dict[str, str]) -> Iterator[Any]:
    """A server with a draft model."""
    from pipelines.serve.server import serving

    config = ServeConfig(
        target=served_target,
        drafter=checkpoints["draft"],
        port=free_port(),
        batch_size=ROWS,
        max_queued=QUEUED - ROWS,
        device="cpu",
        threads=1,
    )
    with serving(config) as running:
        yield running


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    """Does not try again by itself: what the server says is what a test sees."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="session")
def rows(
    ray_cluster: None, served_target: str, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Of a job without a drafter."""
    import pyarrow.parquet as pq

    from pipelines.generate.config import GenerateConfig
    from pipelines.generate.job import generate

    folder: Path = tmp_path_factory.mktemp("job")
    prompts = [{"prompt": f"Tell me of number {i}: "} for i in range(8)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    config = GenerateConfig(
        target=served_target,
        input=str(folder / "in.jsonl"),
        output=str(folder / "out"),
        n=2,
        max_tokens=60,
        temperature=0.9,
        top_p=0.95,
        frequency_penalty=0.5,
        stop=("qu", "z"),
        logprobs=1,
        device="cpu",
        threads=1,
        progress=False,
    )
    generate(config)
    return list(pq.read_table(folder / "out").to_pylist())
