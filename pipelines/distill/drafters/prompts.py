"""Which prompts the target completes: all of the input, or as many as `--records` asks for.

They are taken by a hash of the seed and the row's number: a file that is sorted by topic gives
prompts of all topics, and the same ones again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.storage import storage
from pipelines.inputs.files import find_inputs
from pipelines.inputs.formats import FORMAT
from pipelines.inputs.read import Rows, read_shard
from pipelines.inputs.rows import row_id
from pipelines.inputs.seeds import row_seed
from pipelines.inputs.shards import ShardPlan, make_plan
from pipelines.inputs.survey import survey
from pipelines.modality.chat import PROMPT, prompt_column

ID = "id"
ORDER = "seeded:v1"  # names the order below, which decides what is learned from
PART_ROWS = 1024  # are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The `input` of a job, of which each prompt is completed `samples` times."""

    input: str
    samples: int


def seeded_order(count: int, seed: int) -> list[int]:
    """The numbers below `count`, in an order that the seed decides; see ORDER."""
    return sorted(range(count), key=lambda number: row_seed(seed, str(number), 0))


def asked_of(
    prompts: str, file: Path, *, prompt_field: str | None, records: int, seed: int
) -> Asked:
    """What gives about `records` outputs; writes `file` where some of the prompts are enough.

    Ids, and so the seeds of a job's rows, are those of the whole input.

    Raises:
        InvalidInput: the input cannot be read, or has no such column.
    """
    surveys = [survey(each, prompt_field=prompt_field or PROMPT) for each in find_inputs(prompts)]
    plan = make_plan(surveys, shard_rows=PART_ROWS)
    samples = max(1, -(-records // max(plan.num_rows, 1)))
    some = -(-records // samples)
    if some >= plan.num_rows:
        return Asked(input=prompts, samples=samples)
    column = prompt_column(prompt_field, plan.schema.names)
    lines = _lines(plan, seeded_order(plan.num_rows, seed)[:some], column)
    storage.publish(str(file), "".join(lines).encode("utf-8", "surrogatepass"))
    return Asked(input=str(file), samples=samples)


def _lines(plan: ShardPlan, numbers: Sequence[int], column: str) -> list[str]:
    """These rows as JSON Lines, in the input's order."""
    wanted, found = set(numbers), list[str]()
    for shard in plan.shards:
        first = shard.index * PART_ROWS
        here = [row for row in range(shard.num_rows) if first + row in wanted]
        if here:
            rows = read_shard(shard, plan.schema, prompt_field=column, id_field=ID)
            found += [json.dumps(_told(rows, row, column), default=str) + "\n" for row in here]
    return found


def _told(rows: Rows, row: int, column: str) -> dict[str, Any]:
    """A row that cannot be read has no prompt, and fails as it does in the whole input."""
    told = {ID: row_id(rows.ids[row], rows.places[row]), column: rows.prompts[row]}
    form = rows.formats[row]
    return told if form is None else told | {FORMAT: form}
