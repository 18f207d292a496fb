"""Which kind of files a set of samples is made of; opens them as a source of rows."""

from pathlib import PurePosixPath

from cluster.storage import storage
from cluster.storage.storage import FileInfo
from pipelines.errors import InvalidInput
from pipelines.evaluate.arrays import arrays_source, pictures_source
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.parquet import parquet_source
from pipelines.evaluate.samples import Source

# In this order: a folder of rows may also hold the rows' pictures as files.
KINDS = {
    "rows": (".parquet", ".pq"),
    "arrays": (".npz", ".npy"),
    "pictures": (".png", ".jpg", ".jpeg"),
}
ACCEPTED = "Parquet rows (.parquet, .pq), arrays (.npz, .npy) or pictures (.png, .jpg, .jpeg)"


def open_source(url: str, config: EvaluateConfig) -> Source:
    """The rows of a file or a folder; names that begin with a dot or an underscore are left out.

    Raises:
        InvalidInput: there is nothing in it that can be used.
    """
    files = _files(storage.normalize(url))
    for kind, suffixes in KINDS.items():
        found = [file for file in files if PurePosixPath(file.name).suffix.lower() in suffixes]
        if not found:
            continue
        if kind == "rows":
            return parquet_source(url, found, config)
        return arrays_source(url, found) if kind == "arrays" else pictures_source(url, found)
    held = f"holds {files[0].name!r}" if files else "is no file, and no folder with files"
    raise InvalidInput(f"{url!r} {held}: accepted are {ACCEPTED}")


def _files(url: str) -> list[FileInfo]:
    size_bytes = storage.file_size(url)
    if size_bytes is not None:
        return [FileInfo(url=url, name=url.rpartition("/")[2], size_bytes=size_bytes)]
    return [file for file in storage.list_files(url) if not _is_hidden(file.name)]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
