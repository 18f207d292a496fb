"""transformers with the same weights, dtype and threads: generate, assisted, prompt lookup.

Everything is left at transformers' own defaults, but for what makes the work the same: no early
end, and sampling from the whole distribution (its default is the 50 likeliest tokens).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.work import Contestant, Setting, Work
from models.requests.request import Request
from models.targets.load import DTYPES
from pipelines.bench.interleave import Run
from pipelines.generate.rows.prompts import shortened

LOOKUP_TOKENS = 10  # prompt_lookup_num_tokens has no default; transformers' documentation uses 10


class Transformers:
    """The target, loaded once for all ways of decoding."""

    def __init__(self, work: Work, dtype: str) -> None:
        transformers.logging.set_verbosity_error()
        self._work = work
        self._target = _load(work.target, dtype)
        self._dtype = dtype

    def generate(self, setting: Setting) -> Contestant:
        """Plain decoding."""
        return self._contestant(setting)

    def assisted(self, setting: Setting) -> Contestant:
        """A draft model, with the default schedule."""
        return self._contestant(setting, assistant_model=_load(self._work.draft, self._dtype))

    def lookup(self, setting: Setting) -> Contestant:
        """Prompt lookup."""
        return self._contestant(setting, prompt_lookup_num_tokens=LOOKUP_TOKENS)

    def _contestant(self, setting: Setting, **way: Any) -> Contestant:
        def asked(turn: int) -> list[Request]:
            return self._work.requests(turn, setting.temperature, slices=setting.slices)

        run = timed(lambda request: self._complete(request, way))
        run(shortened(asked(0), count=2, max_tokens=16))
        return lambda turn: run(asked(turn))

    @torch.inference_mode()
    def _complete(self, request: Request, way: dict[str, Any]) -> tuple[int, ...]:
        prompt = torch.tensor([request.prompt])  # [1, prompt]
        temperature = request.sampling.temperature
        sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        torch.manual_seed(request.seed % 2**32)
        out = self._target.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=request.sampling.max_tokens,
            pad_token_id=0,
            **(sampled if temperature > 0 else {"do_sample": False}),
            **way,
        )
        return tuple(out[0, prompt.shape[1] :].tolist())


def timed(complete: Callable[[Request], tuple[int, ...]]) -> Callable[[Sequence[Request]], Run]:
    """One request after the other, timed as a whole."""

    def run(asked: Sequence[Request]) -> Run:
        began = time.perf_counter()
        outputs = {request.id: complete(request) for request in asked}
        return Run(seconds=time.perf_counter() - began, outputs=outputs)

    return run


def _load(folder: str, dtype: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    model.generation_config.eos_token_id = None
    return model
