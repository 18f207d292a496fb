"""llama.cpp on the same weights, by llama-cpp-python, where it and gguf are installed.

pip install llama-cpp-python gguf       (compiles llama.cpp for this CPU)
"""

from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.peers import timed
from benchmarks.work import Contestant, Setting, Work
from models.requests.request import Request
from pipelines.generate.rows.prompts import shortened

NEEDED = {"llama_cpp": "llama-cpp-python", "gguf": "gguf"}


def missing() -> str | None:
    """Why it is not measured; None if it is."""
    absent = [package for module, package in NEEDED.items() if find_spec(module) is None]
    return f"llama.cpp: not measured (pip install {' '.join(absent)})" if absent else None


def contestants(work: Work, setting: Setting, file: Path) -> dict[str, Contestant]:
    """It as a contestant, greedy. `file`: GGUF."""
    from llama_cpp import Llama

    model = Llama(
        str(file),
        n_ctx=work.length(setting.slices),
        n_threads=work.threads,
        n_threads_batch=work.threads,
        verbose=False,
    )
    run = timed(lambda request: _complete(model, request))

    def asked(turn: int) -> list[Request]:
        return work.requests(turn, setting.temperature, slices=setting.slices)

    run(shortened(asked(0), count=2, max_tokens=16))
    return {"llama.cpp F16": lambda turn: run(asked(turn))}


def _complete(model: Any, request: Request) -> tuple[int, ...]:
    model.reset()  # else it would not read again what two prompts begin with
    tokens = model.generate(list(request.prompt), temp=0.0, repeat_penalty=1.0)
    return tuple(islice(tokens, request.sampling.max_tokens))
