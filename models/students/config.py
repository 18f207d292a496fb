"""What a student's config.json says: its sizes, its method and the target it was made for."""

from dataclasses import dataclass

from models.errors import UnsupportedCheckpoint
from models.registry import FLOW
from models.students.methods import FLOW_MAP, METHODS, map_of
from models.training.raster import RasterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFor:
    """A target: where it was, and the digest of its files."""

    path: str
    digest: str

    def __str__(self) -> str:
        return f"{self.path!r} (digest {self.digest[:12]})"

    def refuse_another(self, target: "MadeFor") -> None:
        """Raise UnsupportedCheckpoint unless it is this target."""
        if self.digest != target.digest:
            raise UnsupportedCheckpoint(
                f"the student was made for the target {self}, not for {target}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """A student of a raster target; the sizes are the target's.

    `method`: one of methods.py. `guidance`: the scale of the laws that it learned. `noise`: the
    name of the map from its noise to tokens, which the method decides; checkpoints of before name
    the flow map whatever the method is.
    """

    target: MadeFor
    vocab_size: int
    code_width: int
    num_classes: int
    grid_width: int
    grid_height: int
    width: int
    inner_width: int
    num_layers: int
    num_heads: int
    guidance: float = 1.0
    method: str = FLOW_MAP
    noise: str = FLOW

    def __post_init__(self) -> None:
        own = map_of(self.method)
        for name, known in (("method", METHODS), ("noise", dict.fromkeys((FLOW, own)))):
            found = getattr(self, name)
            if found not in known:
                told = " or ".join(known)
                raise UnsupportedCheckpoint(f"the student's {name} is {found!r}; known is {told}")
        object.__setattr__(self, "noise", own)

    @classmethod
    def of(
        cls,
        raster: RasterConfig,
        target: MadeFor,
        guidance: float = 1.0,
        method: str = FLOW_MAP,
    ) -> "StudentConfig":
        """The configuration of a student with the target's sizes."""
        sizes = {name: getattr(raster, name) for name in SIZES}
        return cls(target=target, guidance=guidance, method=method, **sizes)

    def raster(self) -> RasterConfig:
        """The sizes of the network."""
        return RasterConfig(**{name: getattr(self, name) for name in SIZES}, dropout=0.0)

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return self.grid_width * self.grid_height

    @property
    def bounds(self) -> tuple[int, ...]:
        """The places, but the first, from which a pass may decide."""
        return tuple(range(1, self.num_tokens))

    def refuse_another(self, target: MadeFor) -> None:
        """Raise UnsupportedCheckpoint unless the student was made for this target."""
        self.target.refuse_another(target)


SIZES = (
    "vocab_size",
    "code_width",
    "num_classes",
    "grid_width",
    "grid_height",
    "width",
    "inner_width",
    "num_layers",
    "num_heads",
)
