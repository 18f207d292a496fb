"""What every distillation is told: one field per option, the same in YAML, Python and the shell."""

from dataclasses import dataclass
from typing import ClassVar

from models.requests.request import require
from pipelines import engine_options
from pipelines.engine_options import HARDWARE, MAIN
from pipelines.options import check_types, option

TRAINING, EVALUATION = "training", "evaluation"
STUDENT_RECORDS, DRAFTER_RECORDS = 20_000, 1000  # unless the user says


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """The options that students and drafters share."""

    NUM_RECORDS: ClassVar[int] = STUDENT_RECORDS

    target: str = option("folder of the target model", metavar="PATH", group=MAIN)
    output: str = option(
        "folder of the run, on this machine or a file system that all workers share; s3:// on a "
        "single node",
        metavar="FOLDER",
        group=MAIN,
    )
    records: int | None = option(
        "number of outputs that the target makes to learn from, without --data; default: "
        f"{STUDENT_RECORDS}, of a drafter {DRAFTER_RECORDS}",
        default=None,
        decides=True,
        group=MAIN,
    )
    data: str | None = option(
        "rows of an earlier `paceline generate` run of the target to learn from, or of `paceline "
        "serve --learn`, instead of new ones",
        default=None,
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    seed: int = option("seed of records and training", default=0, decides=True, group=MAIN)
    resume: bool = option(
        "continue a run that was interrupted; --no-resume deletes it and starts over",
        default=True,
        group=MAIN,
    )
    progress: bool = option("show progress bars", default=True, group=MAIN)

    train_steps: int = option(
        "number of training steps", default=1500, decides=True, group=TRAINING
    )
    train_batch: int = option("samples per step", default=64, decides=True, group=TRAINING)
    rate: float = option("peak learning rate of AdamW", default=1e-3, decides=True, group=TRAINING)
    save_every: int = option(
        "number of steps between saved states, from which a run continues",
        default=100,
        group=TRAINING,
    )
    exam_every: int = option(
        "number of steps between exams on held-out records, which choose the state to export",
        default=100,
        decides=True,
        group=TRAINING,
    )

    device: str = option(
        "device to train on, and to run the target and the evaluation on; cuda: a GPU for each "
        "training process; auto: GPUs if the cluster has some",
        default=engine_options.AUTO,
        choices=(engine_options.AUTO, "cpu", "cuda"),
        group=HARDWARE,
    )
    deepspeed: str | None = option(
        "DeepSpeed configuration: ZeRO stage, bf16, gradient accumulation; default: every worker "
        "holds all weights",
        default=None,
        metavar="FILE.json",
        group=HARDWARE,
    )
    workers: int = option("number of training processes", default=1, group=HARDWARE)
    threads: int | None = option(
        "number of CPU threads of each training process, and of the evaluation; default: all "
        "cores, shared equally",
        default=None,
        group=HARDWARE,
    )
    target_actors: int = option(
        "number of copies of the target that make records", default=1, group=HARDWARE
    )
    batch_size: int = option(
        "number of sequences each target actor works on at once", default=64, group=HARDWARE
    )
    address: str | None = engine_options.address()

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("target", "output"):
            require(getattr(self, name) != "", name, getattr(self, name), "a text, not empty")
        whole = ("train_steps", "train_batch", "save_every", "exam_every", "workers")
        for name in (*whole, "target_actors", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        ok = self.records is None or (self.records >= 1 and self.data is None)
        require(ok, "records", self.records, "1 or more, without data: all given rows are read")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        require(0 < self.rate <= 1, "rate", self.rate, "above 0, at most 1")
        told = f"at most train_batch ({self.train_batch})"
        require(self.workers <= self.train_batch, "workers", self.workers, told)

    @property
    def num_records(self) -> int:
        """Outputs that the target makes, at first."""
        if self.data is not None:
            return 0
        return self.NUM_RECORDS if self.records is None else self.records

    @property
    def num_teachers(self) -> int:
        """Actors with the target that work while the training does."""
        return 0

    @property
    def num_processes(self) -> int:
        """That work at once: of the stage that has the most."""
        return max(self.workers, self.target_actors)
