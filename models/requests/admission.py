"""Checks whether a request can run on a target, before it waits for a cache row."""

from models.errors import InvalidRequest
from models.requests.request import Request
from models.targets.target import Target


def check_request(request: Request, target: Target, max_length: int, *, texts: bool) -> None:
    """Raise InvalidRequest, which names the field, if the request can never run.

    `max_length`: tokens of prompt and completion together. `texts`: whether there is a tokenizer.
    """
    who = f"request {request.id!r}"
    if not 0 <= request.seed < 2**63:
        raise InvalidRequest(f"{who}: seed {request.seed} is not in 0..2**63 - 1")
    if not request.prompt:
        raise InvalidRequest(f"{who}: the prompt is empty; give a token or more")
    total = len(request.prompt) + request.sampling.max_tokens
    if total > max_length:
        raise InvalidRequest(
            f"{who}: prompt of {len(request.prompt)} tokens and max_tokens="
            f"{request.sampling.max_tokens} make {total}; at most {max_length} fit"
        )
    size = target.input_size
    bad = [t for t in request.prompt if not 0 <= t < size]
    if bad:
        raise InvalidRequest(f"{who}: token {bad[0]} is not in 0..{size - 1}")
    size = target.vocab_size
    named = [*request.sampling.logit_bias, *request.sampling.stop_token_ids]
    bad = [t for t in named if not 0 <= t < size]
    if bad:
        raise InvalidRequest(
            f"{who}: logit_bias or stop_token_ids name token {bad[0]}, which is not in "
            f"0..{size - 1}"
        )
    if request.sampling.stop and not texts:
        raise InvalidRequest(f"{who}: stop strings need a tokenizer")
