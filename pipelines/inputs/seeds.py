"""The seed of a row's sample: a stable hash of the job's seed, the row's id, the sample's number.

The first 63 bits of BLAKE2b over "paceline seed 1\\0<job seed>\\0<row id>\\0<sample>" in UTF-8. It
depends on nothing else: not on the row's place, the shards, the machine or the run.
"""

import hashlib


def row_seed(job_seed: int, row_id: str, sample: int) -> int:
    """0 <= seed < 2**63."""
    text = f"paceline seed 1\0{job_seed}\0{row_id}\0{sample}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
