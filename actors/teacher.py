"""A frozen target in a process of its own, from which the training of a drafter learns."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cluster import logs
from cluster.storage.checkpoints import present
from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.exam import Played, Trial
from models.drafting.distil.reading import Need, Reading, read
from models.drafting.distil.teacher import load_teacher
from models.drafting.distil.texts import Text
from models.targets.load import pick_device
from models.training.determinism import be_deterministic


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """The target, the layers that are read besides the last, and what is sent of them.

    `guidance`: scale of the laws of an image target, 1: off. `threads`: as many as the training's,
    for the same bits. `device`: "cpu" or "cuda". `num_gpus`: that each actor reserves.
    """

    target: str
    taps: tuple[int, ...]
    need: Need
    guidance: float
    threads: int
    device: str = "cpu"
    num_gpus: float = 0.0


class TeacherActor:
    """A plain class: made remote late. It keeps nothing from call to call."""

    def __init__(self, config: TeacherConfig) -> None:
        """Load the target. Raises what loading raises."""
        logs.set_up("teacher")
        torch.set_num_threads(config.threads)
        device = pick_device(config.device)
        be_deterministic(device)
        self._target, self._need = present(config.target), config.need
        self._teacher = load_teacher(Path(self._target), config.taps, config.guidance, device)

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def read(self, texts: Sequence[Text], vocabulary: DraftVocabulary | None = None) -> Reading:
        """What a drafter, of this vocabulary, learns from of these texts."""
        return read(self._teacher, texts, self._need, vocabulary)

    def examine(self, trial: Trial, files: Mapping[str, bytes]) -> dict[int, Played]:
        """Runs in the real loop with the drafter in these files, by temperature."""
        with tempfile.TemporaryDirectory() as made:
            for name, data in files.items():
                (Path(made) / name).write_bytes(data)
            return self._teacher.examine(replace(trial, target=self._target), Path(made))
