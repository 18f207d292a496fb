"""What an ingress must know of a served model; small, and sent to every ingress."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.exactness import IDENTICAL, weakest
from pipelines.serve.api_error import ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`name`: what clients call the model. `created`: when the server started, in Unix seconds.

    Options alone do not tell on what the targets run: see `known`.
    """

    name: str
    checkpoint: str
    kind: str  # text | images
    fingerprint: str  # of what decides answers; two equal ones and one seed: the same, if exact
    others: str  # of the options that decide an answer, too, where it is not exact
    exactness: str  # of the answers: see models/exactness.py; before `known`, the best that may be
    created: int
    max_unfinished: int  # completions that may run or wait
    steps: int = 0  # a student's passes, of requests that do not say; 0: no student
    max_steps: int = 0

    @property
    def repeats(self) -> bool:
        """Whether one body and seed give the same answer again, whatever runs beside it."""
        return self.exactness == IDENTICAL

    def check_count(self, completions: int) -> None:
        """Raise ApiError (400) for more completions than the server ever takes.

        To be asked before anything is made of a body: a small one can stand for many.
        """
        if completions > self.max_unfinished:
            told = f"prompts times n are {completions} completions"
            raise ApiError(f"{told}; the server takes {self.max_unfinished} at once", param="n")


def known(facts: Facts, told: Mapping[str, Any]) -> Facts:
    """The facts, once the targets have told on what they run (`describe` of their manager)."""
    label = weakest([facts.exactness, told["exactness"]])
    if label == IDENTICAL:
        return replace(facts, exactness=label)
    parts = [facts.fingerprint, facts.others, label, told["arithmetic"], told["device"]]
    return replace(facts, exactness=label, fingerprint=fingerprint_of(parts))


def fingerprint_of(parts: Any) -> str:
    """Short; `parts`: what JSON can hold."""
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=6)
    return f"fp_{digest.hexdigest()}"
