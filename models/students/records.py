"""Reads a target's images for training from rows as `paceline generate` writes them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.errors import UnsupportedCheckpoint
from models.exactness import APPROXIMATE
from models.students.pairs import Records
from models.targets.next_scale.model import NextScaleConfig
from models.training.raster import RasterConfig

Sizes = RasterConfig | NextScaleConfig
TOKENS, SEED, EXACTNESS = "tokens", "seed", "exactness"


def read_records(files: Sequence[str], config: Sizes, *, label_field: str) -> Records:
    """The rows of Parquet files, in order, without rows that hold an error instead of an image.

    Raises:
        UnsupportedCheckpoint: the rows are not images of a target with these sizes.
    """
    classes, tokens, seeds = list[int](), list[list[int]](), list[int]()
    for file in files:
        table = pq.read_table(file)
        _refuse_other_laws(table, file)
        for name in (label_field, TOKENS, SEED):
            if name not in table.column_names:
                told = f"the rows have {', '.join(table.column_names)}"
                raise UnsupportedCheckpoint(f"{file}: there is no column {name!r}; {told}")
        table = table.select([label_field, TOKENS, SEED])
        for label, row, seed in zip(*(column.to_pylist() for column in table), strict=True):
            if row is not None:
                classes.append(int(label))
                tokens.append(row)
                seeds.append(seed)
    _check(classes, tokens, config, files)
    return Records(
        classes=torch.tensor(classes), tokens=torch.tensor(tokens), seeds=np.array(seeds)
    )


def _refuse_other_laws(table: pa.Table, file: str) -> None:
    """Raise UnsupportedCheckpoint if rows say that they are not of the target's distribution."""
    said = table.column(EXACTNESS).to_pylist() if EXACTNESS in table.column_names else []
    if APPROXIMATE in said:
        told = "rows of the target's own distribution are needed"
        raise UnsupportedCheckpoint(f"{file}: a row's exactness is {APPROXIMATE!r}; {told}")


def _check(
    classes: list[int],
    tokens: list[list[int]],
    config: Sizes,
    files: Sequence[str],
) -> None:
    where = files[0] if files else "no files"
    if not tokens:
        raise UnsupportedCheckpoint(f"{where}: there are no rows with tokens to learn from")
    lengths = {len(row) for row in tokens}
    if lengths != {config.num_tokens}:
        told = f"the target's images have {config.num_tokens}"
        raise UnsupportedCheckpoint(f"{where}: rows of {sorted(lengths)} tokens; {told}")
    largest, smallest = max(map(max, tokens)), min(map(min, tokens))
    if smallest < 0 or largest >= config.vocab_size:
        told = f"the target knows 0 to {config.vocab_size - 1}"
        raise UnsupportedCheckpoint(f"{where}: tokens {smallest} to {largest}; {told}")
    if min(classes) < 0 or max(classes) >= config.num_classes:
        told = f"the target knows 0 to {config.num_classes - 1}"
        raise UnsupportedCheckpoint(f"{where}: classes {min(classes)} to {max(classes)}; {told}")
