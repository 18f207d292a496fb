"""Drafters that read the target, through the whole loop: the tokens of plain decoding."""

from dataclasses import replace

import pytest

from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.medusa_head import write_medusa
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.memory.blocks import BLOCK
from models.requests.request import Request, Sampling
from tests.models.drafting.heads.random_heads import eagle_head, medusa_head, write_target
from tests.models.looping import SAMPLINGS, run_alone

SOME = list(range(2, 50, 3))
KINDS = {"speculators": EagleDrafter, "sglang": EagleDrafter, "medusa": HeadsDrafter}
SHAPES = {
    "chain": {"draft_tokens": 3},
    "tree": {"draft_tokens": 3, "draft_width": 3},
    "best of a tree": {"draft_tokens": 4, "draft_width": 4, "draft_nodes": 6},
    "auto": {},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A target, and a drafter of each kind, with all tokens or some of them."""
    root = tmp_path_factory.mktemp("models")
    target = write_target(root / "target")
    for name, ids in (("whole", None), ("some", SOME)):
        head, given = eagle_head(ids=ids, norm_taps=True), {"target": target, "draft_tokens": 3}
        write_eagle(head, root / f"speculators-{name}", layout="speculators", **given)
        write_eagle(eagle_head(ids=ids), root / f"sglang-{name}", layout="sglang", **given)
        write_medusa(medusa_head(ids=ids), root / f"medusa-{name}")
    return root


def requests():
    out = []
    for number in range(16):
        settings = {k: v for k, v in SAMPLINGS[number % len(SAMPLINGS)].items() if k != "stop"}
        settings = {"max_tokens": 1 + (7 * number) % 19, **settings}
        settings["min_tokens"] = min(settings.get("min_tokens", 0), settings["max_tokens"])
        prompt = tuple((number * (i + 1) + i * i) % 50 for i in range(1 + (7 * number) % 23))
        sampling = Sampling(**settings)
        out.append(Request(id=str(number), prompt=prompt, sampling=sampling, seed=number))
    return out


def run(folders, drafter="none", **options):
    config = EngineConfig(
        target=str(folders / "target"),
        drafter="none" if drafter == "none" else str(folders / drafter),
        batch_size=3,
        max_length=100,
        prefill_chunk=5,
        memory="64MiB",
        **options,
    )
    loop = build_loop(config)
    return {r.id: (r.tokens, r.finish_reason) for r in loop.run(requests())}, loop


@pytest.fixture(scope="module")
def plain(folders):
    return run(folders)[0]


@pytest.mark.parametrize("size", ["whole", "some"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_plain_decoding(folders, plain, kind, shape, size):
    found, loop = run(folders, f"{kind}-{size}", **SHAPES[shape])
    assert found == plain
    assert isinstance(loop.drafter, KINDS[kind])
    assert loop.figures().drafted > 0
    assert loop.figures().draft_passes > 0


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sampled_rules_take_their_chains(folders, plain, kind, rule):
    """Greedy requests have the tokens of plain decoding, others as many as they may."""
    found, loop = run(folders, f"{kind}-some", verify=rule, draft_tokens=3)
    assert loop.figures().drafted > 0
    for request in requests():
        if request.sampling.temperature == 0 and not request.sampling.has_penalties:
            assert found[request.id] == plain[request.id]


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_drafters_cost_no_hits_in_the_cache(folders, kind):
    """They draft from the last state; a block of an EAGLE-3 drafter needs the token after it."""
    config = EngineConfig(
        target=str(folders / "target"),
        drafter="none" if kind == "none" else str(folders / f"{kind}-whole"),
        max_length=100,
        memory="64MiB",
    )
    begun, sampling = tuple(range(3, 48)) * 2, Sampling(max_tokens=8)
    loop = build_loop(config)
    for number in range(4):
        prompt = (*begun[: BLOCK + 9 * (number > 0)], number)
        asked = Request(id=str(number), prompt=prompt, sampling=sampling, seed=number)
        (cold,) = run_alone([replace(asked, cache_salt=b"x")], target=loop.target, max_length=100)
        (warm,) = loop.run([asked])
        assert warm.tokens == cold.tokens
    figures = loop.figures()
    hits = 2 if KINDS.get(kind) is EagleDrafter else 3
    assert figures.prefix_hit_tokens == hits * BLOCK
    assert kind == "none" or figures.drafted > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_request_leaves_nothing(folders, kind):
    _, loop = run(folders, f"{kind}-whole", draft_tokens=2)
    request = replace(requests()[5], id="again")
    loop.submit(request)
    loop.step()
    loop.cancel("again")
    known = loop.drafter._rows if kind != "medusa" else loop.drafter._states
    assert not known


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(folders, kind):
    config = EngineConfig(
        target=str(folders / "target"),
        drafter=str(folders / f"{kind}-whole"),
        draft_tokens=3,
        draft_width=2,
        dtype="bfloat16",
        max_length=100,
        memory="64MiB",
    )
    assert len(build_loop(config).run(requests()[:4])) == 4


def test_trees_are_for_match_alone(folders):
    target, drafter = str(folders / "target"), str(folders / "medusa-whole")
    with pytest.raises(InvalidOption, match="draft_width=2"):
        EngineConfig(target=target, drafter=drafter, draft_width=2, verify="rejection")


def test_a_drafter_of_another_target_is_refused(folders, tmp_path):
    small = medusa_head(width=16)
    write_medusa(small, tmp_path)
    config = EngineConfig(target=str(folders / "target"), drafter=str(tmp_path))
    with pytest.raises(UnsupportedCheckpoint, match="hidden_size=16"):
        build_loop(config)


def test_drafters_say_what_their_cache_takes(folders):
    eagle = run(folders, "speculators-whole", draft_tokens=2)[1].drafter
    assert eagle.bytes_per_entry == 2 * 2 * 8 * 4  # keys and values of two heads
    assert run(folders, "medusa-whole", draft_tokens=2)[1].drafter.bytes_per_entry == 0
