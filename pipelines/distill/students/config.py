"""What a student's distillation is told besides the options of every distillation."""

from dataclasses import dataclass

from models.errors import InvalidOption
from models.requests.request import require
from models.students.methods import FLOW_MAP, METHODS
from pipelines.distill.config import EVALUATION, DistillConfig
from pipelines.engine_options import MAIN
from pipelines.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentOptions(DistillConfig):
    """A distillation of an image target into a student."""

    method: str = option(
        "flow-map: the student predicts the target's distributions from noise, and the flow map "
        "turns them into tokens; two-head: it predicts tokens and vectors, as published; score: it "
        "predicts vectors, whose distribution a second network compares with the target's",
        default=FLOW_MAP,
        decides=True,
        choices=METHODS,
        group=MAIN,
    )
    layers: int | None = option(
        "number of the target's layers that the student keeps, spread evenly; fewer make a pass "
        "faster and the images less like the target's; default: all",
        default=None,
        decides=True,
        group=MAIN,
    )
    steps: int | str = option(
        "numbers of passes per image to evaluate the student with, such as 1,2",
        default="1,2",
        judges=True,
        metavar="N,N",
        group=MAIN,
    )
    label_field: str = option(
        "column of --data with the class of an image",
        default="label",
        decides=True,
        metavar="NAME",
        group=MAIN,
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
        "images per way of sampling in the evaluation", default=500, judges=True, group=EVALUATION
    )
    classifier: str = option(
        "classifier of the evaluation's metrics; see paceline evaluate",
        default="auto",
        judges=True,
        metavar="auto|PATH",
        group=EVALUATION,
    )

    def __post_init__(self) -> None:
        DistillConfig.__post_init__(self)
        require(self.label_field != "", "label_field", self.label_field, "a text, not empty")
        fits = self.layers is None or self.layers >= 1
        require(fits, "layers", self.layers, "1 or more, at most the target's")
        require(self.eval_rows >= 20, "eval_rows", self.eval_rows, "20 or more")
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
