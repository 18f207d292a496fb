"""What an evaluation is told: one field per option, the same in YAML, Python and the shell."""

import difflib
from dataclasses import dataclass

from models.errors import InvalidOption
from models.metrics.catalogue import METRICS
from models.request import require
from pipelines.options import check_types, option

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """An evaluation of samples against a reference."""

    samples: str = option(
        "what is judged: rows as `paceline generate` writes them (Parquet), pictures (PNG, JPEG; "
        "a folder per label) or arrays (.npy, .npz); a file or a folder, local or s3://",
        metavar="FILE_OR_FOLDER",
    )
    reference: str = option(
        "what it is held against, of any of these kinds: as a rule the teacher's own samples",
        metavar="FILE_OR_FOLDER",
    )
    floor: str | None = option(
        "more of the teacher's samples, from other seeds; default: a part of the reference",
        default=None,
        metavar="FILE_OR_FOLDER",
    )
    output: str | None = option(
        "folder for evaluation.json, evaluation.png, samples.png and the classifier", default=None
    )
    metrics: tuple[str, ...] = option(
        f"which figures; default: all that the rows allow, of {', '.join(METRICS)}",
        default=(),
        metavar="NAME",
    )
    classifier: str = option(
        "auto: of scikit-learn's handwritten digits, trained in seconds; a folder that holds a "
        "classifier; or labelled images, to train one on",
        default=AUTO,
        metavar="auto|PATH",
    )
    teacher: str | None = option(
        "folder of a model that says how likely the samples' tokens are", default=None
    )
    guidance: float | None = option(
        "the teacher's guidance scale, for samples that were made with one", default=None
    )
    label_field: str = option(
        "the column of what each image shows", default="label", metavar="NAME"
    )
    image_field: str = option(
        "the column of images: PNG or JPEG bytes, or files' paths", default="image", metavar="NAME"
    )
    tokens_field: str = option("the column of token ids", default="tokens", metavar="NAME")
    prompt_field: str = option(
        "the column of prompts, for a text teacher", default="prompt", metavar="NAME"
    )
    neighbours: int = option("k of precision and recall, 3 to 5 as a rule", default=3)
    max_rows: int = option("rows of each set that are used, drawn at random", default=2000)
    bootstrap: int = option("resamples for the intervals and for the floor", default=200)
    seed: int = option("of every random choice", default=0)
    device: str = option("where models run", default=AUTO, choices=(AUTO, "cpu", "cuda"))
    progress: bool = option("show a progress bar", default=True)

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("samples", "reference", "label_field", "image_field", "tokens_field"):
            require(bool(getattr(self, name)), name, getattr(self, name), "a text, not empty")
        for name in self.metrics:
            if name not in METRICS:
                near = difflib.get_close_matches(name, METRICS, n=1) or [", ".join(METRICS)]
                raise InvalidOption("metrics", name, f"known is {near[0]}")
        require(1 <= self.neighbours <= 9, "neighbours", self.neighbours, "1 to 9")
        require(self.max_rows >= 20, "max_rows", self.max_rows, "20 or more")
        require(40 <= self.bootstrap <= 10_000, "bootstrap", self.bootstrap, "40 to 10000")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        ok = self.guidance is None or self.teacher is not None
        require(ok, "guidance", self.guidance, "a teacher with it")
