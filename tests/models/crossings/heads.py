"""Drafters with random weights that read the target's states: EAGLE, Medusa and Hydra heads."""

import torch

from models.drafting.drafter import Drafter
from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_head import EagleConfig, EagleHead
from models.drafting.heads.eagle_head import shapes as eagle_shapes
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.hydra_head import HydraConfig, HydraHead
from models.drafting.heads.hydra_head import shapes as hydra_shapes
from models.drafting.heads.hydra_model import HydraModel
from models.drafting.heads.medusa_head import MedusaConfig, MedusaHead
from models.drafting.heads.medusa_head import shapes as medusa_shapes
from models.drafting.heads.medusa_model import MedusaModel
from models.targets.decoder.weights import random_tensor
from models.targets.target import Target
from tests.models.crossings.making import Making
from tests.models.crossings.text_targets import random_config

CPU = torch.device("cpu")


def width_of(target: Target) -> int:
    target = getattr(target, "inner", target)
    config = getattr(target, "config", None)
    return config.width if config is not None else target.model.config.hidden_size


def tensors(wanted: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    return {name: random_tensor(name, shape, seed) for name, shape in wanted.items()}


def draft_ids(making: Making) -> list[int] | None:
    """The tokens that can be drafted: all, or some."""
    size = making.target.vocab_size
    if making.rng.random() < 0.6:
        return None
    return sorted(making.rng.choice(size, size // 2, replace=False).tolist())


def eagle(making: Making) -> Drafter:
    target, rng, ids = making.target, making.rng, draft_ids(making)
    layer = random_config(
        rng, vocab_size=target.vocab_size, num_layers=1, window=None, qk_norm=False,
        qkv_bias=False, out_bias=False, mlp_bias=False,
    )  # fmt: skip
    config = EagleConfig(
        layer=layer,
        draft_vocab_size=target.vocab_size if ids is None else len(ids),
        target_width=width_of(target),
        taps=tuple(sorted({0, target.num_layers // 2, target.num_layers})),
        norm_before_residual=bool(rng.random() < 0.5),
        norm_taps=bool(rng.random() < 0.5),
        norm_output=bool(rng.random() < 0.5),
    )
    chosen = None if ids is None else torch.tensor(ids)
    head = EagleHead(config=config, tensors=tensors(eagle_shapes(config), 1), ids=chosen)
    model = EagleModel(head, dtype=torch.float32, device=CPU)
    entries = making.entries
    return EagleDrafter(model, rows=making.rows, capacity=making.capacity, entries=entries)


def medusa(making: Making) -> Drafter:
    target, ids = making.target, draft_ids(making)
    config = MedusaConfig(
        vocab_size=target.vocab_size, width=width_of(target), num_heads=3,
        shared=bool(making.rng.random() < 0.5),
    )  # fmt: skip
    made = tensors(medusa_shapes(config, None if ids is None else len(ids)), 2)
    chosen = None if ids is None else torch.tensor(ids)
    head = MedusaHead(config=config, tensors=made, ids=chosen)
    return HeadsDrafter(MedusaModel(head, dtype=torch.float32, device=CPU))


def hydra(making: Making) -> Drafter:
    target = making.target
    width = width_of(target)
    config = HydraConfig(vocab_size=target.vocab_size, width=width, embedded=12, num_heads=3)
    output = random_tensor("output", (target.vocab_size, width), 3)
    head = HydraHead(config=config, tensors=tensors(hydra_shapes(config), 3), output=output)
    dtype = torch.float32 if target.adapted else target.dtype
    return HeadsDrafter(HydraModel(head, dtype=dtype, device=CPU))
