"""A page of small pictures: the first rows of an output, or a line per way of making them."""

import io
from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from cluster.storage import storage

CELL, GAP = 48, 4  # pixels: small pictures are enlarged to a cell, whole times
TITLE = 15


def sheet(lines: Sequence[Sequence[bytes]], titles: Sequence[str] = ()) -> bytes:
    """A PNG of lines of pictures (any that PIL reads), each line under its title if there are."""
    pictures = [[_enlarged(data) for data in line] for line in lines]
    width = max((picture.width for line in pictures for picture in line), default=1)
    height = max((picture.height for line in pictures for picture in line), default=1)
    head = TITLE + GAP if titles else 0
    columns = max(map(len, pictures), default=0)
    size = (GAP + columns * (width + GAP), GAP + len(pictures) * (head + height + GAP))
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for y, line in enumerate(pictures):
        top = GAP + y * (head + height + GAP)
        if titles:
            draw.text((GAP, top), titles[y], fill="black", font=ImageFont.load_default(TITLE - 3))
        for x, picture in enumerate(line):
            page.paste(picture, (GAP + x * (width + GAP), top + head))
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def first_pictures(parts: Iterable[str], folder: str, column: str, *, count: int) -> list[bytes]:
    """The first pictures in Parquet files, in rows or in files that the rows name in `folder`."""
    found: list[bytes] = []
    for url in parts:
        with storage.open_input(url) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=count, columns=[column]):
                there = [value for value in batch.column(0).to_pylist() if value is not None]
                found += [_bytes(value, folder) for value in there[: count - len(found)]]
                if len(found) == count:
                    return found
    return found


def _bytes(value: bytes | str, folder: str) -> bytes:
    return value if isinstance(value, bytes) else storage.read_bytes(storage.join(folder, value))


def _enlarged(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    times = max(1, CELL // max(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
