"""Drafters side by side, on one thread, by CPU time: a machine that others use disturbs it little.

Run from the repository's root:
python -m benchmarks.drafters --input prompts.jsonl --drafters lookup PATH ...
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import torch

from models.drafting.draft import Shape
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.loop.figures import Figures
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.targets.load import load_target
from models.targets.target import Target
from pipelines.bench.table import markdown
from pipelines.generate.rows.prompts import Prompt, read_prompts

PLAIN = "none"
HEADS = (
    "drafter",
    "draft",
    "accepted length",
    "first token accepted",
    "round, CPU ms",
    "of it draft",
    "tokens per CPU second",
    "over plain",
    "by the clock",
    "over the first drafter",
)
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A drafter with a shape of its drafts; None: the controller decides."""

    drafter: str
    shape: Shape | None

    @property
    def form(self) -> str:
        """For the table."""
        shape = self.shape
        if shape is None:
            return AUTO
        if self.drafter == PLAIN:
            return "–"
        return f"chain of {shape.depth}" if shape.width == 1 else f"tree of {shape.budget}"


@dataclass(slots=True, kw_only=True)
class Turn:
    """A contestant's figures on one slice of the prompts.

    `cpu_s`, `clock_s`, `rounds` and `tokens` are of the steps without prefill.
    """

    cpu_s: float = 0.0
    clock_s: float = 0.0
    rounds: int = 0
    tokens: int = 0
    figures: Figures = field(default_factory=Figures)

    @property
    def speed(self) -> float:
        """Tokens per CPU second."""
        return self.tokens / self.cpu_s

    @property
    def clock_speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.clock_s


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)
    target = load_target(Path(options.target), dtype=torch.float32, device="cpu")
    prompts = read_prompts(options.input, checkpoint=options.target, count=options.prompts)
    found = {}
    for temperature in options.temperatures:
        turns = run(options, target, prompts, temperature)
        found[f"{temperature:g}"] = told(turns)
        print(f"\nTemperature {temperature:g}, {len(prompts)} prompts\n")
        print(markdown(HEADS, rows(turns)), flush=True)
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def run(
    options: argparse.Namespace, target: Target, prompts: Sequence[Prompt], temperature: float
) -> dict[Contestant, list[Turn]]:
    """Every contestant completes the same slice of the prompts before the next slice comes."""
    loops = {c: loop_of(options, target, c) for c in contestants(options)}
    sampling = Sampling(temperature=temperature, max_tokens=options.max_tokens, ignore_eos=True)
    requests = [
        Request(id=str(i), prompt=tuple(prompt.tokens), sampling=sampling, seed=i)
        for i, prompt in enumerate(prompts)
    ]
    turns: dict[Contestant, list[Turn]] = {c: [] for c in loops}
    for loop in loops.values():
        loop.run(requests[:1])  # what is prepared once
    for begin in range(0, len(requests), options.slice):
        tokens = set()
        for contestant, loop in loops.items():
            turn, texts = take_turn(loop, requests[begin : begin + options.slice])
            turns[contestant].append(turn)
            tokens.add(texts)
        assert len(tokens) == 1, "the tokens depend on the drafter"
    return turns


def take_turn(
    loop: TokenLoop, requests: Sequence[Request]
) -> tuple[Turn, tuple[tuple[int, ...], ...]]:
    """Complete the requests one after the other; returns their tokens, too."""
    loop.reset_figures()
    turn, texts = Turn(), []
    for request in requests:
        loop.submit(request)
        while loop.num_unfinished:
            before, began, start = loop.figures(), time.process_time(), time.perf_counter()
            texts += [tuple(result.tokens) for result in loop.step()]
            spent, lasted = time.process_time() - began, time.perf_counter() - start
            after = loop.figures()
            if after.prefill_passes == before.prefill_passes:
                turn.cpu_s += spent
                turn.clock_s += lasted
                turn.rounds += after.rounds - before.rounds
                turn.tokens += after.tokens - before.tokens
    turn.figures = loop.figures()
    return turn, tuple(texts)


def contestants(options: argparse.Namespace) -> Iterator[Contestant]:
    """Plain decoding, then each drafter with chains, trees and `auto`; copies have no trees."""
    yield Contestant(drafter=PLAIN, shape=Shape(depth=0))
    trees = [Shape(depth=depth, width=width, nodes=nodes) for depth, width, nodes in options.tree]
    for drafter in options.drafters:
        shapes = [Shape(depth=depth) for depth in options.chain]
        for shape in shapes + (trees if drafter != "lookup" else []):
            yield Contestant(drafter=drafter, shape=shape)
        if options.auto:
            yield Contestant(drafter=drafter, shape=None)


def loop_of(options: argparse.Namespace, target: Target, contestant: Contestant) -> TokenLoop:
    """A loop for one request at once."""
    shape, sizes = contestant.shape, {}
    if shape is not None and shape.depth:
        sizes = {"draft_tokens": shape.depth, "draft_width": shape.width}
        sizes |= {"draft_nodes": shape.nodes} if shape.width > 1 else {}
    config = EngineConfig(
        target=options.target,
        drafter=contestant.drafter,
        batch_size=1,
        threads=1,
        memory="256MiB",
        max_length=1000,
        **sizes,
    )
    return build_loop(config, target=target)


def told(turns: dict[Contestant, list[Turn]]) -> list[dict[str, object]]:
    """As JSON holds it."""
    return [
        {
            "drafter": contestant.drafter,
            "shape": AUTO if contestant.shape is None else asdict(contestant.shape),
            "cpu_s": [turn.cpu_s for turn in own],
            "clock_s": [turn.clock_s for turn in own],
            "tokens": [turn.tokens for turn in own],
            "rounds": [turn.rounds for turn in own],
            "accepted_length": total(own).accepted_length,
            "acceptance_by_position": total(own).acceptance_by_position,
        }
        for contestant, own in turns.items()
    ]


def total(turns: Sequence[Turn]) -> Figures:
    """The figures of all turns together."""
    return sum((turn.figures for turn in turns[1:]), start=turns[0].figures)


def rows(turns: dict[Contestant, list[Turn]]) -> list[list[str]]:
    """Ratios are medians over the turns."""
    plain, first, *_ = turns.values()
    out = []
    for contestant, own in turns.items():
        figures = total(own)
        cpu_s = sum(turn.cpu_s for turn in own)
        parts = figures.round_ms()
        whole = 1e3 * cpu_s / sum(turn.rounds for turn in own)
        first_token = figures.acceptance_by_position[:1]
        out.append(
            [
                Path(contestant.drafter).name if contestant.drafter != PLAIN else "plain",
                contestant.form,
                f"{figures.accepted_length:.2f}",
                f"{first_token[0]:.3f}" if first_token else "–",
                f"{whole:.2f}",
                f"{whole * parts['draft'] / parts['round']:.2f}",
                f"{sum(turn.tokens for turn in own) / cpu_s:.0f}",
                f"{ratio(own, plain, lambda turn: turn.speed):.2f}×",
                f"{ratio(own, plain, lambda turn: turn.clock_speed):.2f}×",
                f"{ratio(own, first, lambda turn: turn.speed):.2f}×",
            ]
        )
    return out


def ratio(own: Sequence[Turn], other: Sequence[Turn], speed: Callable[[Turn], float]) -> float:
    """How many times as fast, the median over the turns."""
    return median(speed(a) / speed(b) for a, b in zip(own, other, strict=True))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", default="examples/models/text-target")
    add("--input", required=True, help="prompts, as `paceline generate` reads")
    add("--drafters", nargs="+", default=["examples/models/text-draft"], metavar="DRAFTER")
    add("--prompts", type=int, default=32, help="how many")
    add("--max-tokens", type=int, default=64, help="of every completion")
    add("--slice", type=int, default=4, help="prompts of a turn")
    add("--chain", type=int, nargs="+", default=[4], metavar="TOKENS")
    sizes = ("TOKENS", "WIDTH", "NODES")
    add("--tree", type=int, nargs=3, action="append", default=[], metavar=sizes)
    add("--auto", action="store_true", help="measure what the controller chooses, too")
    add("--temperatures", nargs="+", type=float, default=(0.0, 1.0))
    add("--output", metavar="FILE.json", help="write every turn's figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
