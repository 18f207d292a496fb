"""Actors of one role: created, watched, replaced when they die, more or fewer as is asked.

Knows nothing of what they do. A pool has no thread: it looks after its actors when it is polled.
Ray's own calls start a cluster where there is none, so nothing here calls them before it has
checked that Ray is running.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup

from actors.errors import PoolFailed, RankLost
from actors.pool.places.placing import Placing, require_room
from actors.pool.places.role import Role
from actors.pool.places.unplaced import Unplaced, Waiting
from actors.pool.requests.death import Death, Evidence
from cluster.placement.placement import Demand
from cluster.placement.ranks import placed_in, release, reserve
from models.errors import PacelineError

PING_EVERY_S = 1.0
PING_STREAMING_S = 0.25  # where a stall should be noticed soon
STALLED_S = 0.6  # an actor that answers nothing for so long is stalled: stopped, or starved
PROCESS_DIED = "its process died: it was killed, ran out of memory or crashed"
CAUSES = ("The actor is dead because", "The actor died because")  # how Ray begins a reason
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Member:
    """One actor. `description` is what its start(*arguments) returned; None until then.

    `patience_s`: how long it may answer nothing before it counts as stalled. It doubles with each
    time that the actor answers after all: on a busy machine, answers are late.
    """

    name: str
    handle: Any
    placed: "ObjectRef[Any] | None"  # ready when its process runs; None once that was seen
    answer: "ObjectRef[Any] | None"  # of start(), later of ping()
    asked: float  # when that was called
    arguments: tuple[Any, ...]
    description: dict[str, Any] | None = None
    patience_s: float = STALLED_S
    stalled: bool = False
    group: PlacementGroup | None = None  # where it is placed with its other ranks

    @property
    def ready(self) -> bool:
        return self.description is not None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the actors showed: those ready now that were not before, and the dead."""

    ready: list[Member] = field(default_factory=list)
    dead: dict[str, Death] = field(default_factory=dict)  # by name


class Pool:
    """Keeps `size` actors of a class alive. The class has start(...) -> description, and ping()."""

    def __init__(
        self, role: Role, actor_class: type, arguments: Callable[[], tuple[Any, ...]]
    ) -> None:
        """`arguments` gives those of start(); it is asked anew for each actor."""
        self.role, self.size = role, role.min_size
        self.ping_every_s = PING_EVERY_S
        self.members: dict[str, Member] = {}
        self._class: Any = ray.remote(actor_class)
        self._arguments = arguments
        self._born = 0
        self.num_deaths, self.died = 0, 0.0  # in all, and when one died last, in Unix seconds
        self._deaths: deque[float] = deque()  # those that count towards giving up
        self._reason = ""
        self._started = False
        self._stopped = False
        self._placing: Placing | None = None
        self._unplaced = Unplaced(role)

    @property
    def ready(self) -> list[Member]:
        """The actors that can be called."""
        return [m for m in self.members.values() if m.ready]

    @property
    def awake(self) -> list[Member]:
        """Those that answer."""
        return [m for m in self.ready if not m.stalled]

    @property
    def lack(self) -> str | None:
        """Why none will be ready soon, where none is ready and that is known."""
        return None if self.ready or self._placing is None else self._placing.lack

    def start(self, *, beside: Iterable[Demand] = ()) -> None:
        """Create the actors and wait until all are ready.

        `beside`: actors of other pools that the cluster must have room for, too. Raises what
        start() raises where that is one of our errors, PoolFailed otherwise.
        """
        self._check_running()
        try:
            demands = [self.role.demand(self.size), *beside]
            require_room(demands, patience_s=self.role.place_s)
            self._restore()
            while len(self.ready) < self.size:
                self.wait(1.0)
                self.poll()
        except BaseException:
            self.stop()
            raise
        self._started = True

    def begin_with(self, *arguments: Any) -> None:
        """What start() of new actors gets from now on."""
        self._arguments = lambda: arguments

    @property
    def answers(self) -> "list[ObjectRef[Any]]":
        """What is worth a poll when it comes in."""
        return [m.answer for m in self.members.values() if m.answer is not None]

    def wait(self, timeout_s: float) -> None:
        """Sleep until something is worth a poll."""
        self._check_running()
        if self.answers:
            ray.wait(self.answers, num_returns=1, timeout=timeout_s)

    def poll(self) -> Changes:
        """Look after the actors: notice who is ready and who is dead, replace and ping."""
        self._check_running()
        changes = Changes()
        for member in list(self.members.values()):
            was_ready = member.ready
            death = self._look(member)
            if death is not None:
                self._bury(member, death)
                changes.dead[member.name] = death
            elif member.ready and not was_ready:
                changes.ready.append(member)
        for name in self._unplaced.forgotten(self._waiting()):
            self.retire(self.members[name])
        self._restore()
        self._watch_places()
        return changes

    def lose(self, name: str, death: Death) -> None:
        """A call has shown that a member is of no use any more."""
        if name in self.members:
            self._bury(self.members[name], death)

    def note_progress(self) -> None:
        """The actors do their work: deaths until now do not count towards giving up."""
        self._deaths.clear()

    def resize(self, size: int) -> None:
        """Have `size` actors, within the role's bounds; fewer by `retire` only."""
        self.size = max(self.role.min_size, min(size, self.role.max_size))

    def retire(self, member: Member) -> None:
        """Stop an actor that is not needed any more."""
        del self.members[member.name]
        if ray.is_initialized():
            with suppress(RayError, RuntimeError, ValueError):  # it may be gone, or its cluster
                ray.kill(member.handle)
            if member.group is not None:
                release(member.group)

    def stop(self) -> None:
        """Stop all actors at once, whatever they do; the pool cannot be used after that."""
        self._stopped = True
        for member in list(self.members.values()):
            self.retire(member)

    def _check_running(self) -> None:
        if self._stopped:
            raise PoolFailed(f"the pool of {self.role.name} actors was stopped")
        if not ray.is_initialized():
            raise PoolFailed("not connected to a Ray cluster: see cluster.connect.connected")

    # --- one actor ----------------------------------------------------------------------------

    def _look(self, member: Member) -> Death | None:
        """How the member ended, if it did. Raises its own error if it cannot start."""
        now = time.monotonic()
        if member.placed is not None and ray.wait([member.placed], timeout=0)[0]:
            member.placed = None
        if member.answer is None:
            if now - member.asked >= self.ping_every_s:
                member.answer, member.asked = member.handle.ping.remote(), now
            return None
        done, _ = ray.wait([member.answer], timeout=0)
        if not done:
            silent_s = now - member.asked if member.ready else 0.0
            member.stalled = silent_s > member.patience_s
            told = f"it answered nothing for {self.role.silent_s:.0f} s"
            return Death(told, Evidence.DEATH) if silent_s > self.role.silent_s else None
        try:
            answer = ray.get(member.answer)
        except RayTaskError as error:
            return self._refused(error)
        except RayError as error:
            return death_of(error)
        member.answer = None
        if member.stalled:
            member.stalled, member.patience_s = False, 2 * member.patience_s
        if not member.ready:
            member.description = answer
        return None

    def _refused(self, error: RayTaskError) -> Death:
        """An actor whose start() raised; where none ever started, trying again would not help."""
        if self._started or isinstance(error.cause, RankLost):
            return death_of(error)
        if isinstance(error.cause, PacelineError):
            raise error.cause from None
        told = reason_of(error)
        raise PoolFailed(f"a {self.role.name} actor cannot start: {told}") from error

    def _bury(self, member: Member, death: Death) -> None:
        log.warning("%s ended and is replaced: %s", member.name, death.reason)
        self.num_deaths, self.died = self.num_deaths + 1, time.time()
        self.retire(member)  # it may hang instead
        if death.evidence or not member.ready:
            self._deaths.append(time.monotonic())
            if not self._may_create():
                told = "%d %s actors died within %.0f s and completed nothing: no more for now"
                log.warning(told, len(self._deaths), self.role.name, self.role.window_s)
        self._reason = death.reason

    # --- all of them --------------------------------------------------------------------------

    def _restore(self) -> None:
        while len(self.members) < self.size and self._may_create():
            self._create()
        if not self.members and (self.role.required or not self._started):
            raise PoolFailed(
                f"{len(self._deaths)} {self.role.name} actors died within "
                f"{self.role.window_s:.0f} s without completing anything; the last: {self._reason}"
            )

    def _may_create(self) -> bool:
        while self._deaths and self._deaths[0] < time.monotonic() - self.role.window_s:
            self._deaths.popleft()
        return len(self._deaths) <= self.role.max_restarts * self.size

    def _create(self) -> None:
        name = f"{self.role.name}-{self._born}"
        self._born += 1
        role, group, options = self.role, None, self.role.options()
        if role.ranks > 1:
            group = reserve(role.each, role.ranks, role.labels)
            options |= placed_in(group, 0)
        handle, arguments = self._class.options(**options).remote(name), self._arguments()
        placed = handle.__ray_ready__.remote()
        started = handle.start.remote(*arguments)
        now = time.monotonic()
        self.members[name] = Member(name, handle, placed, started, now, arguments, group=group)

    def _waiting(self) -> dict[str, Waiting]:
        """Those whose process has not been seen."""
        unseen = [member for member in self.members.values() if member.placed is not None]
        return {m.name: Waiting(m.handle, m.asked, m.group) for m in unseen}

    def _watch_places(self) -> None:
        """Where nothing goes on because actors wait for a place: not silently, nor for ever."""
        waiting = self._waiting()
        if not waiting or (self._started and (self.ready or not self.role.required)):
            self._placing = None
            return
        self._placing = self._placing or Placing(self.role, started=self._started)
        self._placing.check(len(waiting), 1 if self._started else self.size)


def death_of(error: RayError) -> Death:
    """What a failed call says about the end of its actor."""
    reason = reason_of(error)
    if isinstance(error, RayTaskError):
        lost = isinstance(error.cause, RankLost)
        return Death(reason, Evidence.DEATH if lost else Evidence.ERROR)
    # Ray tells by its text alone whether the process died or something around it.
    if isinstance(error, RayActorError) and "worker process has died" in str(error):
        return Death(PROCESS_DIED, Evidence.DEATH)
    return Death(reason, Evidence.NONE)


def reason_of(error: Exception) -> str:
    """What went wrong, in one line: what Ray appends is long."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = str(error).strip().splitlines()
    told = [line for line in lines if line.startswith(CAUSES)]
    return (told or lines or [type(error).__name__])[0].strip()
