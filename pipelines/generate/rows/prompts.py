"""The first rows of an input as requests, read in this process, without Ray.

Ids and seeds are those of `paceline generate`, so the tokens are, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cluster.storage import storage
from models.requests.request import Request, Sampling
from pipelines.errors import InvalidInput
from pipelines.inputs.files import find_inputs
from pipelines.inputs.read import read_shard
from pipelines.inputs.rows import ID, PROBLEM, TOKENS, encoded, prompt_rows
from pipelines.inputs.seeds import row_seed
from pipelines.inputs.shards import make_plan
from pipelines.inputs.survey import survey
from pipelines.modality.chat import PROMPT, prompt_column
from pipelines.modality.choose import modality


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One row that can be run."""

    id: str
    tokens: tuple[int, ...]


def read_prompts(
    url: str,
    *,
    checkpoint: str,
    count: int,
    prompt_field: str | None = None,
    id_field: str = "id",
) -> list[Prompt]:
    """At most `count` prompts from the input's start, as the checkpoint's token ids.

    Raises:
        InvalidInput: none of those rows can be run; the first one's reason is told.
    """
    parts = prompt_parts(
        url, checkpoint=checkpoint, rows=count, prompt_field=prompt_field, id_field=id_field
    )
    good, reason = next(parts)
    if not good:
        raise none_can_be_run(url, reason)
    return good


def none_can_be_run(url: str, reason: str | None) -> InvalidInput:
    """Of an input whose rows all lack a prompt; `reason`: the first one's."""
    told = reason or "the prompt has no tokens"
    return InvalidInput(f"no row of input {storage.normalize(url)!r} can be run: {told}")


def prompt_parts(
    url: str,
    *,
    checkpoint: str,
    rows: int,
    prompt_field: str | None = None,
    id_field: str = "id",
) -> Iterator[tuple[list[Prompt], str | None]]:
    """The input's prompts, `rows` rows at a time, and why the first row of those is none.

    Raises:
        InvalidInput: the input has no rows, or no such column.
    """
    fields = {"prompt_field": prompt_field or PROMPT, "id_field": id_field}
    surveys = [survey(file, **fields) for file in find_inputs(url)]
    plan = make_plan(surveys, shard_rows=rows, id_field=id_field)
    if not plan.shards:
        raise InvalidInput(f"input {storage.normalize(url)!r} has no rows")
    column = prompt_column(prompt_field, plan.schema.names)
    made = modality(checkpoint)
    codec = made.codec()
    for shard in plan.shards:
        found = read_shard(shard, plan.schema, prompt_field=column, id_field=id_field)
        asked = prompt_rows(found, shard=shard.index, prompt_field=column, read=made.prompt)
        table = encoded(asked, codec).select([ID, PROBLEM, TOKENS]).to_pylist()
        good = [row for row in table if row[PROBLEM] is None and row[TOKENS]]
        prompts = [Prompt(id=row[ID], tokens=tuple(row[TOKENS])) for row in good]
        yield prompts, table[0][PROBLEM]


def requests(
    prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, at_least: int = 1
) -> list[Request]:
    """One request for each prompt; further samples of them until there are `at_least`."""
    samples = -(-max(at_least, len(prompts)) // len(prompts))
    every = [
        Request(
            id=f"{prompt.id}#{sample}",
            prompt=prompt.tokens,
            sampling=sampling,
            seed=row_seed(seed, prompt.id, sample),
        )
        for sample in range(samples)
        for prompt in prompts
    ]
    return every[: max(at_least, len(prompts))]


def shortened(asked: Sequence[Request], *, count: int, max_tokens: int) -> list[Request]:
    """The first requests with short completions: enough to warm up."""
    return [
        replace(r, sampling=replace(r.sampling, max_tokens=min(max_tokens, r.sampling.max_tokens)))
        for r in asked[:count]
    ]
