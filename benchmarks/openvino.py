"""openvino-genai on the same weights, if it is installed and the weights are in its format.

It does not read Hugging Face checkpoints. `optimum-cli export openvino --task
text-generation-with-past --weight-format fp16 --model FOLDER OUT` converts them. Run it in a
separate environment, because it requires another version of transformers.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.peers import timed
from benchmarks.work import Contestant, Setting, Work
from models.requests.request import Request
from pipelines.generate.rows.prompts import shortened

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
DRAFT_TOKENS, NGRAM = 4, 3  # it has no defaults of its own
NO_SAMPLED_DRAFTS = (
    "openvino-genai drafts at temperature 0 only: when version 2026.4 samples with a draft model, "
    "one of its own checks (content_length) fails near the end of some completions."
)


def missing(work: Work) -> str | None:
    """Why openvino-genai is not measured; None if it is."""
    if find_spec("openvino_genai") is None:
        return "openvino-genai: not installed (pip install 'paceline[peers]')"
    if work.openvino is None:
        return (
            "openvino-genai: not measured; give --openvino TARGET DRAFT, two folders in its format "
            "(the real model: --real-openvino FOLDER)"
        )
    return None


def notes(work: Work) -> list[str]:
    """Notes for the page: why it is not measured, or what is left out."""
    reason = missing(work)
    return [NO_SAMPLED_DRAFTS if reason is None else f"{reason}."]


def contestants(work: Work, setting: Setting, way: str) -> dict[str, Contestant]:
    """The contestant, or {} if it is not measured. `way`: plain, draft or lookup."""
    if missing(work) is not None or (way != "plain" and setting.temperature > 0):
        return {}
    pipe = _pipeline(work, setting, way)
    run = timed(lambda request: _complete(pipe, request, way))

    def asked(turn: int) -> list[Request]:
        return work.requests(turn, setting.temperature, slices=setting.slices)

    run(shortened(asked(0), count=2, max_tokens=16))
    return {f"openvino-genai {way}": lambda turn: run(asked(turn))}


def _pipeline(work: Work, setting: Setting, way: str) -> Any:
    import openvino_genai

    assert work.openvino is not None  # `missing` has looked
    target, draft = work.openvino
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[setting.dtype],
        "INFERENCE_NUM_THREADS": work.threads,
    }
    if way == "draft":
        options["draft_model"] = openvino_genai.draft_model(draft, "CPU", **options)
    if way == "lookup":
        options["prompt_lookup"] = True
    return openvino_genai.LLMPipeline(target, "CPU", **options)


def _complete(pipe: Any, request: Request, way: str) -> tuple[int, ...]:
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = request.sampling.max_tokens
    config.ignore_eos = True
    config.do_sample = request.sampling.temperature > 0
    if config.do_sample:
        config.temperature, config.rng_seed = request.sampling.temperature, request.seed % 2**31
    if way != "plain":
        config.num_assistant_tokens = DRAFT_TOKENS
    if way == "lookup":
        config.max_ngram_size = NGRAM
    tensor = import_module("openvino").Tensor
    prompt = tensor(np.array([request.prompt], dtype=np.int64))  # [1, prompt]
    return tuple(pipe.generate(prompt, config).tokens[0])
