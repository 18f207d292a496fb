"""Whether transformers has a plan that splits a model over so many ranks. Loads transformers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import InvalidOption, UnsupportedCheckpoint

STYLES = (
    "colwise",
    "colwise_gather_output",
    "colwise_rep",
    "rowwise",
    "rowwise_split_input",
    "rowwise_rep",
    "embedding_rowwise",
    "replicated_with_grad_allreduce",
    "replicate",
)  # see models/targets/split/styles.py
KEYS = ("k_proj", "query_key_value")
UNFIT = ("doge", "hrm_text")  # types whose plans leave out what depends on the heads


def check_plan(folder: Path, ranks: int) -> None:
    """Raise InvalidOption unless a checkpoint can be split over so many ranks.

    Raises UnsupportedCheckpoint if transformers does not know the checkpoint's family.
    """
    from transformers import AutoConfig  # takes seconds, and loads torch

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise UnsupportedCheckpoint(f"{folder}: transformers cannot load it: {error}") from error
    text = config.get_text_config()
    plan = type(text).base_model_tp_plan or {}
    whole = f"1 with {str(folder)!r}"
    if not plan:
        told = f"{whole}: transformers has no plan to split models of type {text.model_type!r}"
        raise InvalidOption("tensor_parallel", ranks, told)
    other = sorted(set(plan.values()).difference(STYLES))
    norms = getattr(text, "use_qk_norm", False) and not any("q_norm" in name for name in plan)
    if other or norms or text.model_type in UNFIT:
        has = f" has {other[0]!r}, which" if other else ""
        told = f"{whole}: transformers' plan for type {text.model_type!r}{has} is not supported"
        raise InvalidOption("tensor_parallel", ranks, told)
    check_sizes(_sizes(text, plan), ranks)


def _sizes(config: Any, plan: Mapping[str, str]) -> dict[str, int]:
    """What the ranks divide among themselves: heads if the plan splits them, inner columns."""
    sizes = {"inner width": _common(config.intermediate_size)}
    keys = {style for name, style in plan.items() if name.rpartition(".")[2] in KEYS}
    if "colwise" in keys:
        heads = config.num_attention_heads
        sizes["query heads"] = _common(heads)
        sizes["key heads"] = _common(getattr(config, "num_key_value_heads", None) or heads)
    return sizes


def _common(size: int | list[int]) -> int:
    """The largest number that divides a size, or that of each layer."""
    return math.gcd(*size) if isinstance(size, list) else size


def check_sizes(sizes: Mapping[str, int], ranks: int) -> None:
    """Raise InvalidOption unless the number of ranks divides all of these sizes."""
    if all(size % ranks == 0 for size in sizes.values()):
        return
    most = min(sizes.values())
    counts = [n for n in range(1, most + 1) if all(size % n == 0 for size in sizes.values())]
    found = ", ".join(f"{size} {name}" for name, size in sizes.items())
    told = f"one of {', '.join(map(str, counts))} with this target ({found})"
    raise InvalidOption("tensor_parallel", ranks, told)
