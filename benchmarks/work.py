"""What every section of the benchmark runs: models, prompts in slices, and our own contestants.

Each turn of a section runs another slice of the prompts with every contestant, so that a ratio
within a turn has the same prompts and the same minute on both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from tqdm import tqdm

from models.drafting.drafter import Drafter
from models.engine import EngineConfig, build_loop
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.targets.load import DTYPES, load_target
from models.targets.target import Target
from pipelines.bench.interleave import Contestant, Series, race, warmed
from pipelines.bench.recipe import PLAIN, Recipe
from pipelines.generate.rows.prompts import Prompt, requests, shortened

Slices = Sequence[Sequence[Prompt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`temperatures` and `dtypes` are what sections that compare several go through."""

    target: str
    draft: str
    slices: Slices
    max_tokens: int
    threads: int
    job_s: float
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    temperatures: tuple[float, ...] = (0.0, 1.0)
    chain: int = 4
    tree: tuple[int, int, int] = (4, 2, 5)  # tokens, width, likeliest nodes
    openvino: tuple[str, str] | None = None  # folders of the same two models
    long_prompts: tuple[int, ...] = (25_000, 50_000, 100_000)  # tokens of each
    real_openvino: tuple[str, str] | None = None  # of the real model, twice

    def sampling(self, temperature: float) -> Sampling:
        """All contestants write max_tokens: none ends early."""
        return Sampling(max_tokens=self.max_tokens, temperature=temperature, ignore_eos=True)

    def requests(
        self, turn: int, temperature: float, *, slices: Slices | None = None, at_least: int = 1
    ) -> list[Request]:
        """What every contestant runs in this turn."""
        every = slices or self.slices
        prompts = every[turn % len(every)]
        return requests(prompts, self.sampling(temperature), seed=7, at_least=at_least)

    def length(self, slices: Slices | None = None) -> int:
        """Tokens that the longest request has, prompt and completion."""
        prompts = [prompt for part in slices or self.slices for prompt in part]
        return max(len(prompt.tokens) for prompt in prompts) + self.max_tokens

    def recipes(self) -> dict[str, Recipe]:
        """Plain, and the draft model as a chain, as a tree and as the controller likes."""
        chain = Recipe(drafter=self.draft, draft_tokens=self.chain)
        auto = Recipe(drafter=self.draft, draft_width="auto")
        tree = self.small_tree
        return {"plain": PLAIN, chain.size: chain, tree.size: tree, "auto": auto}

    @property
    def small_tree(self) -> Recipe:
        """The draft model as a tree of a fixed size."""
        tokens, width, nodes = self.tree
        return Recipe(drafter=self.draft, draft_tokens=tokens, draft_width=width, draft_nodes=nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a table's contestants share."""

    dtype: str = "float32"
    temperature: float = 0.0
    batch_size: int = 1
    slices: Slices | None = None
    at_least: int = 1

    def __str__(self) -> str:
        return f"batch {self.batch_size}, temperature {self.temperature:g}, {self.dtype}"


def make_loop(
    work: Work, recipe: Recipe, setting: Setting, *, drafter: Drafter | None = None
) -> TokenLoop:
    """A token loop of ours.

    All of one dtype share the target's weights: the same weights at other places of the memory
    make equal loops differ by some per cent.
    """
    config = EngineConfig(
        target=work.target,
        drafter=recipe.drafter,
        draft_tokens=recipe.draft_tokens,
        draft_width=recipe.draft_width,
        draft_nodes=recipe.draft_nodes,
        dtype=setting.dtype,
        batch_size=setting.batch_size,
        max_length=work.length(setting.slices),
        threads=work.threads,
    )
    return build_loop(config, target=target_of(work.target, setting.dtype), drafter=drafter)


@lru_cache(maxsize=1)
def target_of(folder: str, dtype: str) -> Target:
    """The target, loaded once."""
    return load_target(folder, dtype=DTYPES[dtype], device="auto")


def ours(
    work: Work, recipe: Recipe, setting: Setting, *, drafter: Drafter | None = None
) -> Contestant:
    """A recipe as a contestant, warmed up."""
    return contestant(work, make_loop(work, recipe, setting, drafter=drafter), setting)


def contestant(work: Work, loop: TokenLoop, setting: Setting) -> Contestant:
    """A loop as a contestant, warmed up."""

    def asked(turn: int) -> list[Request]:
        return work.requests(
            turn, setting.temperature, slices=setting.slices, at_least=setting.at_least
        )

    return warmed(loop, shortened(asked(0), count=2, max_tokens=16), asked)


def compete(
    title: str, contestants: Mapping[str, Contestant], turns: int, *, threads: int
) -> dict[str, Series]:
    """Run all contestants in turn, with a progress bar."""
    torch.set_num_threads(threads)
    with tqdm(total=turns * len(contestants), desc=title, unit="run", leave=False) as bar:
        return race(contestants, turns, bar)
