"""Whether two checkpoints give texts the same token ids. Loads no model."""

from pathlib import Path

from tokenizers import Tokenizer

from models.errors import UnsupportedCheckpoint


def same_vocabulary(target: str, draft: str) -> None:
    """Refuse a draft whose tokenizer gives other ids than the target's."""
    files = [Path(folder) / "tokenizer.json" for folder in (target, draft)]
    if not all(file.exists() for file in files):
        return
    if files[0].read_bytes() == files[1].read_bytes():
        return
    first, second = (Tokenizer.from_file(str(file)).get_vocab() for file in files)
    if first != second:
        token = next(t for t in {**first, **second} if first.get(t) != second.get(t))
        raise UnsupportedCheckpoint(
            f"draft {draft!r} has another tokenizer than target {target!r}: token {token!r} is "
            f"{second.get(token)} there and {first.get(token)} here. Use a draft of the same "
            "vocabulary; drafting across vocabularies is not supported yet"
        )
