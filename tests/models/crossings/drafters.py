"""Every drafter by its name, and the shapes that it is asked for."""

from collections.abc import Callable

import numpy as np

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import Drafter
from models.drafting.parallel.canvas import CanvasDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.targets.decoder.decoder import Decoder
from tests.models.crossings.heads import eagle, hydra, medusa
from tests.models.crossings.making import Making
from tests.models.crossings.text_targets import random_config
from tests.models.guessing import Prophet


def draft_model(making: Making) -> Drafter:
    """The target itself, or a stranger with its vocabulary."""
    model = making.target
    if isinstance(model, Decoder) and making.rng.random() < 0.6:
        c = model.config
        config = random_config(
            making.rng,
            vocab_size=c.vocab_size,
            context_length=c.context_length,
            **{"rotary": c.rotary, "grid": c.grid, "tied": False, "head_dim": 8} if c.grid else {},
        )
        model = Decoder.from_config(config, 5)
    entries = making.entries
    return ModelDrafter(model, rows=making.rows, capacity=making.capacity, entries=entries)


def prophet(making: Making) -> Drafter:
    rng = making.rng
    return Prophet(
        making.known,
        making.target.vocab_size,
        right=float(rng.choice([0.7, 0.9, 1.0])),
        absent=float(rng.choice([0.0, 0.3])),
        wanders=bool(rng.random() < 0.3),
        seed=int(rng.integers(1 << 30)),
    )


def jacobi(making: Making) -> Drafter:
    rule = str(making.rng.choice(["uniform", "left", "above"]))
    return JacobiDrafter("shared", Start(rule=rule, row_length=5))


def student(making: Making) -> Drafter:
    """The target's; for targets without one, the drafter that it makes use of."""
    found = getattr(getattr(making.target, "inner", making.target), "student", None)
    return jacobi(making) if found is None else CanvasDrafter(found, name="student")


Maker = Callable[[Making], Drafter | None]
DRAFTERS: dict[str, Maker] = {
    "none": lambda making: None,
    "lookup": lambda making: LookupDrafter(),
    "model": draft_model,
    "prophet": prophet,
    "jacobi": jacobi,
    "eagle": eagle,
    "medusa": medusa,
    "hydra": hydra,
    "student": student,
}
CHAINS = ("lookup", "jacobi", "student")


def random_shape(rng: np.random.Generator, drafter: str) -> Shape:
    if drafter == "none":
        return NOTHING
    depth = int(rng.integers(1, 7))
    width = 1 if drafter in CHAINS or rng.random() < 0.4 else int(rng.integers(2, 5))
    some = width > 1 and drafter != "prophet" and rng.random() < 0.4
    nodes = int(rng.integers(1, depth * width + 1)) if some else 0
    return Shape(depth=depth, width=width, nodes=nodes)
