"""What a row's picture is called as a file: by the row's id, so ids must differ."""

import hashlib
from urllib.parse import quote

from pipelines.errors import InvalidInput
from pipelines.inputs.read import read_shard
from pipelines.inputs.rows import row_id
from pipelines.inputs.shards import ShardPlan

FOLDER = "_images"  # Parquet readers of the output folder skip names that begin with _
LONGEST = 200  # characters of a name; file systems end at 255 bytes


def picture_file(row_id: str, sample: int | None) -> str:
    """Its name in the output folder; what file names cannot hold is written as in URLs."""
    name = quote(row_id, safe=" ()+,:=@", errors="surrogatepass")
    if not name or name.startswith("."):
        name = f"%2E{name[1:]}" if name else "%"
    if len(name) > LONGEST:
        digest = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=16)
        name = f"{name[: LONGEST - 40]}%{digest.hexdigest()}"
    return f"{FOLDER}/{name}.png" if sample is None else f"{FOLDER}/{name}-{sample}.png"


def refuse_repeated_ids(plan: ShardPlan, *, id_field: str, prompt_field: str) -> None:
    """Raise InvalidInput if two rows have one id. Without an id field, ids are rows' places."""
    if id_field not in plan.schema.names:
        return
    places: dict[str, str] = {}
    for shard in plan.shards:
        rows = read_shard(shard, plan.schema, prompt_field=prompt_field, id_field=id_field)
        for value, place in zip(rows.ids, rows.places, strict=True):
            name = picture_file(row_id(value, place), None)
            first = places.setdefault(name, place)
            if first != place:
                raise InvalidInput(
                    f"{first} and {place} both have the {id_field} {value!r}, which names their "
                    "image's file: give rows different ids, or images_as='bytes'"
                )
