"""What an ingress must know of a served model; small, and sent to every ingress."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`name`: what clients call the model. `created`: when the server started, in Unix seconds."""

    name: str
    checkpoint: str
    kind: str  # text | images
    fingerprint: str  # two equal ones and one seed: the same answer
    created: int
    repeats: bool  # whether one body and seed give the same answer again
    max_unfinished: int  # completions that may run or wait
    steps: int = 0  # a student's passes, of requests that do not say; 0: no student
    max_steps: int = 0
