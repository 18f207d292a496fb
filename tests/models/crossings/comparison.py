"""Compares a case's results with plain decoding."""

import numpy as np

from models.compute.x86 import kernels
from models.loop.replay import first_difference
from models.registry import FLOW
from models.requests.request import Request, Result, TokenLogprob
from tests.models.crossings.case import Case


def differences(case: Case, results: dict[str, Result]) -> list[str]:
    """What is not as in plain decoding, request by request."""
    found = []
    assert set(results) == set(case.plain)
    for request in case.requests:
        plain, result = case.plain[request.id], results[request.id]
        for name in ("tokens", "finish_reason", "stop_text", "error", "invalid", "exactness"):
            if getattr(plain, name) != getattr(result, name):
                if is_tie(case, request, plain, result):
                    case.seen["ties"] += 1
                else:
                    a, b = getattr(plain, name), getattr(result, name)
                    found.append(f"request {request.id}: {name} {a} became {b}")
                break
        else:
            for name in ("logprobs", "prompt_logprobs"):
                if not alike(case, getattr(plain, name), getattr(result, name)):
                    a, b = getattr(plain, name), getattr(result, name)
                    found.append(f"request {request.id}: {name} {a} became {b}")
    return found


def is_tie(case: Case, request: Request, plain: Result, result: Result) -> bool:
    """Whether rounding alone decided, where it may."""
    replayed = request.noise != FLOW and case.target.schedule.in_order
    if case.target.steady or plain.error or result.error or not replayed:
        return False
    try:
        difference = first_difference(case.target, request, plain.tokens, result.tokens)
    except ValueError:
        return False
    return difference is not None and difference.is_tie


Said = tuple[TokenLogprob, ...] | None


def alike(case: Case, first: Said, second: Said) -> bool:
    """To the bit where that is promised."""
    if case.target.steady or first is None or second is None:
        return first == second
    if [each.token for each in first] != [each.token for each in second]:
        return False
    return bool(np.allclose([e.logprob for e in first], [e.logprob for e in second], atol=1e-4))


def told(case: Case) -> str:
    """All that a failure's message needs."""
    c = case
    config = getattr(getattr(c.target, "inner", c.target), "config", c.target.architecture)
    lines = [
        f"case {c.number}: {c.family}, {c.target.dtype}, compiled={kernels.compiled()}, {config}",
        f"drafter={c.drafter}, {c.shape}, rows={c.rows}, max_length={c.max_length}, "
        f"scratch={c.scratch}, chunk={c.chunk}, entries={c.entries}",
        *(str(r) for r in c.requests),
    ]
    return "\n".join(lines)
