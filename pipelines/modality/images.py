"""Images on their way through a generate job: prompts are classes, results pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from actors.image_tokenizer import ImageTokenizerActor
from cluster.storage import storage
from models.drafting.parallel.decoders import COUPLED, DEFAULT_COUPLING, DEFAULT_START, WINDOW
from models.errors import InvalidOption
from models.registry import NONE, SEQUENTIAL, drafter_entry, is_draft_model
from models.requests.request import Result, require
from models.students.about import is_student
from models.targets.limits import Limits, read_limits
from models.tokenizers.about import ImageTarget
from pipelines.engine_options import AUTO
from pipelines.generate.config import GenerateConfig
from pipelines.generate.student import check_student
from pipelines.inputs.rows import ID, PromptText
from pipelines.inputs.shards import ShardPlan
from pipelines.modality.chat import prompt_column
from pipelines.modality.modality import Codec, Contents, refuse_column
from pipelines.output.contact_sheet import first_pictures, sheet
from pipelines.output.picture_files import picture_file, refuse_repeated_ids

SHEET = "_contact-sheet.png"  # Parquet readers of the folder skip names that begin with _
COLUMNS, LINES = 10, 10  # of the sheet

# What has no meaning for an image: its value when it is off, and what to do instead.
_DRAFTERS = (
    "images are guessed ahead by --decoder, by the folder of a draft model with the target's "
    "classes, grid and codes, or by that of a student of the target"
)
_DRAFTING = "only the folder of a draft model as --drafter makes drafts of another size"
_LENGTH = "an image always has all of its tokens"
_REPEATS = "an image repeats tokens by nature"
_OFF: Mapping[str, tuple[object, str]] = {
    "min_tokens": (0, _LENGTH),
    "stop": ((), "an image holds no text"),
    "stop_token_ids": ((), _LENGTH),
    "ignore_eos": (False, _LENGTH),
    "presence_penalty": (0.0, _REPEATS),
    "frequency_penalty": (0.0, _REPEATS),
    "repetition_penalty": (1.0, _REPEATS),
}
# The same where no draft model guesses.
_OFF_WITHOUT_DRAFTS: Mapping[str, tuple[object, str]] = {
    "drafter": (NONE, _DRAFTERS),
    "draft_tokens": (AUTO, _DRAFTING),
    "draft_width": (AUTO, _DRAFTING),
    "draft_nodes": (None, _DRAFTING),
    "verify": ("match", "the --decoder says how guesses are checked"),
}
_ALL_OFF = {**_OFF, **_OFF_WITHOUT_DRAFTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """See pipelines/modality/modality.py."""

    kind: ClassVar[str] = "images"
    checkpoint: str
    about: ImageTarget
    as_files: bool

    @property
    def column(self) -> pa.Field:
        """PNG bytes, or files' names relative to the output."""
        return pa.field("image", pa.string() if self.as_files else pa.binary())

    @property
    def limits(self) -> Limits:
        """As the checkpoint's config.json says; a target of maps has an image and its class."""
        context = read_limits(self.checkpoint).context_length if self.about.in_order else None
        size = 1 + self.about.num_tokens
        return Limits(vocab_size=self.about.vocab_size, context_length=context or size)

    def settled(self, config: GenerateConfig) -> GenerateConfig:
        """Raises InvalidOption for what only texts have, or what does not fit an image."""
        for name, (off, told) in (_OFF if is_draft_model(config.drafter) else _ALL_OFF).items():
            value = getattr(config, name)
            ok = value == off or (name == "drafter" and is_student(value))
            require(ok, name, value, f"only {off!r} with an image target: {told}")
        check_student(config)
        size, decoder = self.about.num_tokens, config.decoder or SEQUENTIAL
        ok = config.max_tokens in (None, size)
        require(ok, "max_tokens", config.max_tokens, f"{size}, the tokens of an image, or none")
        ok = config.max_length is None or config.max_length > size
        require(ok, "max_length", config.max_length, f"{size + 1} or more: a class and an image")
        self._check_guesses(config, decoder)
        in_windows = decoder != SEQUENTIAL or drafter_entry(config.drafter).window
        coupled = decoder == COUPLED
        return replace(
            config,
            max_tokens=size,
            decoder=decoder,
            window=(config.window or WINDOW) if in_windows else None,
            coupling=(config.coupling or DEFAULT_COUPLING) if coupled else None,
            start=(config.start or DEFAULT_START) if decoder != SEQUENTIAL else None,
            guidance=self.about.guidance if config.guidance is None else config.guidance,
            images_as=config.images_as or "bytes",
        )

    def _check_guesses(self, config: GenerateConfig, decoder: str) -> None:
        """One thing guesses ahead, and only where tokens are decided in order."""
        drafts = config.drafter != NONE
        ok = decoder == SEQUENTIAL or not drafts
        require(ok, "decoder", decoder, f"{SEQUENTIAL} or none with drafter={config.drafter!r}")
        if not self.about.in_order and (drafts or decoder != SEQUENTIAL):
            told = "this target writes whole maps at once, with nothing to guess ahead"
            if drafts:
                raise InvalidOption("drafter", config.drafter, f"none: {told}")
            raise InvalidOption("decoder", decoder, f"sequential: {told}")

    def check_plan(self, plan: ShardPlan, config: GenerateConfig) -> None:
        """Refuse a column that holds no classes. Files are named by ids, which must then differ."""
        column = prompt_column(config.prompt_field, plan.schema.names)
        refuse_column(plan.schema, column, self.prompts, "classes")
        if self.as_files:
            refuse_repeated_ids(plan, id_field=config.id_field, prompt_field=column)

    @staticmethod
    def prompts(kind: pa.DataType) -> bool:
        """Whether a column of this type may hold classes, as numbers or as their digits."""
        tests = (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_string,
            pa.types.is_large_string,
        )
        return any(test(kind) for test in tests)

    def prompt(self, value: object, field: str) -> PromptText:
        """A class as its number's digits; raises ValueError if it is none of the target's."""
        if value is None:
            raise ValueError(f"field {field!r} is missing")
        number = _whole(value)
        most = self.about.num_classes - 1
        if number is None:
            kind = type(value).__name__
            told = f"not the number of a class, 0 to {most}"
            raise ValueError(f"field {field!r} is {kind} {value!r:.80}, {told}")
        if not 0 <= number <= most:
            raise ValueError(f"field {field!r} is class {number}, not in 0 to {most}")
        return PromptText(text=str(number))

    def codec(self) -> ImageTokenizerActor:
        """The checkpoint's image tokenizer."""
        return ImageTokenizerActor(self.checkpoint)

    def contents(
        self, rows: pa.Table, results: Sequence[Result], codec: Codec, *, samples: int
    ) -> Contents:
        """Pictures or their files' names; None for errors."""
        good = [i for i, result in enumerate(results) if result.finish_reason != "error"]
        pictures = codec.decode_batch([list(results[i].tokens) for i in good])
        values: list[Any] = [None] * len(results)
        if not self.as_files:
            for i, picture in zip(good, pictures, strict=True):
                values[i] = picture
            return Contents(values=values)
        ids, files = rows.column(ID).to_pylist(), {}
        for i, picture in zip(good, pictures, strict=True):
            values[i] = picture_file(ids[i], i % samples if samples > 1 else None)
            files[values[i]] = picture
        return Contents(values=values, files=files)

    def beside(self, url: str, parts: Sequence[str]) -> Mapping[str, bytes]:
        """A contact sheet of the first rows."""
        files = (storage.join(url, part) for part in parts)
        pictures = first_pictures(files, url, self.column.name, count=COLUMNS * LINES)
        lines = [pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)]
        return {SHEET: sheet(lines)} if lines else {}


def _whole(value: object) -> int | None:
    """The whole number that a JSON value, a Parquet value or a line of text is."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.removeprefix("-").isdecimal() and text.isascii() else None
    return value if isinstance(value, int) else None
