"""What a drafter learns from: the target's texts or images, made by `paceline generate`.

Or rows of an earlier run of it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.drafting.distil.texts import PROMPT as IDS
from models.drafting.distil.texts import Text, write_texts
from models.tokenizers.about import image_target
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.images import split_images
from pipelines.distill.drafters.prompts import Asked, asked_of, seeded_order
from pipelines.distill.records import digest_of, files_of, make_records
from pipelines.errors import InvalidInput, JobFailed
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.generate.rows.prompts import none_can_be_run, prompt_parts
from pipelines.modality.chat import prompt_column
from pipelines.modality.choose import modality

TRAINED, HELD_OUT = "texts.parquet", "held-out.parquet"
RENEWED = "renewed"  # folder of the rows and texts of later generations, by number
RENEWED_SEED = 2**40  # added to the run's seed for each generation
TOKENS, ERROR = "tokens", "error"
SHARD_ROWS = 64
PART = 5  # a fifth of the prompts, at most, is kept for exams, and a fifth for the evaluation

log = logging.getLogger(__name__)


def check_source(config: DrafterOptions) -> None:
    """Refuse prompts or rows that nothing could be learned from, before anything runs.

    Looks at the prompts that will be completed; tokenizes no more than it takes to find enough.

    Raises:
        InvalidInput: the column is missing, no row can be run, or too few prompts are short enough.
    """
    if config.data is not None:
        for file in files_of(config.data):
            _column(pq.read_schema(file).names, config, file)
    if config.prompts is None:
        return
    short, some, reason = set[tuple[int, ...]](), False, None
    with TemporaryDirectory() as place:
        for prompts, problem in prompt_parts(
            _asked(config, config.prompts, Path(place) / "prompts.jsonl").input,
            checkpoint=config.target,
            rows=SHARD_ROWS,
            prompt_field=config.prompt_field,
        ):
            some, reason = some or bool(prompts), reason or problem
            heads = [prompt.tokens for prompt in prompts]
            short |= {head for head in heads if leaves_room(head, config.text_length)}
            if len(short) >= PART:
                return
    if not some:
        raise none_can_be_run(config.prompts, reason)
    raise _too_few(len(short), config.text_length)


def _asked(config: DrafterOptions, prompts: str, file: Path) -> Asked:
    """The same in all generations, which have other seeds for what the target writes."""
    return asked_of(
        prompts,
        file,
        prompt_field=config.prompt_field,
        records=config.num_records,
        seed=config.seed,
    )


def make_rows(config: DrafterOptions, folder: Path, *, seed: int | None = None) -> dict[str, Any]:
    """Completions of the prompts, or images, at temperature 1; a repeated call continues.

    `seed`: of what the target writes, unless it is the run's.

    Raises:
        JobFailed: no row could be made.
    """
    seed = config.seed if seed is None else seed
    if (about := image_target(config.target)) is not None:
        return make_records(config, about, folder, rows=config.num_records, seed=seed)
    assert config.prompts is not None
    asked = _asked(config, config.prompts, folder.parent / "prompts" / f"{folder.name}.jsonl")
    summary = generate(
        GenerateConfig(
            target=config.target,
            input=asked.input,
            output=str(folder),
            prompt_field=config.prompt_field,
            n=asked.samples,
            max_tokens=written_at_most(config.text_length),
            seed=seed,
            batch_size=config.batch_size,
            target_actors=config.target_actors,
            shard_rows=SHARD_ROWS,
            device=config.device,
            address=config.address,
            progress=config.progress,
        )
    )
    if summary.rows_failed == summary.rows:
        raise JobFailed(f"{folder}: all {summary.rows} prompts failed; their rows say why")
    return {"rows": summary.rows, "failed": summary.rows_failed, "seconds": summary.seconds}


def written_at_most(length: int) -> int:
    """The tokens that the target writes of a text of `length` tokens that completes a prompt."""
    return length // 2


def read_rows(files: Sequence[str], config: DrafterOptions) -> list[Text]:
    """The texts of rows that `generate` wrote, in order, without rows that hold an error.

    Rows of a server that learns hold the tokens of their prompts.

    Raises:
        InvalidInput: the rows are no texts of a target.
    """
    made = modality(config.target)
    codec, found = made.codec(), list[Text]()
    for file in files:
        table = pq.read_table(file)
        column = _column(table.column_names, config, file)
        if column is None:
            found += _recorded(table)
            continue
        kept = [row for row in _rows(table, column) if row[TOKENS]]
        texts = [made.prompt(row[column], column) for row in kept]
        for rendered in (False, True):
            some = [i for i, text in enumerate(texts) if text.rendered is rendered]
            encoded = codec.encode_batch(
                [texts[i].text for i in some], add_special_tokens=not rendered
            )
            found += [
                Text(tokens=(*prompt, *kept[i][TOKENS]), num_prompt=len(prompt))
                for i, prompt in zip(some, encoded, strict=True)
            ]
    return found


def _column(names: Sequence[str], config: DrafterOptions, file: str) -> str | None:
    """The column with the prompts of a file of rows; None: it holds their tokens.

    Raises:
        InvalidInput: the file holds no rows of `generate`, or has no such column.
    """
    if config.prompt_field is None and {IDS, TOKENS} <= set(names):
        return None
    column = prompt_column(config.prompt_field, names)
    if TOKENS not in names:
        told = f"the rows have {', '.join(names)}; give rows of generate"
        raise InvalidInput(f"{file}: there is no column {TOKENS!r}: {told}")
    return column


def leaves_room(prompt: Sequence[int], length: int) -> bool:
    """Whether exams can have the prompt: half of `length` is left for what completes it."""
    return 1 < len(prompt) <= length // 2


def _too_few(count: int, length: int) -> InvalidInput:
    told = f"{count} different prompts of at most {length // 2} tokens"
    return InvalidInput(f"{told}; {PART} or more are needed, or a larger length")


def _recorded(table: pa.Table) -> Iterator[Text]:
    for prompt, tokens in zip(table[IDS].to_pylist(), table[TOKENS].to_pylist(), strict=True):
        if prompt and tokens:
            yield Text(tokens=(*prompt, *tokens), num_prompt=len(prompt))


def _rows(table: pa.Table, column: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.select([column, TOKENS]).to_pylist()
    return rows


def split(
    texts: Iterable[Text], *, length: int, kept: int, seed: int
) -> tuple[list[Text], list[Text], list[Text]]:
    """To learn from, for exams, for the evaluation: no prompt is in two of them.

    The last two hold one text for each prompt, which leaves room for half of `length`; the seed
    decides which prompts these are.

    Raises:
        InvalidInput: there are too few prompts.
    """
    by_prompt: dict[tuple[int, ...], list[Text]] = {}
    for text in texts:
        by_prompt.setdefault(text.tokens[: text.num_prompt], []).append(text)
    short = [prompt for prompt in by_prompt if leaves_room(prompt, length)]
    count = min(kept, len(short) // PART)
    if not count:
        raise _too_few(len(short), length)
    chosen = [short[number] for number in seeded_order(len(short), seed)[: 2 * count]]
    exam, held, kept_out = chosen[:count], chosen[count:], set(chosen)
    rest = [text for prompt, own in by_prompt.items() if prompt not in kept_out for text in own]
    return rest, [by_prompt[p][0] for p in exam], [by_prompt[p][0] for p in held]


def write_split(config: DrafterOptions, files: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write the texts to learn from, those for exams last, and those for the evaluation."""
    every = read_rows(files, config)
    texts = _with_places(every, config.text_length)
    if len(texts) < len(every):
        _warn_of_long_prompts(every, len(every) - len(texts), config.text_length)
    if image_target(config.target) is None:
        rest, exam, held = split(
            texts, length=config.text_length, kept=config.exam_prompts, seed=config.seed
        )
    else:
        order: Sequence[int] = range(len(texts))
        if config.data is not None:  # rows that were made here have their classes in turn
            order = seeded_order(len(texts), config.seed)
        rest, exam, held = split_images(texts, kept=config.exam_prompts, order=order)
    write_texts(folder / TRAINED, [*rest, *exam])
    write_texts(folder / HELD_OUT, held)
    return {
        "texts": len(rest),
        "left_out": len(every) - len(texts),
        "tokens": sum(min(len(t.tokens), config.text_length) - t.num_prompt for t in rest),
        "exam": len(exam),
        "held_out": len(held),
        "rows": list(files),
    }


def _with_places(texts: Sequence[Text], length: int) -> list[Text]:
    """Those with a token of the target's within `length`, of which something can be learned."""
    return [text for text in texts if text.num_prompt < length]


def _warn_of_long_prompts(texts: Sequence[Text], left_out: int, length: int) -> None:
    needed = 1 + max(text.num_prompt for text in texts)
    told = "%d of %d texts are left out, as their prompts fill --length %d; --length %d keeps all"
    log.warning(told, left_out, len(texts), length, needed)


def renew(
    config: DrafterOptions, number: int, folder: Path, first: Mapping[str, Any]
) -> dict[str, Any]:
    """Generation `number` of the texts in a run's folder; `first`: what was told of the first one.

    The prompts are the same, but for those that are kept for exams and the evaluation, and the
    seeds are others. The texts of the exams are those of the first generation.

    Raises:
        JobFailed: no row could be made.
    """
    place = folder / RENEWED / str(number)
    seed = (config.seed + (number - 1) * RENEWED_SEED) % 2**63
    made = make_rows(config, place / "rows", seed=seed)
    files = files_of(place / "rows")
    whole = written(folder / "texts" / TRAINED)
    exam = whole[len(whole) - first["exam"] :]
    kept = exam + written(folder / "texts" / HELD_OUT)
    heads = {text.tokens[: text.num_prompt] for text in kept}
    texts = _with_places(read_rows(files, config), config.text_length)
    if image_target(config.target) is None:  # prompts of images are classes, which all parts have
        texts = [text for text in texts if text.tokens[: text.num_prompt] not in heads]
    write_texts(place / TRAINED, [*texts, *exam])
    told = {"texts": len(texts), "exam": len(exam), "rows": list(files), "seed": seed}
    told["first"] = list(first["files"])  # which tokens a drafter can draft does not change
    trained = [str(place / TRAINED)]
    return {**made, **told, "files": trained, "digest": digest_of(trained)}


def written(file: Path) -> list[Text]:
    """The texts of a file of `write_texts`, whole."""
    return list(_recorded(pq.read_table(file)))


def rows_of(config: DrafterOptions, folder: Path) -> tuple[str, ...]:
    """The files of rows."""
    return files_of(folder if config.data is None else config.data)
