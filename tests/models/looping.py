"""Token loops over table targets, for several tests."""

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from tests.models.tiny import TableTarget

VOCAB = 5
TARGET = TableTarget(VOCAB, 1, eos=(4,))
DRAFT_MODEL = TableTarget(VOCAB, 2, eos=(4,))
DRAFT_MODEL.table = 0.8 * TARGET.table + 0.4 * DRAFT_MODEL.table
ROWS = 16

DRAFTERS = {
    "none": (lambda: None, NOTHING),
    "lookup": (LookupDrafter, Shape(depth=4)),
    "chain": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=160), Shape(depth=3)),
    "tree": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=160), Shape(depth=3, width=3)),
}
# The sampled rules take chains alone.
RUNS = [(d, "match") for d in DRAFTERS] + [
    (d, rule) for d in ("none", "lookup", "chain") for rule in ("rejection", "block")
]
SAMPLINGS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.95},
    {"top_k": 3, "min_p": 0.05},
    {"presence_penalty": 0.5, "frequency_penalty": 0.3, "repetition_penalty": 1.2},
    {"min_tokens": 4},
    {"logit_bias": {2: 1.0}, "ignore_eos": True},
    {"stop": ("aa", "cd")},
]


def spell(tokens):
    """One letter a token: text for stop strings."""
    return "".join("abcde"[t] for t in tokens)


def loop_of(
    drafter="none",
    *,
    target=TARGET,
    rows=4,
    max_length=100,
    chunk=256,
    rule="match",
    scratch=40,
    decode=spell,
    entries=None,
):
    make, shape = DRAFTERS[drafter] if isinstance(drafter, str) else drafter
    return TokenLoop(
        target,
        make(),
        FixedSize(shape),
        rows=rows,
        max_length=max_length,
        scratch=scratch,
        verify=rule,
        prefill_chunk=chunk,
        decode=decode,
        entries=entries,
    )


def request_of(number, *, length=None, prompt=None, **sampling):
    """A request whose prompt, length and sampling follow from its number."""
    if prompt is None:
        size = 1 + (7 * number) % 23 if length is None else length
        prompt = tuple((number * (i + 1) + i * i) % VOCAB for i in range(size))
    settings = {"max_tokens": 1 + (5 * number) % 17, **SAMPLINGS[number % len(SAMPLINGS)]}
    settings["min_tokens"] = min(settings.get("min_tokens", 0), settings["max_tokens"])
    sampling = Sampling(**(settings | sampling))
    return Request(id=f"r{number}", prompt=prompt, sampling=sampling, seed=number)


def tokens_of(results):
    return {r.id: (r.tokens, r.finish_reason, r.stop_text) for r in results}


def run_alone(requests, **options):
    """Each request in a loop that it has to itself, without drafts, its prompt read at once."""
    results = []
    for request in requests:
        results += loop_of(rows=1, **options).run([request])
    return results


def alone(requests):
    """What comes of it, as `tokens_of` has it."""
    return tokens_of(run_alone(requests))
