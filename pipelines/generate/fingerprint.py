"""What decides a job's rows, so that only the same job goes on with an output folder.

Where models and input lie does not matter, what they hold does. With `match` or `jacobi`, neither
who guesses ahead nor the number of actors is part of it: they do not change a token. With other
rules, it counts whether draft actors guess: they draw from fewer tokens, and may be late.
"""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from models.errors import UnsupportedCheckpoint
from models.exactness import IDENTICAL, STEADY
from models.registry import RULES, is_draft_model, is_folder
from models.students.about import MODEL_TYPE, student_config
from models.students.methods import FLOW_MAP, map_of
from models.targets.decoder.config import is_known, read_json
from models.tokenizers import OURS
from models.tokenizers import TOKENIZER_FOLDER as TOKENIZER
from pipelines.generate.config import GenerateConfig
from pipelines.inputs.digest import digests
from pipelines.inputs.shards import ShardPlan
from pipelines.options import deciding

FORMAT = 3
# Who guesses, and how, where that changes the rows.
OF_DRAFTERS = ("drafter", "draft_tokens", "draft_width", "draft_nodes")
OF_DECODERS = ("decoder", "window", "coupling", "start")
WEIGHTS_AND_WORDS = (".json", ".safetensors", ".model", ".txt", ".jinja")


def fingerprint(config: GenerateConfig, plan: ShardPlan) -> dict[str, Any]:
    """The job as JSON."""
    return {
        "format": FORMAT,
        "target": checkpoint_digest(config.target),
        "versions": versions(config, torch=needs_torch(config.student)),
        "settings": deciding(config) | ranks_of(config) | _of_guesses(config) | _of_student(config),
        "input": {
            found.file.name: f"{found.num_rows} rows, digest {found.digest}"
            for found in plan.surveys
        },
    }


def noise_of(config: GenerateConfig) -> str:
    """The name of the map from noise to token."""
    return config.noise if config.student is None else student_noise(config.student)


def _of_student(config: GenerateConfig) -> dict[str, Any]:
    """A student's passes; the student itself is in the target's place."""
    if config.student is None:
        return {}
    mixed = {} if config.teacher_tokens is None else {"teacher_tokens": config.teacher_tokens}
    return {"student_steps": config.steps, "noise": student_noise(config.student), **mixed}


def student_noise(student: str) -> str:
    """The name of a student's map from noise to token."""
    return map_of(str((student_config(student) or {}).get("method", FLOW_MAP)))


def needs_torch(student: str | None) -> bool:
    """Whether there is a student whose passes the compiled kernels do not compute."""
    said = {} if student is None else student_config(student) or {}
    ours = (MODEL_TYPE, FLOW_MAP)
    return bool(said) and (said.get("model_type"), said.get("method")) != ours


def ranks_of(config: "Split") -> dict[str, int]:
    """The number of parts that the target is split into, which decides the order of sums."""
    return {} if config.tensor_parallel == 1 else {"tensor_parallel": config.tensor_parallel}


class Split(Protocol):
    """What a configuration says of the target's processes."""

    @property
    def tensor_parallel(self) -> int: ...


class Computing(Protocol):
    """What a configuration says of the target's arithmetic."""

    @property
    def target(self) -> str: ...
    @property
    def arithmetic(self) -> str: ...


def versions(config: Computing, *, torch: bool = False) -> dict[str, str]:
    """Of the libraries whose order of sums a token depends on; none where it is all ours.

    `torch`: its operations compute the tokens of a student.
    """
    raw = read_json(Path(config.target) / "config.json")
    ours = is_known(raw) or str(raw.get("model_type")).startswith(OURS)
    if ours and config.arithmetic == STEADY and not torch:
        return {}
    names = ("torch",) if ours else ("torch", "transformers")
    return {name: metadata.version(name) for name in names}


def checkpoint_digest(folder: str, *, role: str = "target") -> str:
    """Tells checkpoints apart by their files' names and whole contents."""
    root = Path(folder).absolute()
    names = ("*", f"{TOKENIZER}/*")  # an image's pixels are its tokenizer's
    files = sorted(path for name in names for path in root.glob(name) if _belongs(path))
    if root / "config.json" not in files:
        raise UnsupportedCheckpoint(f"{role} {folder!r} is no checkpoint: it has no config.json")
    whole = hashlib.blake2b(digest_size=16)
    for path, digest in zip(files, digests(map(str, files)), strict=True):
        whole.update(f"{path.relative_to(root).as_posix()}\0{digest}\0".encode())
    return whole.hexdigest()


def _belongs(path: Path) -> bool:
    return path.is_file() and path.suffix in WEIGHTS_AND_WORDS


def _of_guesses(config: GenerateConfig) -> dict[str, Any]:
    """Who guesses, where the rule lets guesses change the tokens; a draft model by its content."""
    if RULES[config.engine().rule].exactness == IDENTICAL:
        return {}
    in_windows = config.decoder is not None and not is_draft_model(config.drafter)
    names = OF_DECODERS if in_windows else OF_DRAFTERS
    values = {name: getattr(config, name) for name in names}
    if "drafter" in values and is_folder(config.drafter):
        values["drafter"] = f"a model, digest {checkpoint_digest(config.drafter, role='draft')}"
    return values | ({"draft_actors": "some"} if config.draft_actors else {})
