"""A drafter of a real chat model, SmolLM2-135M-Instruct, trained on the model's own answers.

`make real-model` fetches the target. The questions are made of topics and forms; replace them by
your own with --prompts, rows of `messages` or `prompt`. Run again, it continues where it ended.
docs/distill-drafter.md says what to expect.
"""

import argparse
import json
import random
import sys
from itertools import product
from pathlib import Path

from cluster.errors import ClusterError
from models.errors import PacelineError
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import distill
from pipelines.interruption import leave_if_interrupted, obey_signals

HERE = Path(__file__).resolve().parent
TARGET = HERE / "models" / "smollm2-135m-instruct"
TOPICS = (
    "photosynthesis", "the water cycle", "gravity", "the printing press", "bicycles", "volcanoes",
    "a balanced diet", "the Roman Empire", "electric cars", "recycling", "the immune system",
    "chess", "solar energy", "tides", "the stock market", "bees", "public libraries", "vaccines",
    "rainbows", "earthquakes", "online shopping", "the human heart", "glaciers", "bridges",
    "learning a language", "sleep", "coffee", "the moon", "music lessons", "gardening",
    "regular exercise", "trains", "computer memory", "databases", "sorting a list", "forests",
    "the French Revolution", "good writing", "time management", "teamwork", "wind turbines",
    "whales", "maps", "bread", "clocks", "elections", "inflation", "encryption", "dinosaurs",
    "friendship",
)  # fmt: skip
FORMS = (
    "Explain {} in simple words.", "Write a short paragraph about {}.",
    "List five facts about {}.", "Why is it useful to know about {}?",
    "Write a short story for children about {}.", "What should a beginner know about {}?",
    "Summarise the history of {} in a few sentences.", "Give three questions and answers on {}.",
    "Write an email to a friend about {}.", "What are common mistakes people make about {}?",
    "Compare {} with something similar.", "Write a poem of eight lines about {}.",
)  # fmt: skip


def main() -> int:
    """0: the drafter is made; 2: it could not be."""
    obey_signals()
    options = parse()
    output = Path(options.output)
    made = output.parent / "questions.jsonl"
    prompts = options.prompts or str(write_prompts(made, options.records))
    try:
        export = distill(
            DrafterOptions(
                target=str(options.target),
                prompts=prompts,
                output=str(output),
                kind=options.kind,
                depth=options.depth,
                records=options.records,
                length=256,
                train_steps=options.train_steps,
                train_batch=4,
                rate=1e-3,
                exam_every=options.exam_every,
                batch_size=16,
                threads=options.threads,
            )
        )
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"distill_real_model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise
    print(f"drafter    {export}")
    return 0


def write_prompts(file: Path, count: int = len(TOPICS) * len(FORMS)) -> Path:
    """So many questions, in an order of chance that stays the same."""
    questions = [form.format(topic) for topic, form in product(TOPICS, FORMS)]
    random.Random(0).shuffle(questions)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"messages": [{"role": "user", "content": question}]} for question in questions[:count]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--target", type=Path, default=TARGET)
    add("--output", default="out/real-drafter/run")
    add("--prompts", help="rows of messages or prompt (default: made here)")
    add("--kind", choices=("model", "medusa", "hydra", "eagle"), default="medusa")
    add("--depth", type=int, default=3, help="tokens that the drafter proposes")
    add("--records", type=int, default=600, help="answers to learn from")
    add("--train-steps", type=int, default=600)
    add("--exam-every", type=int, default=100)
    add("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
