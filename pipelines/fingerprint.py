"""What decides a job's rows, so that only the same job goes on with an output folder.

Where models and input lie does not matter, what they hold does. With `match` or `jacobi`, neither
who guesses ahead nor the number of actors is part of it: they do not change a token.
"""

import hashlib
from pathlib import Path
from typing import Any

from models.errors import UnsupportedCheckpoint
from models.images.load import FOLDER as TOKENIZER
from pipelines.config import GenerateConfig
from pipelines.options import deciding
from pipelines.shards import Plan

FORMAT = 1
NOISE = "gumbel-argmax"  # the map from noise to token: part of a seed's meaning
# Who guesses, and how, where that changes the rows.
OF_DRAFTERS = ("drafter", "draft_tokens", "draft_width")
OF_DECODERS = ("decoder", "window", "coupling", "start")
ENDS = 1 << 16  # bytes of a large file's start and end that stand for it


def fingerprint(config: GenerateConfig, plan: Plan) -> dict[str, Any]:
    """The job as JSON."""
    settings = deciding(config)
    if config.engine().rule != "match":
        names = OF_DRAFTERS if config.decoder is None else OF_DECODERS
        settings |= {name: getattr(config, name) for name in names}
    return {
        "format": FORMAT,
        "noise": NOISE,
        "target": checkpoint_digest(config.target),
        "settings": settings,
        "input": {
            found.file.name: f"{found.num_rows} rows, digest {found.digest}"
            for found in plan.surveys
        },
    }


def checkpoint_digest(folder: str) -> str:
    """Tells checkpoints apart by their files' names, sizes, starts and ends."""
    root = Path(folder)
    names = ("*", f"{TOKENIZER}/*")  # an image's pixels are its tokenizer's
    files = sorted(path for name in names for path in root.glob(name) if _belongs(path))
    if root / "config.json" not in files:
        raise UnsupportedCheckpoint(f"target {folder!r} is no checkpoint: it has no config.json")
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(0, size - ENDS))
            digest.update(file.read())
    return digest.hexdigest()


def _belongs(path: Path) -> bool:
    return path.is_file() and path.suffix in (".json", ".safetensors", ".model", ".txt")
