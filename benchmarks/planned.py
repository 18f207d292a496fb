"""What `paceline plan` predicts beside jobs that run as it says: 5 minutes on two cores.

    python -m benchmarks.planned

A device is a core here: every process has one thread, and plans are for one device and for two.
"""

import json
import tempfile
from pathlib import Path

from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.plan.config import PlanConfig
from pipelines.plan.run import TITLES, Choice, plan

ROOT = Path(__file__).parents[1]
TARGET, DRAFT = (str(ROOT / "examples" / "models" / name) for name in ("text-target", "text-draft"))
PROMPTS = ROOT / "examples" / "prompts.jsonl"
BATCH, TOKENS, SECONDS = 8, 64, 30.0


def main() -> None:
    """Plan, run, and print both."""
    config = PlanConfig(
        target=TARGET,
        drafter=DRAFT,
        input=str(PROMPTS),
        gpus=(1, 2),
        batch_size=BATCH,
        max_tokens=TOKENS,
        threads=1,
        device="cpu",
    )
    planned = plan(config)
    print("| devices | way | predicted tokens/s | measured | measured / predicted |")
    print("|---:|---|---:|---:|---:|")
    for devices, choices in planned.choices.items():
        for choice in choices:
            predicted, found = choice.plan.tokens_s, measured(choice)
            cells = [f"{predicted:.0f}", f"{found:.0f}", f"{found / predicted:.2f}"]
            print(
                "|", " | ".join([str(devices), TITLES[choice.plan.name], *cells]), "|", flush=True
            )


def measured(choice: Choice) -> float:
    """tokens/s of a job of about `SECONDS`, its start not counted."""
    texts = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    count = max(4 * BATCH, round(SECONDS * choice.plan.tokens_s / TOKENS))
    recipe, plain = choice.recipe, choice.plan.name == "plain"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "prompts.jsonl"
        rows = [texts[i % len(texts)] | {"id": f"row-{i}"} for i in range(count)]
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        config = GenerateConfig(
            target=TARGET,
            drafter="none" if plain else recipe.drafter,
            draft_tokens="auto" if plain else recipe.draft_tokens,
            draft_width="auto" if plain else recipe.draft_width,
            input=str(source),
            output=str(Path(folder) / "out"),
            target_actors=choice.plan.targets,
            draft_actors=choice.plan.drafts,
            batch_size=BATCH,
            max_tokens=TOKENS,
            threads=1,
            device="cpu",
            progress=False,
        )
        return generate(config).tokens_per_second


if __name__ == "__main__":
    main()
