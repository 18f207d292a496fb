"""Whether the output depends on the drafter, its size, the batch, the pools: it must not.

    python benchmarks/identical.py --input prompts.jsonl [--prompts 164] [--max-tokens 48]

Every recipe decodes the same prompts with the same seeds; the first (no drafter, batch 1) is the
reference. In bf16 batches of other shapes round differently: there the rate of differing requests
is told, and each first difference is replayed (models/loop/replay.py) to see whether it is a tie.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer
from tqdm import tqdm

from actors.pool.pool import TargetPool
from cluster.connect import connected
from models.engine import EngineConfig, build_loop
from models.loop.replay import first_difference
from models.requests.request import Request, Sampling
from models.targets.load import DTYPES, load_target

Outputs = dict[str, tuple[int, ...]]
SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "T=0.7": {"temperature": 0.7},
    "T=1 top-p 0.95": {"top_p": 0.95},
    "presence 0.8": {"presence_penalty": 0.8},
    "frequency 0.5": {"frequency_penalty": 0.5},
    "repetition 1.2": {"repetition_penalty": 1.2},
}
BATCHES = (1, 4, 16)
POOLS = ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))  # target actors, draft actors


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to decode; `pool` is None in process."""

    drafter: str
    tokens: int | str = "auto"
    width: int | str = "auto"
    nodes: int | None = None
    batch: int = 1
    pool: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        name = self.drafter if self.drafter in ("none", "lookup") else "model"
        size = "" if name == "none" else f" {self.tokens}x{self.width}"
        size += "" if self.nodes is None else f", {self.nodes} nodes"
        where = "" if self.pool is None else f", actors {self.pool[0]}+{self.pool[1]}"
        return f"{name}{size}, batch {self.batch}{where}"


def recipes(draft: str) -> Iterator[Variant]:
    """In process: drafters by batches; on Ray: pools of every size."""
    drafters = (
        ("none", "auto", "auto", None),
        ("lookup", 8, 1, None),
        (draft, 4, 1, None),
        (draft, 4, 4, None),
        (draft, 4, 2, 5),
    )
    for (drafter, tokens, width, nodes), batch in product(drafters, BATCHES):
        yield Variant(drafter=drafter, tokens=tokens, width=width, nodes=nodes, batch=batch)
    yield Variant(drafter=draft, batch=4)
    for pool in POOLS:
        yield Variant(drafter=draft, tokens=4, width=4, batch=4, pool=pool)


def config_of(recipe: Variant, options: argparse.Namespace) -> EngineConfig:
    return EngineConfig(
        target=options.target,
        drafter=recipe.drafter,
        draft_tokens=recipe.tokens,
        draft_width=recipe.width,
        draft_nodes=recipe.nodes,
        dtype=options.dtype,
        batch_size=recipe.batch,
        threads=options.threads,
        device=options.device,
    )


def decode(
    recipe: Variant, options: argparse.Namespace, jobs: dict[str, list[Request]]
) -> dict[str, Outputs]:
    """Tokens by request, for each sampling."""
    config = config_of(recipe, options)
    if recipe.pool is None:
        loop = build_loop(config)
        return {name: {r.id: r.tokens for r in loop.run(jobs[name])} for name in jobs}
    targets, drafts = recipe.pool
    with TargetPool.start(config, target_actors=targets, draft_actors=drafts) as pool:
        return {name: run_pool(pool, jobs[name]) for name in jobs}


def run_pool(pool: TargetPool, requests: list[Request]) -> Outputs:
    pool.submit(requests)
    out: Outputs = {}
    while pool.num_unfinished:
        out.update((r.id, r.tokens) for r in pool.take(timeout_s=5.0))
    return out


def read_requests(options: argparse.Namespace) -> dict[str, list[Request]]:
    tokenizer = Tokenizer.from_file(str(Path(options.target) / "tokenizer.json"))
    lines = Path(options.input).read_text().splitlines()[: options.prompts]
    prompts = [tuple(tokenizer.encode(json.loads(line)["prompt"]).ids) for line in lines]
    return {
        name: [
            Request(
                id=f"{name}/{i}",
                prompt=prompt,
                sampling=Sampling(max_tokens=options.max_tokens, **settings),
                seed=i,
            )
            for i, prompt in enumerate(prompts)
        ]
        for name, settings in SAMPLINGS.items()
        if not options.samplings or name in options.samplings
    }


def compare(
    reference: dict[str, Outputs],
    other: dict[str, Outputs],
    jobs: dict[str, list[Request]],
    target: object,
) -> dict[str, int]:
    """Counts: requests, tokens, requests that differ, differences that are rounding ties."""
    counts = {"requests": 0, "tokens": 0, "differ": 0, "ties": 0}
    for name, requests in jobs.items():
        for request in requests:
            first, second = reference[name][request.id], other[name][request.id]
            counts["requests"] += 1
            counts["tokens"] += len(first)
            difference = first_difference(target, request, first, second)  # type: ignore[arg-type]
            if difference is not None:
                counts["differ"] += 1
                counts["ties"] += difference.is_tie
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    models = Path(__file__).parent.parent / "examples" / "models"
    parser.add_argument("--target", default=str(models / "text-target"))
    parser.add_argument("--draft", default=str(models / "text-draft"))
    parser.add_argument("--input", default=str(models.parent / "prompts.jsonl"))
    parser.add_argument("--prompts", type=int, default=164)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--samplings", nargs="*", choices=tuple(SAMPLINGS), help="default: all")
    parser.add_argument("--dtype", default="float32", choices=tuple(DTYPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-pools", action="store_true", help="in process only")
    parser.add_argument("--output", help="a JSON file for the counts")
    options = parser.parse_args()
    jobs = read_requests(options)
    target = load_target(options.target, dtype=DTYPES[options.dtype], device=options.device)
    todo = [r for r in recipes(options.draft) if r.pool is None or not options.no_pools]
    reference: dict[str, Outputs] = {}
    rows = {}
    with nullcontext() if options.no_pools else connected(None, min_cpus=4):
        for recipe in tqdm(todo, unit="recipe"):
            outputs = decode(recipe, options, jobs)
            reference = reference or outputs
            rows[recipe.label] = compare(reference, outputs, jobs, target)
            tqdm.write(f"{recipe.label:40} {rows[recipe.label]}")
    if options.output:
        Path(options.output).write_text(
            json.dumps({"options": vars(options), "rows": rows}, indent=1)
        )
    worst = max(row["differ"] - row["ties"] for row in rows.values())
    print(
        "identical" if not any(r["differ"] for r in rows.values()) else f"{worst} real differences"
    )
    raise SystemExit(1 if worst else 0)


if __name__ == "__main__":
    main()
