"""What a job is made of before anything runs: a configuration that fits its input and output.

Needs neither Ray nor a model. All that can be checked is checked before the output is touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.errors import StorageError
from cluster.storage import storage
from cluster.storage.lease import Ticket
from models.errors import InvalidOption
from models.targets.split.check import check_ranks
from pipelines.engine_options import warn_of_threads
from pipelines.errors import InvalidInput
from pipelines.generate.bounds import check_bounds, check_drafter
from pipelines.generate.config import GenerateConfig
from pipelines.generate.drive import Job
from pipelines.generate.fingerprint import fingerprint
from pipelines.generate.rows.writer import Layout
from pipelines.generate.student import check_drafting_student
from pipelines.inputs.files import find_inputs
from pipelines.inputs.shards import Shard, ShardPlan, make_plan
from pipelines.inputs.survey import survey
from pipelines.modality.chat import PROMPT, prompt_column
from pipelines.modality.choose import modality_of
from pipelines.output.columns import output_schema
from pipelines.output.manifest import Entry, Manifest, refuse_foreign


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job whose configuration, input and output have been checked."""

    config: GenerateConfig
    plan: ShardPlan
    layout: Layout
    manifest: Manifest
    earlier: tuple[Entry, ...]  # of other runs, and to stay
    earlier_seconds: float  # of generating, by other runs

    @property
    def todo(self) -> list[Shard]:
        """Shards that are not committed, or that hold rows to be tried again."""
        settled = {entry.shard for entry in self.manifest.settled}
        return [shard for shard in self.plan.shards if shard.index not in settled]

    @property
    def prompt_field(self) -> str:
        """The column that is read."""
        return prompt_column(self.config.prompt_field, self.plan.schema.names)

    @property
    def job(self) -> Job:
        """What the driver's loop needs to know."""
        return Job(
            sampling=self.config.sampling(),
            seed=self.config.seed,
            noise=self.config.noise,
            samples=self.config.n,
            shard_rows={shard.index: shard.num_rows for shard in self.todo},
        )


def prepare(config: GenerateConfig, *, claim: Callable[[str], Ticket] | None = None) -> Prepared:
    """Check what can be checked without a model, then open the output folder.

    `claim`: takes the output folder's lease; None: no other run can be there.

    Raises:
        PacelineError: a model is none, an option does not fit it, the input or the output folder
            cannot be used as the configuration says, or another run uses the output.
        StorageError: the input cannot be read or the output not be written.
    """
    modality = modality_of(config)
    config = modality.settled(config)
    check_bounds(config, modality.limits)
    check_drafter(config, modality.limits)
    check_ranks(config.target, config.tensor_parallel)
    check_drafting_student(config.drafter, config.target)
    source, url = storage.normalize(config.input), storage.normalize(config.output)
    if f"{url}/".startswith(f"{source}/"):
        raise InvalidInput(f"output {url!r} lies in the input {source!r}, which would change it")
    for name in ("summary", "trace"):
        _check_file(name, getattr(config, name), source)
    plan = _plan(config, source)
    config = replace(config, prompt_field=prompt_column(config.prompt_field, plan.schema.names))
    modality.check_plan(plan, config)
    schema = output_schema(
        plan.schema,
        modality.column,
        id_field=config.id_field,
        samples=config.n,
        logprobs=config.logprobs is not None,
    )
    warn_of_threads(config)
    job = fingerprint(config, plan)
    refuse_foreign(url)
    ticket = claim(url) if claim else None
    layout = Layout(
        url=url,
        schema=schema,
        modality=modality,
        id_field=config.id_field,
        samples=config.n,
        ticket=ticket,
    )
    manifest = Manifest.open(url, job, resume=config.resume, ticket=ticket)
    return Prepared(
        config=config,
        plan=plan,
        layout=layout,
        manifest=manifest,
        earlier=tuple(manifest.settled),
        earlier_seconds=sum(entry.seconds for entry in manifest.entries.values()),
    )


def _plan(config: GenerateConfig, source: str) -> ShardPlan:
    fields = {"prompt_field": config.prompt_field or PROMPT, "id_field": config.id_field}
    surveys = [survey(file, **fields) for file in find_inputs(source)]
    plan = make_plan(surveys, shard_rows=config.shard_rows, id_field=config.id_field)
    if not plan.num_rows:
        raise InvalidInput(f"input {config.input!r} has no rows")
    if config.id_field != "id":
        _require_column("id_field", config.id_field, plan.schema.names)
    return plan


def _check_file(option: str, file: str | None, source: str) -> None:
    """Raise InvalidOption for a file that cannot be written, or that is or would be input."""
    if file is None:
        return
    url = storage.normalize(file)
    if storage.is_folder(url):
        raise InvalidOption(option, file, "a file's name is needed, not a folder's")
    if f"{url}/".startswith(f"{source}/"):
        raise InvalidOption(option, file, f"a file outside of the input {source!r}")
    try:
        storage.check_writable(url)
    except StorageError as error:
        raise InvalidOption(option, file, f"a file that can be written; {error}") from error


def _require_column(option: str, name: str, columns: Sequence[str]) -> None:
    """Columns are not known where no row could be read: then there are error rows instead."""
    if columns and name not in columns:
        raise InvalidInput(
            f"{option}={name!r}: the input has no such column; it has {', '.join(columns)}"
        )
