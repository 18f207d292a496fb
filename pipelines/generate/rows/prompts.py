"""The first rows of an input as requests, read in this process, without Ray.

Ids and seeds are those of `paceline generate`, so the tokens are, too.
"""

from collections.abc import Sequence
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
    files = find_inputs(url)
    fields = {"prompt_field": prompt_field or PROMPT, "id_field": id_field}
    surveys = [survey(file, **fields) for file in files]
    plan = make_plan(surveys, shard_rows=count, id_field=id_field)
    if not plan.shards:
        raise InvalidInput(f"input {storage.normalize(url)!r} has no rows")
    column = prompt_column(prompt_field, plan.schema.names)
    rows = read_shard(plan.shards[0], plan.schema, prompt_field=column, id_field=id_field)
    made = modality(checkpoint)
    asked = prompt_rows(rows, shard=0, prompt_field=column, read=made.prompt)
    table = encoded(asked, made.codec()).select([ID, PROBLEM, TOKENS])
    good = [row for row in table.to_pylist() if row[PROBLEM] is None and row[TOKENS]]
    if not good:
        reason = table.column(PROBLEM).to_pylist()[0] or "the prompt has no tokens"
        raise InvalidInput(f"no row of input {storage.normalize(url)!r} can be run: {reason}")
    return [Prompt(id=row[ID], tokens=tuple(row[TOKENS])) for row in good]


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
