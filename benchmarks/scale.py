"""How a `generate` job grows: with more target actors, and with more rows.

    python -m benchmarks.scale                # both parts: about 10 minutes on two cores
    python -m benchmarks.scale --only actors  # tokens/s with 1, 2, 4 and 8 target actors
    python -m benchmarks.scale --only rows    # the driver's cost of a row, 1,000 to 100,000 rows

The target is a tiny model whose passes sleep, so that two cores can run eight of them. Each job is
a whole one, in a process of its own: reading, encoding, the pool, writing, committing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from benchmarks.sleeping import PASS_MS, SleepingTarget

ACTORS, ROWS = (1, 2, 4, 8), (1_000, 10_000, 100_000)
BATCH, TOKENS, PASSES_MS = 8, 32, 60.0
SECONDS = 30  # that a job takes with any number of actors
TOKENIZER = Path(__file__).parents[1] / "examples" / "models" / "text-target" / "tokenizer.json"


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["actors", "rows"], nargs="+")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_job(**json.loads(options.job))))
        return
    parts = {"actors": by_actors, "rows": by_rows}
    with tempfile.TemporaryDirectory() as folder:
        make_target(Path(folder) / "target")
        for name in options.only or parts:
            parts[name](Path(folder))


def by_actors(folder: Path) -> None:
    """tokens/s beside the number of actors, as much work for each."""
    rate = BATCH * 1e3 / PASSES_MS  # tokens/s of an actor, about
    each = round(SECONDS * rate / TOKENS / BATCH) * BATCH
    print(f"passes of {PASSES_MS:.0f} ms, batch {BATCH}, {each} rows of {TOKENS} tokens an actor")
    head("target actors", "tokens/s", "of linear", "round, ms", "driver, CPU s")
    one = 0.0
    for actors in ACTORS:
        told = job(folder, rows=each * actors, actors=actors, max_tokens=TOKENS, pass_ms=PASSES_MS)
        rate = told["tokens_per_s"]
        one = one or rate
        share = rate / (one * actors)
        line(
            actors, f"{rate:.0f}", f"{share:.3f}", f"{told['round_ms']:.1f}", f"{told['cpu_s']:.1f}"
        )


def by_rows(folder: Path) -> None:
    """The driver's CPU time and memory beside the number of rows."""
    head("rows", "rows/s", "driver, CPU ms a row", "driver, largest MiB")
    for rows in ROWS:
        told = job(folder, rows=rows, actors=1, max_tokens=1, pass_ms=0.0)
        each = f"{1e3 * told['cpu_s'] / rows:.3f}"
        line(f"{rows:,}", f"{told['rows_per_s']:.0f}", each, f"{told['largest_mib']:.0f}")


def head(*names: str) -> None:
    """A table begins."""
    line(*names)
    line(*["---:"] * len(names))


def line(*cells: object) -> None:
    """A line of a table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def job(folder: Path, **work: float) -> dict[str, float]:
    """A job in a process of its own."""
    source = folder / f"{work['rows']}.jsonl"
    if not source.exists():
        lines = (
            f'{{"id": "row-{i}", "prompt": "def f{i}(x):"}}\n' for i in range(int(work["rows"]))
        )
        source.write_text("".join(lines))
    with tempfile.TemporaryDirectory(dir=folder) as output:
        asked = {"target": str(folder / "target"), "source": str(source), "output": output, **work}
        command = [sys.executable, "-m", "benchmarks.scale", "--job", json.dumps(asked)]
        environment = os.environ | {PASS_MS: str(work["pass_ms"])}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def run_job(
    *,
    target: str,
    source: str,
    output: str,
    rows: int,
    actors: int,
    max_tokens: int,
    pass_ms: float,
) -> dict[str, float]:
    """Run the job here. CPU time and memory are those of this process, the driver."""
    from pipelines.generate.config import GenerateConfig
    from pipelines.generate.job import generate

    config = GenerateConfig(
        target=target,
        input=source,
        output=output,
        target_actors=actors,
        max_tokens=max_tokens,
        batch_size=BATCH if pass_ms else 64,
        ignore_eos=True,
        threads=1,
        max_length=64,
        progress=False,
    )
    with patch("actors.pool.start.TargetActor", SleepingTarget):
        before = _cpu_s()
        summary = generate(config)
    assert summary.rows == rows, (summary.rows, rows)
    return {
        "tokens_per_s": summary.tokens_per_second,
        "rows_per_s": rows / summary.seconds,
        "round_ms": summary.round_ms["round"],
        "cpu_s": _cpu_s() - before,
        "largest_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_target(folder: Path) -> None:
    """A tiny Llama with the demo model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    vocabulary = json.loads(TOKENIZER.read_text())["model"]["vocab"]
    size = max(vocabulary.values()) + 65  # and its special tokens
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=size, **shape, **heads, bos_token_id=None, eos_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(TOKENIZER.read_text())


if __name__ == "__main__":
    main()
