"""What a drafter's distillation is told besides the options of every distillation."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster.storage.checkpoints import is_remote
from models.errors import UnsupportedCheckpoint
from models.requests.request import require
from models.targets.decoder.config import read_json
from models.tokenizers import OURS
from pipelines.distill.config import DRAFTER_RECORDS, EVALUATION, TRAINING, DistillConfig
from pipelines.engine_options import HARDWARE, MAIN
from pipelines.options import option

KINDS = ("model", "medusa", "hydra", "eagle")
MATCH, DIVERGENCE = "match", "divergence"
LENGTH, EXAM_TOKENS = 256, 48  # of texts, unless the user says
RECOMPUTE, STREAM = "recompute", "stream"


def makes_own_prompts(target: str) -> bool:
    """Whether no prompts are needed, as for images; unknown of a target that is not here yet."""
    if is_remote(target):
        return True
    try:
        kind = read_json(Path(target) / "config.json").get("model_type")
    except UnsupportedCheckpoint:
        return False
    return str(kind).startswith(OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterOptions(DistillConfig):
    """A distillation of a text target, or of an image target, into a drafter."""

    NUM_RECORDS: ClassVar[int] = DRAFTER_RECORDS

    kind: str = option(
        "model: a small model of the target's kind, the only kind for image targets; medusa: heads "
        "on the target's last hidden state; hydra: heads that also read the tokens drafted before; "
        "eagle: an EAGLE-3 drafter, which reads three of the target's layers",
        default="model",
        decides=True,
        choices=KINDS,
        group=MAIN,
    )
    start: str | None = option(
        "drafter of this kind to go on from; the export is never worse than it by the exams",
        default=None,
        decides=True,
        metavar="PATH",
        group=MAIN,
    )
    prompts: str | None = option(
        "prompts that the target completes to learn from, in files as `paceline generate` reads "
        "them; instead of --data. An image target needs none: its classes are taken in turn",
        default=None,
        decides=True,
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    prompt_field: str | None = option(
        "column with the prompt, of --prompts or --data; default: prompt, or messages if there is "
        "no column prompt; label with images",
        default=None,
        decides=True,
        metavar="NAME",
        group=MAIN,
    )
    renew: int | None = option(
        "number of passes over the target's outputs after which it makes new ones, with other "
        "seeds, to go on learning from; default: never",
        default=None,
        decides=True,
        metavar="PASSES",
        group=MAIN,
    )
    guidance: float | None = option(
        "scale of classifier-free guidance, of the distributions that a drafter of an image "
        "target learns; default: the target's generation_config.json, else off",
        default=None,
        decides=True,
        metavar="SCALE",
        group=MAIN,
    )
    length: int | None = option(
        "number of tokens of a prompt and its output together; longer texts are cut; default: "
        f"{LENGTH}; with images a class and a whole image, nothing else",
        default=None,
        decides=True,
        group=TRAINING,
    )
    depth: int = option(
        "number of tokens that the drafter proposes: the heads of medusa and hydra, the unrolled "
        "steps of eagle, and the chains of the exams",
        default=4,
        decides=True,
        group=TRAINING,
    )
    width: int | None = option(
        "width of a new draft model, of the embedding of new Hydra heads (default: 3/8 of the "
        "target's width), or of a new EAGLE-3 drafter (default: 1/2; with the target's width it "
        "keeps the target's embedding and output matrix); of a new draft model of "
        "images (default: the target's, so that it begins with the target's own input, first layer "
        "and output)",
        default=None,
        decides=True,
        group=TRAINING,
    )
    draft_vocab: int | None = option(
        "number of tokens that new heads or a new EAGLE-3 drafter can draft, the most frequent "
        "ones of the target's texts: it has an output matrix of so many rows, which pays with a "
        "large vocabulary; default: all",
        default=None,
        decides=True,
        group=TRAINING,
    )
    loss: str = option(
        "match: the divergence from the target's distributions, in the last third of the steps a "
        "blend with how often the verification rule match accepts; divergence: all the way",
        default=MATCH,
        decides=True,
        choices=(MATCH, DIVERGENCE),
        group=TRAINING,
    )
    train_steps: int = option("number of training steps", default=600, decides=True, group=TRAINING)
    train_batch: int = option("texts per step", default=16, decides=True, group=TRAINING)
    rate: float = option(
        "peak learning rate of AdamW; 1e-4 does not ruin a good start, new drafters learn faster "
        "with 1e-3",
        default=1e-4,
        decides=True,
        group=TRAINING,
    )

    exam_prompts: int = option(
        "number of prompts that are kept for the exams during training, and again as many for the "
        "evaluation; at most a fifth of all",
        default=16,
        decides=True,
        group=EVALUATION,
    )
    exam_tokens: int | None = option(
        "number of tokens per prompt in the exams and the evaluation; default: "
        f"{EXAM_TOKENS}; with images all of an image, nothing else",
        default=None,
        decides=True,
        group=EVALUATION,
    )
    beside: tuple[str, ...] = option(
        "drafters to show beside it in the evaluation: names or folders, local or s3://; default: "
        "lookup, with images jacobi and mc-sjd",
        default=(),
        judges=True,
        metavar="DRAFTER",
        group=EVALUATION,
    )

    states: str = option(
        "where the target's hidden states and distributions come from. recompute: a copy of the "
        "target in each training process; stream: --target-actors actors, for targets that do not "
        "fit beside the training. The drafter is the same",
        default=RECOMPUTE,
        choices=(RECOMPUTE, STREAM),
        group=HARDWARE,
    )
    window: int | None = option(
        "with --states stream: steps that each training process asks for ahead; default: 4, less "
        "where they would take more than 30% of Ray's object store",
        default=None,
        group=HARDWARE,
    )

    def __post_init__(self) -> None:
        DistillConfig.__post_init__(self)
        given = (self.prompts is not None) + (self.data is not None)
        ok = given == 1 or (given == 0 and makes_own_prompts(self.target))
        require(ok, "prompts", self.prompts, "a file or folder, or else --data; one of the two")
        ok = self.guidance is None or 0 <= self.guidance <= 100
        require(ok, "guidance", self.guidance, "0 to 100; 1 is off")
        for name, least in (("length", 8), ("depth", 1), ("exam_prompts", 1), ("exam_tokens", 1)):
            value = getattr(self, name)
            require(value is None or value >= least, name, value, f"{least} or more")
        require(self.depth <= 16, "depth", self.depth, "1 to 16")
        ok = self.renew is None or (self.data is None and self.renew >= 1)
        require(ok, "renew", self.renew, "1 or more, without data: given rows are not made anew")
        ok = self.window is None or (self.states == STREAM and self.window >= 1)
        require(ok, "window", self.window, "1 or more, with states=stream")
        if self.width is not None:
            ok = self.width >= 2 and self.width % 2 == 0
            require(ok, "width", self.width, "an even number")
            ok = self.start is None and self.kind != "medusa"
            told = "unset: heads have the target's width, and a start has its own"
            require(ok, "width", self.width, told)
        if self.draft_vocab is not None:
            require(self.draft_vocab >= 2, "draft_vocab", self.draft_vocab, "2 or more")
            ok = self.start is None and self.kind != "model"
            told = "unset: a draft model has the target's vocabulary, and a start has its own"
            require(ok, "draft_vocab", self.draft_vocab, told)

    @property
    def text_length(self) -> int:
        """`length`, or that of texts."""
        return LENGTH if self.length is None else self.length

    @property
    def exam_length(self) -> int:
        """`exam_tokens`, or those of texts."""
        return EXAM_TOKENS if self.exam_tokens is None else self.exam_tokens

    @property
    def num_teachers(self) -> int:
        """Actors with the target that work while the training does."""
        return self.target_actors if self.states == STREAM else 0

    @property
    def num_processes(self) -> int:
        """That work at once: of the stage that has the most."""
        return max(self.workers + self.num_teachers, self.target_actors)

    def renewed_at(self, num_records: int) -> tuple[int, ...]:
        """The steps from which on records are new; `num_records`: to learn from, at first."""
        if self.renew is None:
            return ()
        every = -(-self.renew * num_records // self.train_batch)
        return tuple(range(every, self.train_steps, every))

    @property
    def match_from(self) -> int:
        """The number of the first sample that the match loss is lowered for."""
        first = 2 * self.train_steps // 3 if self.loss == MATCH else self.train_steps
        return first * self.train_batch
