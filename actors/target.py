"""A target actor: a token loop that steps on a thread of its own while calls come and go.

A plain class; pools make it remote. Calls may come from several threads at once. They leave
commands for the loop's thread, which alone touches the loop, and pick up what has ended.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.at_hand import at_hand
from actors.errors import LoopFailed, RankLost
from actors.messages import DraftTeam, Ended, Streamed, Submission, Taken
from cluster import logs
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.loop.figures import Figures
from models.targets.out_of_memory import memory_explained

if TYPE_CHECKING:  # loaded where models are: a driver, which only names this class, needs no torch
    from actors.desk import Desk
    from actors.drafts.line import Send
    from actors.drafts.remote_drafter import RemoteDrafter
    from actors.ranks import Ranks
    from models.loop.load import Load
    from models.loop.token_loop import TokenLoop
    from models.targets.target import Target

log = logging.getLogger(__name__)
LOST_S = 5.0  # in which it is known whether a pass failed because a rank ended
PLENTY = 1.5  # requests for each row of the batch, those that run included
STREAM_EVERY_S = 0.02  # between two messages with updates only
STREAMED_A_SECOND = 500  # updates: each is an event of HTTP, which takes some 1 ms of a core


class TargetActor:
    """Owns a target, its cache and the truth about every request on it."""

    def __init__(self, name: str = "target") -> None:
        self.name = name
        logs.set_up(name)
        self._changed = threading.Condition()
        self._commands: list[Callable[[Desk], None]] = []
        self._ended: list[Ended] = []
        self._streamed: list[Streamed] = []
        self._urgent = False  # among them is a request's first one, or a result's
        self._streamed_at = 0.0  # when updates were handed over last
        self._cancelled: set[int] = set()  # tickets that the loop's thread has not dropped yet
        self._figures = Figures()
        self._plenty = False  # enough requests wait that the loop would not soon run dry
        self._failure: Exception | None = None
        self._loop: TokenLoop | None = None
        self._drafter: RemoteDrafter | None = None
        self._ranks: Ranks | None = None

    def start(self, config: EngineConfig, team: DraftTeam | None = None) -> dict[str, object]:
        """Load the models and begin to step; `team`: draft actors will be introduced by `meet`.

        Raises what loading raises: UnsupportedCheckpoint, InvalidOption, OSError.
        """
        config = at_hand(config)
        if team is not None:
            from actors.drafts.remote_drafter import RemoteDrafter

            self._drafter = RemoteDrafter(team, client=self.name)
        loaded: Future[TokenLoop] = Future()
        threading.Thread(target=self._run, args=(config, loaded), daemon=True).start()
        self._loop = loaded.result()
        return self.describe()

    def describe(self) -> dict[str, object]:
        """The target and how it runs."""
        import torch

        loop = self._ready()
        own: dict[str, object] = {"pid": os.getpid(), "threads": torch.get_num_threads()}
        if self._ranks is not None:
            pids = self._ranks.pids()
            own |= {"tensor_parallel": 1 + len(pids), "rank_pids": pids}
        return {**loop.describe(), "max_length": loop.max_length, **own}

    def ping(self) -> str:
        """Answers while the process lives, even in the middle of a long pass."""
        return self.name

    def meet(self, draft_actors: dict[str, Any]) -> None:
        """These draft actors (handles, by name) are there from now on."""
        drafter = self._drafter
        assert drafter is not None, "start() had no team"
        sends = {name: sender(handle) for name, handle in draft_actors.items()}
        self._do(lambda _: drafter.connect(sends))

    def change_drafter(self, config: EngineConfig) -> None:
        """Draft with `config.drafter` from now on, for requests that run already, too.

        Raises InvalidOption or UnsupportedCheckpoint; the old one goes on then.
        """
        from models.engine import change_drafter

        config, loop = at_hand(config), self._ready()
        done: Future[None] = Future()

        def change(_: "Desk") -> None:
            try:
                change_drafter(loop, config)
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._do(change)
        done.result()

    # --- requests -----------------------------------------------------------------------------

    def submit(self, submissions: list[Submission]) -> None:
        """Queue requests. One that cannot run here ends with finish_reason "error"."""
        self._do(lambda desk: self._publish([], desk.submit(submissions)))

    def cancel(self, tickets: list[int]) -> None:
        """Drop requests before the next step, even those whose `submit` has yet to arrive.

        When this returns, nothing of them is handed over any more. Their cache rows are free when
        the next step begins.
        """
        gone = frozenset(tickets)

        def drop(desk: "Desk") -> None:
            desk.cancel(tickets)
            with self._changed:
                self._cancelled -= gone

        with self._changed:
            self._cancelled |= gone
            self._ended = [each for each in self._ended if each.ticket not in gone]
            self._streamed = [each for each in self._streamed if each.ticket not in gone]
        self._do(drop)

    def take(self, timeout_s: float, together_s: float = 0.0) -> Taken:
        """What has ended or streamed since the last call; waits up to `timeout_s` for the first.

        Then up to `together_s` for others to end, while enough requests wait here to go on with and
        nothing has streamed: every message between processes takes time from the passes. Updates
        wait for those of later steps, up to STREAM_EVERY_S after the last ones, or longer where
        many requests stream; the first and the last one of a request do not wait. If the loop has
        broken, what had ended or streamed before is handed over together with the failure;
        after that the failure is raised.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._news or self._failure, timeout_s):
                patience = self._until_streaming() if self._streamed else together_s
                self._changed.wait_for(lambda: self._hurried or self._failure, patience)
            if not self._news:
                self._check()
            taken = Taken(
                ended=tuple(self._ended),
                streamed=tuple(self._streamed),
                figures=self._figures,
                shares=self._ready().shares,
                failure=self._failure,
            )
            if self._streamed:
                self._streamed_at = time.monotonic()
            self._ended.clear()
            self._streamed.clear()
            self._urgent = False
            return taken

    @property
    def _news(self) -> bool:
        return bool(self._ended or self._streamed)

    @property
    def _hurried(self) -> bool:
        """Whether to hand over at once what there is."""
        return self._urgent if self._streamed else not self._plenty

    def _until_streaming(self) -> float:
        """Seconds until updates that are not urgent are handed over."""
        streams = len({each.ticket for each in self._streamed})
        every = max(STREAM_EVERY_S, streams / STREAMED_A_SECOND)
        return max(0.0, self._streamed_at + every - time.monotonic())

    def figures(self) -> Figures:
        """What was counted from the start until a request ended last."""
        with self._changed:
            return self._figures

    def load(self) -> "Load":
        """What runs and waits now."""
        return self._ready().load()

    # --- the loop's thread --------------------------------------------------------------------

    def _run(self, config: EngineConfig, loaded: "Future[TokenLoop]") -> None:
        # Loading uses torch, too, so it belongs here: every thread that does has OpenMP workers of
        # its own, and where all of them outnumber the cores, they sleep between operations instead
        # of spinning: passes took 1.4 times as long.
        try:
            import torch

            from actors.desk import Desk
            from models.engine import build_loop

            with memory_explained("loading", config):
                target = self._split(config, loaded)
                loop = build_loop(config, target=target, drafter=self._drafter)
        except BaseException as error:
            with suppress(InvalidStateError):  # the loss of a rank was told before
                loaded.set_exception(self._explained(error))
            return
        log.info("%s is ready", self.name, extra={"target": config.target})
        loaded.set_result(loop)
        desk = Desk(loop, self.name)
        try:
            with torch.inference_mode(), memory_explained("generating", config):
                while True:
                    self._obey(loop, desk)
                    results = loop.step()
                    self._publish(desk.streamed(), desk.ended(results))
        except BaseException as error:
            # Whatever broke the loop, its state can no longer be trusted: the pool is told.
            self._fail(self._explained(error))

    def _split(self, config: EngineConfig, loaded: "Future[TokenLoop]") -> "Target | None":
        """The target whose parts several processes hold; None if this one holds all of it."""
        if config.tensor_parallel == 1:
            return None
        from actors.ranks import Ranks

        def lost(error: Exception) -> None:
            with suppress(InvalidStateError):  # the target was loaded
                loaded.set_exception(error)
            self._fail(error)

        self._ranks = Ranks(config, name=self.name, on_lost=lost)
        return self._ranks.lead()

    def _explained(self, error: BaseException) -> BaseException:
        """Why a rank ended, if a pass or loading failed because of that."""
        if self._ranks is None or not isinstance(error, RuntimeError):
            return error
        return self._ranks.lost(LOST_S) or error

    def _obey(self, loop: "TokenLoop", desk: "Desk") -> None:
        """Carry out what was asked; sleep while there is nothing to step."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._commands or loop.num_unfinished)
                commands, self._commands = self._commands, []
            for command in commands:
                command(desk)
            if loop.num_unfinished:
                return

    def _publish(self, streamed: list[Streamed], ended: list[Ended]) -> None:
        """Hand over what one step brought: a request's last update and its result together."""
        if not (streamed or ended):  # most steps of offline jobs
            return
        loop = self._ready()
        figures = loop.figures() if ended else None  # takes longer to add up than a step's locks
        with self._changed:
            self._streamed += [e for e in streamed if e.ticket not in self._cancelled]
            self._ended += [e for e in ended if e.ticket not in self._cancelled]
            self._urgent |= bool(ended) or any(0 in e.update.positions for e in streamed)
            self._figures = figures or self._figures
            self._plenty = loop.num_unfinished > PLENTY * loop.num_rows
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        told = f"{self.name}: the token loop failed: {type(error).__name__}: {error}"
        failure: Exception = LoopFailed(told)
        if isinstance(error, UnsupportedCheckpoint | RankLost):
            failure = error  # a checkpoint that turns out to be broken is so for all requests
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    # --- calls --------------------------------------------------------------------------------

    def _do(self, command: Callable[["Desk"], None]) -> None:
        self._ready()
        with self._changed:
            self._check()
            self._commands.append(command)
            self._changed.notify_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _ready(self) -> "TokenLoop":
        assert self._loop is not None, "start() comes first"
        return self._loop


def sender(handle: Any) -> "Send":
    """How to ask a draft actor by its handle."""
    return lambda ask: handle.draft.remote(ask).future()
