"""What an ingress must know of the served target; small, and sent to every ingress."""

from dataclasses import dataclass

from pipelines.serve.limits import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`name`: what clients call the model. `created`: when the server started, in Unix seconds."""

    name: str
    checkpoint: str
    kind: str  # text | images
    fingerprint: str  # two equal ones and one seed: the same answer
    created: int
    repeats: bool  # whether one body and seed give the same answer again
    max_body_bytes: int
    max_unfinished: int  # completions that may run or wait
    limits: Limits = NO_LIMITS
    key_hashes: tuple[str, ...] = ()
