"""Requests of every kind, some of which begin alike."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from models.memory.blocks import BLOCK
from models.registry import FLOW
from models.requests.constraint import of_choice, of_regex
from models.requests.request import Request, Sampling
from models.targets.target import Target
from tests.models.crossings.dice import pick
from tests.models.crossings.spelling import LETTERS

MOST_TOKENS = 480  # of a request, so that there is context for drafts


def random_sampling(rng: np.random.Generator, size: int, *, image: int | None) -> Sampling:
    """`size`: of the vocabulary; `image`: tokens of one."""
    most = int(rng.integers(1, 100 if rng.random() < 0.35 else 25)) if image is None else image
    some = rng.integers(0, size, 3).tolist()
    values: dict[str, Any] = {
        "max_tokens": most,
        "temperature": pick(rng, (0.0, 0.6, 1.0, 1.0, 1.7)),
        "top_k": pick(rng, (0, 0, 0, 1, 3, size + 5)),
        "top_p": pick(rng, (1.0, 1.0, 0.5, 0.9)),
        "min_p": pick(rng, (0.0, 0.0, 0.1, 0.4)),
        "presence_penalty": pick(rng, (0.0, 0.0, 0.7)),
        "frequency_penalty": pick(rng, (0.0, 0.0, 0.4, -0.3)),
        "repetition_penalty": pick(rng, (1.0, 1.0, 1.3, 0.8)),
        "logit_bias": pick(rng, ({}, {}, {some[0]: 2.5, some[1]: -2.0}, {some[2]: -np.inf})),
        "logprobs": pick(rng, (None, None, 0, 3)),
    }
    if image is not None:
        return Sampling(**values)
    grammar = random_grammar(rng)
    stops = {"".join(rng.choice(list(LETTERS[:12]), int(rng.integers(1, 3)))) for _ in range(2)}
    return Sampling(
        **values,
        min_tokens=int(rng.integers(0, most + 1)) if rng.random() < 0.4 else 0,
        stop=tuple(sorted(stops)) if rng.random() < 0.4 else (),
        stop_token_ids=(some[1],) if rng.random() < 0.3 else (),
        ignore_eos=bool(grammar is None and rng.random() < 0.5),
        grammar=grammar,
    )


@cache
def some_grammars() -> tuple[str, ...]:
    return (
        of_regex("(ab|ba|c){2,9}d?"),
        of_regex("a[bc]*d(ef)+"),
        of_choice(["abcdefgh", "abcde", "badd", "hhhhg"]),
    )


def random_grammar(rng: np.random.Generator) -> str | None:
    return pick(rng, some_grammars()) if rng.random() < 0.15 else None


def random_requests(
    rng: np.random.Generator, target: Target, *, image: int | None
) -> list[Request]:
    size, texts, in_order = target.vocab_size, image is None, target.schedule.in_order
    lengths = rng.integers(1, pick(rng, (20, 20, 20, 150, 150, 370)), 2).tolist()
    stems = [rng.integers(0, size, length).tolist() for length in lengths]
    made: list[Request] = []
    crowd = rng.random() < 0.1
    for i in range(int(rng.integers(12, 20) if crowd else rng.integers(1, 8))):
        if made and rng.random() < 0.25:  # another sample of the prompt before
            prompt, sampling = made[-1].prompt, made[-1].sampling
        elif texts:
            stem = pick(rng, stems)
            kept = stem[: int(rng.integers(0, len(stem) + 1))] if rng.random() < 0.7 else []
            tail = rng.integers(0, size, int(rng.integers(0, 12))).tolist()
            prompt = tuple([*kept, *tail] or [1])
            sampling = random_sampling(rng, size, image=None)
        else:
            prompt = (size + int(rng.integers(0, target.input_size - size)),)
            sampling = random_sampling(rng, size, image=image)
        flows = not texts and target.codes is not None and rng.random() < 0.3
        made.append(
            Request(
                id=str(i),
                prompt=prompt,
                sampling=sampling,
                seed=int(rng.integers(1 << 40)) if rng.random() < 0.9 else 7,
                noise=FLOW if flows else "gumbel",
                prompt_logprobs=pick(rng, (0, 2)) if in_order and rng.random() < 0.15 else None,
                cache_salt=pick(rng, (b"", b"", b"", b"x")),
                drafts=bool(rng.random() < 0.9),
                stream=bool(rng.random() < 0.4),
                priority=int(rng.integers(0, 3)) if rng.random() < 0.3 else 0,
            )
        )
    return made


def begin_alike(rng: np.random.Generator, requests: list[Request], size: int) -> list[Request]:
    """The requests with one long text before most prompts, whole or cut: blocks to share."""
    stem = tuple(rng.integers(0, size, int(rng.integers(BLOCK + 6, 4 * BLOCK))).tolist())
    made = []
    for request in requests:
        room = MOST_TOKENS - len(request.prompt) - request.sampling.max_tokens
        kept = len(stem) if rng.random() < 0.6 else int(rng.integers(0, len(stem) + 1))
        made.append(replace(request, prompt=stem[: max(0, min(kept, room))] + request.prompt))
    return made
