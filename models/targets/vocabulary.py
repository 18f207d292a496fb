"""Whether two checkpoints give texts the same token ids. Loads no model."""

from pathlib import Path

from tokenizers import Tokenizer

from models.errors import UnsupportedCheckpoint


def same_size(target: str, size: int, draft: str, draft_size: int) -> None:
    """Refuse a drafter with another number of tokens than the target."""
    if draft_size != size:
        raise UnsupportedCheckpoint(
            f"draft {draft!r} has a vocabulary of {draft_size} tokens, "
            f"target {target!r} of {size}: they must be the same"
        )


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
            f"the tokenizers of draft {draft!r} and target {target!r} differ: token {token!r} has "
            f"id {second.get(token)} in the draft and {first.get(token)} in the target. Use a "
            "draft model with the target's vocabulary"
        )
