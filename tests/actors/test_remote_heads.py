"""Drafters that read the target's states, in draft actors: states travel with the messages.

The other end is a real draft actor in this process, reached by futures instead of Ray.
"""

import numpy as np
import pytest

from actors.drafts.draft import DraftActor
from actors.drafts.remote_drafter import RemoteDrafter
from actors.messages import DraftTeam
from models.drafting.draft import Shape
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.medusa_head import write_medusa
from models.drafting.sizing.sizing import FixedSize
from models.engine import build_drafter
from models.engine_config import EngineConfig
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.targets.load import load_target
from tests.actors.test_remote_drafter import direct
from tests.models.drafting.heads.random_heads import eagle_head, medusa_head, write_target

CHAIN, TREE = Shape(depth=3), Shape(depth=3, width=3)
KINDS = ["eagle", "medusa"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    target = write_target(root / "target")
    write_eagle(eagle_head(), root / "eagle", layout="speculators", target=target, draft_tokens=3)
    write_medusa(medusa_head(), root / "medusa")
    return root


@pytest.fixture(scope="module")
def target(folders):
    import torch

    return load_target(folders / "target", dtype=torch.float32, device="cpu")


def requests(count=9):
    return [
        Request(
            id=f"r{i}",
            prompt=tuple(1 + (7 * i + j) % 40 for j in range(1 + 3 * i)),
            sampling=Sampling(max_tokens=3 + 2 * i, temperature=float(i % 3 > 0), ignore_eos=True),
            seed=i,
        )
        for i in range(count)
    ]


def config_of(folders, kind):
    return EngineConfig(
        target=str(folders / "target"), drafter=str(folders / kind), memory="64MiB", batch_size=4
    )


def run(target, drafter, shape=CHAIN, *, verify="match", rows=4):
    loop = TokenLoop(
        target,
        drafter,
        FixedSize(shape),
        rows=rows,
        max_length=60,
        scratch=16,
        verify=verify,
        prefill_chunk=7,
    )
    return {r.id: r.tokens for r in loop.run(requests())}, loop


def actor_of(folders, kind, rows=8):
    made = DraftActor()
    made.serve(build_drafter(config_of(folders, kind), None, 60, rows=rows), rows=rows)
    return made


def remote(kind, *actors):
    told = actors[0].describe()
    team = DraftTeam(name=kind, max_width=8, layers=tuple(told["layers"]), patience=1e6)
    drafter = RemoteDrafter(team, client="target-0")
    drafter.connect({f"draft-{i}": direct(each) for i, each in enumerate(actors)})
    return drafter


@pytest.fixture(scope="module")
def plain(target):
    return run(target, None)[0]


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("shape", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("kind", KINDS)
def test_drafts_are_those_made_beside_the_target(folders, target, plain, kind, shape, rows):
    local = build_drafter(config_of(folders, kind), target, 60)
    tokens, near = run(target, local, shape, rows=rows)
    far_tokens, far = run(target, remote(kind, actor_of(folders, kind)), shape, rows=rows)
    assert tokens == far_tokens == plain
    assert far.figures().drafted == near.figures().drafted > 0
    assert far.figures().accepted == near.figures().accepted > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampled_rules(folders, target, kind):
    local = build_drafter(config_of(folders, kind), target, 60)
    tokens, _ = run(target, local, verify="rejection")
    far_tokens, _ = run(target, remote(kind, actor_of(folders, kind)), verify="rejection")
    assert tokens == far_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_a_draft_actor_forgot_go_on_without_drafts(folders, target, plain, kind):
    """It remembers one request of four: the others lose their states, and no tokens."""
    tokens, loop = run(target, remote(kind, actor_of(folders, kind, rows=1)))
    assert tokens == plain
    whole = run(target, remote(kind, actor_of(folders, kind)))[1].figures().drafted
    assert loop.figures().drafted < whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_actor_that_dies_takes_its_requests_drafts_along(folders, target, plain, kind):
    first, second = actor_of(folders, kind), actor_of(folders, kind)
    calls, draft = [], first.draft

    def dying(ask):
        calls.append(ask)
        if len(calls) > 2:
            raise RuntimeError("dead")
        return draft(ask)

    first.draft = dying
    tokens, loop = run(target, remote(kind, first, second))
    assert tokens == plain
    assert loop.figures().drafted > 0
    assert len(calls) > 2


def test_a_position_is_told_once(folders, target):
    made, seen = actor_of(folders, "eagle"), {}
    draft = made.draft

    def watched(ask):
        for growth in ask.growths:
            count = 0 if growth.states is None else len(growth.states)
            seen[growth.id] = seen.get(growth.id, 0) + count
            assert seen[growth.id] == growth.version - 1
            assert growth.states.dtype == np.float32
        return draft(ask)

    made.draft = watched
    run(target, remote("eagle", made))
    assert len(seen) > 5
