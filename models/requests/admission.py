"""Checks whether a request can run on a target, before it waits for a cache row."""

from collections.abc import Callable
from itertools import pairwise

from models.errors import InvalidOption, InvalidRequest, NoRoom, UnsupportedCheckpoint
from models.registry import GUMBEL, MAPS, RULES
from models.requests.grammar import Grammars, GrammarState
from models.requests.request import Request
from models.requests.sequence import Sequence
from models.sampling.maps import Maps
from models.targets.target import Target

Advice = Callable[[int], str]  # ends the sentence on a request that is too long, of so many tokens


def no_advice(tokens: int) -> str:
    """Nothing makes room for so many tokens."""
    return ""


def check_request(
    request: Request, target: Target, max_length: int, *, texts: bool, advise: Advice = no_advice
) -> None:
    """Raise InvalidRequest, which names the field, if the request can never run.

    `max_length`: tokens of prompt and completion together. `texts`: whether there is a tokenizer.
    NoRoom, if more memory would do, of which `advise` tells.
    """
    who = f"request {request.id!r}"
    if not 0 <= request.seed < 2**63:
        raise InvalidRequest(f"{who}: seed {request.seed} is not in 0..2**63 - 1")
    if isinstance(request.prompt, str):
        raise InvalidRequest(f"{who}: the prompt is a text; give its token ids")
    if not request.prompt:
        raise InvalidRequest(f"{who}: the prompt is empty; give a token or more")
    total = len(request.prompt) + request.sampling.max_tokens
    if total > max_length:
        advice = advise(total)
        raise (NoRoom if advice else InvalidRequest)(
            f"{who}: prompt of {len(request.prompt)} tokens and max_tokens="
            f"{request.sampling.max_tokens} make {total}; at most {max_length} fit{advice}"
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
    bad = [t for t in request.prediction if not 0 <= t < size]
    if bad:
        raise InvalidRequest(f"{who}: prediction holds token {bad[0]}, not in 0..{size - 1}")
    asked = request.prompt_logprobs
    if asked is not None and not (0 <= asked <= 20 and target.schedule.in_order):
        told = "0 to 20, of a target that decides one position after the other"
        raise InvalidRequest(f"{who}: prompt_logprobs={asked} is not accepted: {told}")
    if request.steps is not None:
        raise InvalidRequest(f"{who}: steps={request.steps} is not accepted: only of a student")
    if request.sampling.stop and not texts:
        raise InvalidRequest(f"{who}: stop strings need a tokenizer")
    _check_generated(request, size, in_order=target.schedule.in_order)


def _check_generated(request: Request, vocab_size: int, *, in_order: bool) -> None:
    """The tokens that the request has generated elsewhere, and their log-probabilities."""
    who, generated = f"request {request.id!r}", request.generated
    if len(generated) >= request.sampling.max_tokens:
        raise InvalidRequest(
            f"{who}: generated has {len(generated)} tokens and max_tokens is "
            f"{request.sampling.max_tokens}; a request continues with fewer than max_tokens"
        )
    bad = [t for t in generated if not 0 <= t < vocab_size]
    if bad:
        raise InvalidRequest(f"{who}: generated token {bad[0]} is not in 0..{vocab_size - 1}")
    _check_positions(request, in_order=in_order)
    needed = generated if request.sampling.logprobs is not None else ()
    given = tuple(entry.token for entry in request.generated_logprobs)
    if given != needed:
        raise InvalidRequest(
            f"{who}: generated_logprobs has entries for {len(given)} tokens, {list(given[:8])}; "
            f"with logprobs={request.sampling.logprobs} they must be those of {list(needed[:8])}, "
            f"{len(needed)} tokens"
        )


def _check_positions(request: Request, *, in_order: bool) -> None:
    """The places of the generated tokens; () stands for the first ones."""
    places, count = request.generated_positions, len(request.generated)
    if not places:
        return
    last = request.sampling.max_tokens - 1
    ascending = all(a < b for a, b in pairwise(places))
    if in_order or len(places) != count or not ascending or places[0] < 0 or places[-1] > last:
        accepted = "none: this target decides one position after the other"
        if not in_order:
            accepted = f"{count} positions, one for each generated token, ascending, in 0..{last}"
        raise InvalidRequest(
            f"request {request.id!r}: generated_positions has {len(places)} positions, "
            f"{list(places[:8])}; accepted: {accepted}"
        )


def check_unfinished(sequence: Sequence) -> None:
    """Raise InvalidRequest if the tokens that a resumed request was given end it."""
    if sequence.finish_reason is None:
        return
    last = sequence.tokens[-1]
    by = f"token {last}" if sequence.stop_text is None else f"stop string {sequence.stop_text!r}"
    raise InvalidRequest(
        f"request {sequence.id!r}: of its {len(sequence.request.generated)} generated tokens, "
        f"number {sequence.num_generated} ends it with {by}; only what has not ended can continue"
    )


def begin_grammar(request: Request, grammars: Callable[[], Grammars] | None) -> GrammarState | None:
    """The state of the request's grammar, if it has one. Raises InvalidRequest."""
    grammar = request.sampling.grammar
    if grammar is None:
        return None
    if grammars is None:
        raise InvalidRequest(f"request {request.id!r}: a grammar needs a tokenizer")
    try:
        return grammars().begin(grammar)
    except (InvalidRequest, UnsupportedCheckpoint) as error:
        raise InvalidRequest(f"request {request.id!r}: {error}") from error


def check_noise(request: Request, rule: str, maps: Maps) -> None:
    """Raise InvalidRequest unless the request's map is known, and fits the rule and the target."""
    name, who = request.noise, f"request {request.id!r}"
    if name not in MAPS:
        raise InvalidRequest(f"{who}: noise={name!r} is not known; accepted: {', '.join(MAPS)}")
    if name == GUMBEL:
        return
    if RULES[rule].sampled:
        fitting = " or ".join(each for each, entry in RULES.items() if not entry.sampled)
        raise InvalidRequest(
            f"{who}: noise={name!r} needs the rule {fitting}; {rule} samples with {GUMBEL} only"
        )
    try:
        maps[name]
    except InvalidOption as error:
        raise InvalidRequest(f"{who}: {error}") from error
