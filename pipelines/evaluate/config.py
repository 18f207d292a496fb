"""What an evaluation is told: one field per option, the same in YAML, Python and the shell."""

import difflib
from dataclasses import dataclass

from models.errors import InvalidOption
from models.metrics.catalogue import METRICS
from models.requests.request import require
from pipelines.engine_options import MAIN
from pipelines.options import check_types, option

AUTO = "auto"
COLUMNS, MEASURING = "columns of the rows", "how it is measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """An evaluation of samples against a reference."""

    samples: str = option(
        "samples to judge: rows as `paceline generate` writes them (Parquet), pictures (PNG, JPEG; "
        "a folder per label) or arrays (.npy, .npz); a file or a folder, local or s3://",
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    reference: str = option(
        "samples to compare with, of the same kinds; usually made by the teacher itself",
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    floor: str | None = option(
        "more samples of the teacher, made with other seeds; default: a part of the reference",
        default=None,
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    output: str | None = option(
        "folder for evaluation.json, evaluation.png, samples.png and the classifier",
        default=None,
        metavar="FOLDER",
        group=MAIN,
    )
    metrics: tuple[str, ...] = option(
        f"metrics to compute, of {', '.join(METRICS)}; default: all that the rows allow",
        default=(),
        metavar="NAME",
        group=MAIN,
    )
    teacher: str | None = option(
        "folder of a model to compute the likelihood of the samples' tokens with",
        default=None,
        metavar="PATH",
        group=MAIN,
    )
    classifier: str = option(
        "auto: one trained in seconds on scikit-learn's handwritten digits; a folder with a "
        "classifier; or labelled images to train one on",
        default=AUTO,
        metavar="auto|PATH",
        group=MAIN,
    )
    seed: int = option("seed of every random choice", default=0, group=MAIN)

    label_field: str = option(
        "column with the label of an image", default="label", metavar="NAME", group=COLUMNS
    )
    image_field: str = option(
        "column with images: PNG or JPEG bytes, or paths of files",
        default="image",
        metavar="NAME",
        group=COLUMNS,
    )
    tokens_field: str = option(
        "column with token ids", default="tokens", metavar="NAME", group=COLUMNS
    )
    prompt_field: str = option(
        "column with prompts, for a teacher of text",
        default="prompt",
        metavar="NAME",
        group=COLUMNS,
    )

    guidance: float | None = option(
        "scale of classifier-free guidance that the teacher applies",
        default=None,
        metavar="SCALE",
        group=MEASURING,
    )
    neighbours: int = option(
        "number of nearest neighbours in precision and recall (1 to 9)",
        default=3,
        group=MEASURING,
    )
    max_rows: int = option(
        "number of rows to use of each set, drawn at random", default=2000, group=MEASURING
    )
    bootstrap: int = option(
        "number of resamples for the intervals and the noise floor", default=200, group=MEASURING
    )
    device: str = option(
        "device to run models on; auto: a GPU if there is one",
        default=AUTO,
        choices=(AUTO, "cpu", "cuda"),
        group=MEASURING,
    )
    progress: bool = option("show a progress bar", default=True, group=MEASURING)

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
