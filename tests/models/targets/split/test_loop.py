"""The token loop over a split target: the whole target's tokens, whatever drafts."""

import pytest

from models.engine import EngineConfig, build_loop
from models.requests.request import Request, Sampling
from tests.models.checkpoints import VOCABULARY, save
from tests.models.targets.split.together import split

SAMPLINGS = (
    Sampling(max_tokens=24, temperature=0.0),
    Sampling(max_tokens=24, temperature=0.9, top_p=0.95),
)
DRAFTERS = {
    "none": {},
    "lookup": {"drafter": "lookup"},
    "model": {"drafter": "draft", "draft_tokens": 3, "draft_width": 2},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A target, and a draft that agrees with it in part."""
    root = tmp_path_factory.mktemp("checkpoints")
    save(root / "target", "llama3", max_shard_size="60KB")
    save(root / "draft", "llama3", seed=1)
    return root


def requests():
    prompts = [tuple((7 * i + j) % VOCABULARY for j in range(3 + 20 * i)) for i in range(4)]
    prompts.append(prompts[-1][:50])  # shares entries with another row
    return [
        Request(id=f"r{i}", prompt=prompt, sampling=SAMPLINGS[i % 2], seed=i)
        for i, prompt in enumerate(prompts)
    ]


def tokens_of(loop):
    return {result.id: result.tokens for result in loop.run(requests())}


def config_of(root, **options):
    if options.get("drafter") == "draft":
        options["drafter"] = str(root / "draft")
    fixed = {"target": str(root / "target"), "device": "cpu", "batch_size": 3, "max_length": 128}
    return EngineConfig(**fixed, **options)


@pytest.fixture(scope="module")
def plain(folders):
    return tokens_of(build_loop(config_of(folders)))


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_tokens_are_those_of_the_whole_target(folders, plain, drafter):
    config = config_of(folders, **DRAFTERS[drafter])
    with split(folders / "target", 2) as target:
        loop = build_loop(config, target=target)
        assert tokens_of(loop) == plain
        assert loop.describe()["arithmetic"] == ("steady" if target.steady else "torch")
