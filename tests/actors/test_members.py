"""What Ray says of an actor's end, and what that says about the requests on it."""

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from actors.errors import LoopFailed, RankLost
from actors.pool.members import death_of
from actors.pool.requests.death import Evidence

ACTOR = b"\x01" * 16


def died(message: str) -> ActorDiedError:
    return ActorDiedError(ActorDiedErrorContext(actor_id=ACTOR, error_message=message))


@pytest.mark.parametrize(
    ("error", "evidence", "reason"),
    [
        (
            died(
                "The actor is dead because its worker process has died. Worker exit type: "
                "SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits"
            ),
            Evidence.DEATH,
            "its process died: it was killed, ran out of memory or crashed",
        ),
        (
            died("The actor died because its node has died. Node Id: 5f\n\tthe actor's node was"),
            Evidence.NONE,
            "The actor died because its node has died. Node Id: 5f",
        ),
        (
            died("The actor is dead because it was killed by `ray.kill`."),
            Evidence.NONE,
            "The actor is dead because it was killed by `ray.kill`.",
        ),
        (
            ActorUnavailableError("connection reset", ACTOR),
            Evidence.NONE,
            f"The actor {ACTOR.hex()} is unavailable: connection reset. The task may or may not "
            "have been executed on the actor.",
        ),
        (
            RayTaskError("take", "a long traceback", LoopFailed("x: the token loop broke")),
            Evidence.ERROR,
            "LoopFailed: x: the token loop broke",
        ),
        (
            RayTaskError("take", "a long traceback", RankLost("target-0, rank 1: it was killed")),
            Evidence.DEATH,
            "RankLost: target-0, rank 1: it was killed",
        ),
    ],
)
def test_only_its_process_and_its_loop_speak_against_requests(error, evidence, reason):
    death = death_of(error)
    assert death.evidence == evidence
    assert death.reason == reason
