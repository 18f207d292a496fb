"""Whether a file holds a pickle, whatever its name, bare or in a zip archive as torch writes it."""

import io
import pickletools
import zipfile
from pathlib import Path

PROTOCOL = b"\x80"  # how every pickle since protocol 2 begins


def pickles_in(folder: Path) -> list[Path]:
    """The files below a folder that pickle could read."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and holds_pickle(path)]


def holds_pickle(path: Path) -> bool:
    """Whether pickle could read the file or a part of it."""
    data = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(_is_pickle(archive.read(name)) for name in archive.namelist())
    return _is_pickle(data)


def _is_pickle(data: bytes) -> bool:
    if not data.startswith(PROTOCOL):
        return False
    try:
        for opcode, _, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return True
    except ValueError:
        return False
    return False
