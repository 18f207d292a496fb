"""What the config.json of a student of a next-scale target says."""

from dataclasses import dataclass
from itertools import accumulate

from models.errors import UnsupportedCheckpoint
from models.sampling.flow import NAME
from models.students.config import MadeFor
from models.students.methods import FLOW_MAP
from models.targets.next_scale.model import NextScaleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleStudentConfig:
    """A student with the target's `sizes`; the other fields are those of `StudentConfig`."""

    target: MadeFor
    sizes: NextScaleConfig
    guidance: float = 1.0
    method: str = FLOW_MAP
    noise: str = NAME

    def __post_init__(self) -> None:
        for name, known in (("method", FLOW_MAP), ("noise", NAME)):
            found = getattr(self, name)
            if found != known:
                told = f"a student of a next-scale target has {known!r}"
                raise UnsupportedCheckpoint(f"the student's {name} is {found!r}; {told}")

    @property
    def vocab_size(self) -> int:
        """Codes."""
        return self.sizes.vocab_size

    @property
    def code_width(self) -> int:
        """Width of a code."""
        return self.sizes.code_width

    @property
    def num_classes(self) -> int:
        """Without the null class."""
        return self.sizes.num_classes

    @property
    def num_tokens(self) -> int:
        """Tokens of an image, in all maps."""
        return self.sizes.num_tokens

    @property
    def bounds(self) -> tuple[int, ...]:
        """The places from which a pass may decide: the first ones of all maps but the first."""
        return tuple(accumulate(side**2 for side in self.sizes.scales))[:-1]

    def refuse_another(self, target: MadeFor) -> None:
        """Raise UnsupportedCheckpoint unless the student was made for this target."""
        self.target.refuse_another(target)
