"""Predicted outputs in the bare token loop, one request after the other: right, wrong, none.

    python -m benchmarks.predicted    # about 2 minutes of a core

The predictions are made of the answers: of those that are 90 % right, every tenth token is another
one. Time is the process's own on a core (one thread), so that other programs cost it little. The
ways run in turn, each in a loop of its own, and every answer must be that without a prediction.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tqdm import tqdm

from benchmarks.serving import PROMPTS, TARGET
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from pipelines.generate.rows.prompts import read_prompts, requests

Tokens = tuple[int, ...]
NONE = "none"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default=TARGET)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    sampling = Sampling(max_tokens=options.max_tokens, temperature=0.0, ignore_eos=True)
    prompts = read_prompts(str(PROMPTS), checkpoint=options.target, count=options.prompts)
    asked = requests(prompts, sampling, seed=1)
    print(table(options.target, asked, options.turns))


def table(target: str, asked: Sequence[Request], turns: int) -> str:
    """Of each way, medians over the turns."""
    loops = {name: loop_of(target) for name in WAYS}
    _, plain = run(loops[NONE], asked)
    size = loops[NONE].target.vocab_size
    made = {name: [way(plain[each.id], size) for each in asked] for name, way in WAYS.items()}
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with tqdm(total=(turns + 1) * len(WAYS), leave=False) as bar:
        for turn in range(turns + 1):  # the first one warms up
            for name, loop in loops.items():
                loop.reset_figures()
                pairs = zip(asked, made[name], strict=True)
                some = [replace(request, prediction=tokens) for request, tokens in pairs]
                rate, found = run(loop, some)
                assert found == plain, f"a prediction ({name}) changed an answer"
                if turn:
                    rates[name].append(rate)
                bar.update()
    lines = ["| prediction | tokens per second of a core | over none | tokens per pass |"]
    lines.append("|---|---:|---:|---:|")
    for name, loop in loops.items():
        over = [own / none for own, none in zip(rates[name], rates[NONE], strict=True)]
        figures = f"{statistics.median(rates[name]):.0f} | {statistics.median(over):.2f}×"
        lines.append(f"| {name} | {figures} | {loop.figures().accepted_length:.1f} |")
    return "\n".join(lines)


def loop_of(target: str) -> TokenLoop:
    """A row, a thread, no drafter."""
    config = EngineConfig(target=target, drafter="none", batch_size=1, threads=1)
    return build_loop(config)


def run(loop: TokenLoop, asked: Sequence[Request]) -> tuple[float, dict[str, Tokens]]:
    """Tokens per second of the process on a core, and the answers."""
    began = time.process_time()
    found = {result.id: result.tokens for result in loop.run(asked)}
    taken = time.process_time() - began
    return sum(map(len, found.values())) / taken, found


def changed(answer: Tokens, size: int, *, every: int) -> Tokens:
    """With another token in each `every`-th place."""
    chance = random.Random(0)
    return tuple(
        (token + chance.randrange(1, size)) % size if place % every == every - 1 else token
        for place, token in enumerate(answer)
    )


def nothing(answer: Tokens, size: int) -> Tokens:
    """No prediction."""
    return ()


def right(answer: Tokens, size: int) -> Tokens:
    """In nine of ten places."""
    return changed(answer, size, every=10)


def misleading(answer: Tokens, size: int) -> Tokens:
    """Two tokens that lead back into the prediction, and a wrong one, again and again."""
    return changed(answer, size, every=3)


def wrong(answer: Tokens, size: int) -> Tokens:
    """In every place."""
    return changed(answer, size, every=1)


WAYS: dict[str, Callable[[Tokens, int], Tokens]] = {
    NONE: nothing,
    "90 % right": right,
    "two of three right": misleading,
    "all wrong": wrong,
}


if __name__ == "__main__":
    main()
