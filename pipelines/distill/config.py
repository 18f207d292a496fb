"""What a distillation is told: one field per option, the same in YAML, Python and the shell."""

from dataclasses import dataclass

from models.errors import InvalidOption
from models.requests.request import require
from models.students.methods import FLOW_MAP, METHODS
from pipelines import engine_options
from pipelines.engine_options import HARDWARE, MAIN
from pipelines.options import check_types, option

TRAINING, EVALUATION = "training", "evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """A distillation of a target into a student."""

    target: str = option("folder of the target model, an image target", metavar="PATH", group=MAIN)
    output: str = option(
        "folder of the run, on this machine or on a file system that all workers share",
        metavar="FOLDER",
        group=MAIN,
    )
    method: str = option(
        "flow-map: the student predicts the target's distributions from noise, and the flow map "
        "turns them into tokens",
        default=FLOW_MAP,
        decides=True,
        choices=METHODS,
        group=MAIN,
    )
    steps: int | str = option(
        "numbers of passes per image to evaluate the student with, such as 1,2",
        default="1,2",
        metavar="N,N",
        group=MAIN,
    )
    records: int = option(
        "number of the target's images to learn from", default=20_000, decides=True, group=MAIN
    )
    data: str | None = option(
        "rows of an earlier `paceline generate` run of the target to learn from, instead of new "
        "ones",
        default=None,
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    label_field: str = option(
        "column of --data with the class of an image",
        default="label",
        decides=True,
        metavar="NAME",
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
    train_batch: int = option("images per step", default=64, decides=True, group=TRAINING)
    rate: float = option("peak learning rate of AdamW", default=1e-3, decides=True, group=TRAINING)
    save_every: int = option(
        "number of steps between saved states, from which a run continues",
        default=100,
        group=TRAINING,
    )

    guidance: float | None = option(
        "scale of classifier-free guidance to distill; default: the target's "
        "generation_config.json, else off",
        default=None,
        decides=True,
        metavar="SCALE",
        group=MAIN,
    )
    eval_rows: int = option(
        "images per way of sampling in the evaluation", default=500, decides=True, group=EVALUATION
    )
    classifier: str = option(
        "classifier of the evaluation's metrics; see paceline evaluate",
        default="auto",
        metavar="auto|PATH",
        group=EVALUATION,
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
        "number of images each target actor works on at once", default=64, group=HARDWARE
    )
    address: str | None = engine_options.address()

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("target", "output", "label_field"):
            require(getattr(self, name) != "", name, getattr(self, name), "a text, not empty")
        for name in ("train_steps", "train_batch", "save_every", "workers", "target_actors"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name, least in (("records", 1), ("eval_rows", 20), ("batch_size", 1)):
            require(getattr(self, name) >= least, name, getattr(self, name), f"{least} or more")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        require(0 < self.rate <= 1, "rate", self.rate, "above 0, at most 1")
        told = f"at most train_batch ({self.train_batch})"
        require(self.workers <= self.train_batch, "workers", self.workers, told)
        _ = self.passes

    @property
    def passes(self) -> tuple[int, ...]:
        """The numbers of passes, ascending."""
        try:
            found = sorted({int(word) for word in str(self.steps).split(",")})
        except ValueError:
            found = []
        if not found or found[0] < 1:
            raise InvalidOption("steps", self.steps, "positive numbers with commas, such as 1,2")
        return tuple(found)
