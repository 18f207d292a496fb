"""A drafter of a real chat model, SmolLM2-135M-Instruct, trained on the model's own answers.

`make real-model` fetches the target. It answers questions (examples/chat_questions.py) at
temperature 1, and others greedily; replace the questions by your own with --prompts, rows of
`messages` or `prompt`. An EAGLE-3 drafter of the target's width learns from the answers: it keeps
the target's embedding, and of its output matrix the rows of the most frequent tokens. Run again, it
continues where it ended. docs/distill-real-model.md says what to expect.
"""

import argparse
import sys
from pathlib import Path

from cluster.errors import ClusterError
from examples.chat_questions import questions, shuffled, write_chats
from models.errors import PacelineError
from models.targets.decoder.config import read_json
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import distill
from pipelines.errors import JobFailed
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.interruption import leave_if_interrupted, obey_signals

HERE = Path(__file__).resolve().parent
TARGET = HERE / "models" / "smollm2-135m-instruct"
RECORDS = 1000
GREEDY = 5  # a fifth of the questions is answered at temperature 0


def main() -> int:
    """0: the drafter is made; 2: it could not be."""
    obey_signals()
    options = parse()
    try:
        export = distill(drafter_options(options, write_answers(options)))
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"distill_real_model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        leave_if_interrupted()
        raise
    print(f"drafter    {export}")
    return 0


def write_answers(options: argparse.Namespace) -> Path:
    """The target's answers, as rows in folders of the folder that this returns.

    Raises:
        JobFailed: none could be made.
    """
    place = Path(options.output).parent
    if options.prompts is None:
        chats = shuffled(questions())[: options.records]
        count = len(chats) // GREEDY
        inputs = {
            0.0: str(write_chats(place / "greedy.jsonl", chats[:count])),
            1.0: str(write_chats(place / "sampled.jsonl", chats[count:])),
        }
    else:
        inputs = {0.0: options.prompts, 1.0: options.prompts}
    for temperature, file in inputs.items():
        folder = place / "answers" / ("sampled" if temperature else "greedy")
        done = generate(
            GenerateConfig(
                target=str(options.target),
                input=file,
                output=str(folder),
                temperature=temperature,
                max_tokens=options.max_tokens,
                batch_size=64,
                threads=options.threads,
            )
        )
        if done.rows_failed == done.rows:
            raise JobFailed(f"{folder}: all {done.rows} prompts failed; their rows say why")
    return place / "answers"


def drafter_options(options: argparse.Namespace, answers: Path) -> DrafterOptions:
    """The training; only EAGLE-3 drafters have a width."""
    width = int(read_json(options.target / "config.json")["hidden_size"])
    return DrafterOptions(
        target=str(options.target),
        data=str(answers),
        output=str(options.output),
        kind=options.kind,
        depth=options.depth,
        width=width if options.kind == "eagle" else None,
        draft_vocab=options.draft_vocab,
        length=options.max_tokens + 64,
        train_steps=options.train_steps,
        train_batch=4,
        rate=1e-3,
        exam_every=options.exam_every,
        threads=options.threads,
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; --records is refused where --prompts gives the questions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", type=Path, default=TARGET)
    add("--output", default="out/real-drafter/run")
    add("--prompts", help="rows of messages or prompt (default: made here)")
    add("--kind", choices=("medusa", "hydra", "eagle"), default="eagle")
    add("--depth", type=int, default=1, help="tokens ahead that the training looks")
    add("--draft-vocab", type=int, default=8192, help="tokens that can be drafted")
    add("--records", type=int, help=f"questions made here, at most (default: {RECORDS})")
    add("--max-tokens", type=int, default=192, help="of an answer")
    add("--train-steps", type=int, default=1000)
    add("--exam-every", type=int, default=250)
    add("--threads", type=int)
    given = parser.parse_args(arguments)
    if given.prompts is not None and given.records is not None:
        parser.error("--records: all rows of --prompts are answered; give one of the two")
    given.records = RECORDS if given.records is None else given.records
    return given


if __name__ == "__main__":
    sys.exit(main())
