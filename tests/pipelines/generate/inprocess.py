"""A whole generate job without Ray and without a model, in one process.

The "model" is a function of seed and position, as the real one is under `match`; requests take
several steps, end out of order and gain a number of tokens per step that differs between runs.
"""

import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import storage
from models.requests.request import Request, Result
from pipelines.generate.config import GenerateConfig
from pipelines.generate.drive import Drive, RequestPool
from pipelines.generate.prepare import Prepared, prepare
from pipelines.generate.reporting.trace_file import traced
from pipelines.generate.rows.writer import LocalWriter, ShardWriter
from pipelines.inputs.prefetch import Prefetch
from pipelines.inputs.read import read_shard
from pipelines.inputs.rows import encoded, prompt_rows
from pipelines.modality.modality import Codec
from pipelines.options import from_mapping
from pipelines.output.manifest import Manifest, claimed

MAX_PROMPT = 200


class ByteTokenizer:
    """A token is a byte of UTF-8."""

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def decode_batch(self, tokens: list[list[int]]) -> list[str]:
        return [bytes(ids).decode(errors="replace") for ids in tokens]


def token_at(seed: int, position: int) -> int:
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=2).digest()
    return 97 + digest[0] % 26


class InProcessPool:
    """Continuous batching over `token_at`."""

    def __init__(self, *, slots: int = 4, luck: int = 0, step_s: float = 0) -> None:
        self._slots, self._luck, self._step_s = slots, random.Random(luck), step_s
        self._queue: deque[Request] = deque()
        self._running: dict[str, tuple[Request, list[int], int]] = {}
        self.sizes: list[int] = []  # requests worked on, step by step

    def free_slots(self) -> int:
        return 2 * self._slots - len(self._queue) - len(self._running)

    def submit(self, requests: list[Request]) -> None:
        self._queue.extend(requests)

    def take(self, timeout_s: float) -> list[Result]:
        out: list[Result] = []
        time.sleep(self._step_s)
        while self._queue and len(self._running) < self._slots:
            request = self._queue.popleft()
            if len(request.prompt) > MAX_PROMPT:
                told = f"prompt of {len(request.prompt)} tokens is over {MAX_PROMPT}"
                out.append(_error(request, told))
            else:
                self._running[request.id] = (request, [], 0)
        self.sizes.append(len(self._running))
        return out + [r for name in list(self._running) if (r := self._step(name)) is not None]

    def _step(self, name: str) -> Result | None:
        request, tokens, passes = self._running[name]
        length = min(1 + token_at(request.seed, -1) % 9, request.sampling.max_tokens)
        gained = range(self._luck.randint(1, 3))
        tokens = [*tokens, *(token_at(request.seed, len(tokens) + i) for i in gained)]
        self._running[name] = (request, tokens, passes + 1)
        if len(tokens) < length:
            return None
        del self._running[name]
        return Result(
            id=name,
            tokens=tuple(tokens[:length]),
            finish_reason="length",
            accepted_length=length / (passes + 1),
            target_passes=passes + 1,
        )


def _error(request: Request, told: str) -> Result:
    return Result(id=request.id, tokens=(), finish_reason="error", error=told)


def make_config(folder: Path, **values: Any) -> GenerateConfig:
    """A configuration with a checkpoint folder; the files that it lacks say nothing."""
    target = folder / "target"
    target.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        if not (target / name).exists():
            (target / name).write_text("{}")
    given = {"target": str(target), "max_tokens": 8, "seed": 5, "progress": False, **values}
    return from_mapping(GenerateConfig, given)


def tables(job: Prepared, codec: Codec | None = None) -> Iterator[pa.Table]:
    config, codec = job.config, codec or ByteTokenizer()
    for shard in job.todo:
        rows = read_shard(
            shard, job.plan.schema, prompt_field=config.prompt_field, id_field=config.id_field
        )
        read = job.layout.modality.prompt
        prompts = prompt_rows(rows, shard=shard.index, prompt_field=config.prompt_field, read=read)
        yield encoded(prompts, codec)


def run_job(
    config: GenerateConfig, *, pool: RequestPool | None = None, codec: Codec | None = None
) -> Manifest:
    """Run or resume a job to its end."""
    with ExitStack() as held:
        job = prepare(config, claim=lambda url: held.enter_context(claimed(url)))
        codec = codec or ByteTokenizer()
        writer = LocalWriter(ShardWriter(job.layout, codec))
        if job.todo:
            traces = held.enter_context(traced(job.config))
            with Prefetch(tables(job, codec)) as source:
                pool = pool or InProcessPool()
                Drive(job.job, pool, writer, job.manifest, traces=traces).run(source)
        return job.manifest


def output_rows(url: str) -> list[dict[str, Any]]:
    """The rows of the committed files, in order."""
    files = [info for info in storage.list_files(url) if info.name.startswith("_manifest/0")]
    entries = [json.loads(storage.read_bytes(info.url)) for info in files]
    parts = [storage.read_bytes(storage.join(url, entry["file"])) for entry in entries]
    return [row for part in parts for row in pq.read_table(pa.BufferReader(part)).to_pylist()]


def outcome(url: str) -> list[Mapping[str, Any]]:
    """The rows without what may differ between runs."""
    return [
        {name: value for name, value in row.items() if name != "accepted_length"}
        for row in output_rows(url)
    ]


def write_prompts(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": i, "prompt": f"prompt number {i}", "kind": "x" * (i % 3)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
