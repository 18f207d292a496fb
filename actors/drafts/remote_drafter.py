"""A drafter that lives elsewhere: asked when a round is committed, its drafts picked up later.

So a draft actor works on one half of the batch while the target verifies the other. Whatever goes
wrong with it (dead, late, wrong) is an empty draft here: slower, never an error, never another
output. Used by the token loop's thread alone.
"""

import time
from collections.abc import Mapping
from collections.abc import Sequence as Several
from concurrent.futures import wait
from dataclasses import dataclass

import numpy as np

from actors.drafts.features import Features
from actors.drafts.guesses import BadGuess, Wanted, to_draft
from actors.drafts.line import Flight, Line, Send
from actors.messages import DraftAsk, DraftReply, DraftTeam, Growth, Opening
from models.batch import Ints
from models.drafting.draft import EMPTY, NOTHING, Draft, Shape
from models.drafting.drafter import DraftContext, useful_depth
from models.drafting.parallel.coupling import choices
from models.drafting.reading import Reading
from models.readout import Readout
from models.requests.sequence import Sequence
from models.requests.spans import Spans
from models.verify.round import Commit, Round

IDLE_ROUNDS = 4  # without a draft: the controller has decided against drafting for now
MIN_PATIENCE_S, MAX_PATIENCE_S = 0.002, 1.0


@dataclass(slots=True)
class Home:
    """Where a request's drafts come from, and how many of its tokens are known there."""

    line: Line
    known: int = 0


class RemoteDrafter:
    """Implements models.drafting.drafter.Drafter over lines to draft actors."""

    bytes_per_entry = 0
    whole = True  # of the target's states, in a message for each round

    def __init__(self, team: DraftTeam, *, client: str) -> None:
        self.name, self.max_width = team.name, team.max_width
        self.passes = 0
        self.transfer_s = 0.0  # of the loop's time, spent on messages
        self._team, self._client = team, client
        self.wants = Readout(layers=team.layers) if team.layers else None
        self._features = Features()
        self._lines: dict[str, Line] = {}
        self._homes: dict[str, Home] = {}
        self._coming: dict[str, tuple[int, Flight]] = {}  # version that was asked for
        self._guesses: dict[str, object] = {}
        self._choices: dict[str, Ints] = {}  # the target's, of each request's last round
        self._drafting: set[str] = set()  # requests that drafted in their last round
        self._traced: dict[str, Spans] = {}  # those that ask for a trace
        self._shape, self._sampled, self._vocab_size = NOTHING, False, 0
        self._round_s, self._proposed, self._idle = 0.0, 0.0, 0

    @property
    def remote(self) -> bool:
        """Whether there is anyone to draft while the target verifies, and anything to draft."""
        return self._idle < IDLE_ROUNDS and any(line.up for line in self._lines.values())

    def connect(self, sends: Mapping[str, Send]) -> None:
        """These draft actors, by name, are there from now on; those known already stay as is."""
        for name in set(self._lines) - set(sends):
            self._leave(self._lines.pop(name))
        for name, send in sends.items():
            if name not in self._lines:
                self._lines[name] = Line(name, send)

    # --- the drafter's protocol ---------------------------------------------------------------

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """The drafts that are there, or come in shortly; empty for the others."""
        self._shape, self._sampled, self._idle = shape, context.sampled, 0
        self._vocab_size = context.processor.vocab_size
        self._collect()
        self._ask([s for s in sequences if not self._is_coming(s)])
        self._wait(sequences)
        drafts = [self._take(s, context) for s in sequences]
        self._drafting.update(s.id for s in sequences)
        self._proposed = time.perf_counter()
        return drafts

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Ask for the next round's drafts, of the shape that was planned last."""
        if self._team.by_choices:
            for sequence in round_.sequences:
                self._choices.pop(sequence.id, None)
            self._choices |= choices(round_, commits)
        drafting = [s for s in round_.sequences if s.id in self._drafting]
        if not drafting:
            self._idle += 1
            return
        self._drafting.difference_update(s.id for s in drafting)
        seconds = time.perf_counter() - self._proposed
        self._round_s += (0.2 if self._round_s else 1.0) * (seconds - self._round_s)
        self._ask([s for s in drafting if s.finish_reason is None])

    def begin(self, sequence: Sequence) -> int:
        """Nothing is known there of a request that joins."""
        return 0

    def read(self, readings: Several[Reading]) -> None:
        """States of the target, for drafters that read them; sent with the next ask."""
        self._features.read(readings)

    def forget(self, request_id: str) -> None:
        """The request has ended; its draft actor hears of it with the next ask."""
        self._features.forget(request_id)
        self._coming.pop(request_id, None)
        self._guesses.pop(request_id, None)
        self._choices.pop(request_id, None)
        self._drafting.discard(request_id)
        self._traced.pop(request_id, None)
        home = self._homes.pop(request_id, None)
        if home is not None:
            home.line.requests.discard(request_id)
            home.line.ended.append(request_id)

    # --- asking -------------------------------------------------------------------------------

    def _ask(self, sequences: list[Sequence]) -> None:
        began = time.perf_counter()
        by_line: dict[str, list[Sequence]] = {}
        for sequence in sequences:
            home = self._home(sequence.id) if self._is_worth_asking(sequence) else None
            if home is not None:
                by_line.setdefault(home.line.name, []).append(sequence)
        for name, asking in by_line.items():
            if self._lines[name].willing():
                self._send(self._lines[name], asking)
        self.transfer_s += time.perf_counter() - began

    def _is_worth_asking(self, sequence: Sequence) -> bool:
        if not useful_depth(sequence, self._shape):
            return False
        return self.wants is None or self._features.has(sequence.id)

    def _home(self, request_id: str) -> Home | None:
        """The request's draft actor; the least loaded one if it has none that is up."""
        home = self._homes.get(request_id)
        if home is not None and home.line.up:
            return home
        up = [line for line in self._lines.values() if line.up]
        if not up:
            return None
        if home is not None:
            home.line.requests.discard(request_id)
        line = min(up, key=lambda line: len(line.requests))
        line.requests.add(request_id)
        self._homes[request_id] = home = Home(line)
        return home

    def _send(self, line: Line, sequences: list[Sequence]) -> None:
        ended, line.ended = tuple(line.ended), []
        flight = line.ask(
            DraftAsk(
                client=self._client,
                vocab_size=self._vocab_size,
                growths=tuple(self._growth(s) for s in sequences),
                shape=self._shape,
                sampled=self._sampled,
                ended=ended,
            )
        )
        for sequence in sequences:
            self._coming[sequence.id] = (len(sequence.tokens), flight)
            if sequence.spans is not None:
                self._traced[sequence.id] = sequence.spans
            self._guesses.pop(sequence.id, None)

    def _growth(self, sequence: Sequence) -> Growth:
        home = self._homes[sequence.id]
        base, home.known = home.known, len(sequence.tokens)
        tokens = np.array(sequence.tokens[base:], dtype=np.int64)
        opening = None if base else _opening(sequence)
        states = self._features.take(sequence.id, anew=base == 0) if self.wants else None
        return Growth(
            id=sequence.id,
            base=base,
            tokens=tokens,
            opening=opening,
            choices=self._choices.get(sequence.id),
            states=states,
        )

    # --- picking up ---------------------------------------------------------------------------

    def _is_coming(self, sequence: Sequence) -> bool:
        """Whether a draft of the request as it is now was asked for."""
        version, _ = self._coming.get(sequence.id, (-1, None))
        return version == len(sequence.tokens)

    def _wait(self, sequences: Several[Sequence]) -> None:
        """Wait a little for drafts that are under way, but not for those that will be late."""
        patience = self._team.patience * self._round_s
        patience = min(max(patience, MIN_PATIENCE_S), MAX_PATIENCE_S)
        flights = self._under_way(sequences)
        allowed = [line.worth_waiting(flight, patience) for line, flight in flights]
        if any(allowed):
            began = time.perf_counter()
            worth = [f for (_, f), s in zip(flights, allowed, strict=True) if s]
            wait([flight.future for flight in worth], timeout=max(allowed))
            self._note_transfer(worth, time.perf_counter() - began)
        for line, flight in flights:
            line.judge(in_time=flight.future.done())
        self._collect()

    def _under_way(self, sequences: Several[Sequence]) -> list[tuple[Line, Flight]]:
        found = {}
        for sequence in sequences:
            version, flight = self._coming.get(sequence.id, (-1, None))
            home = self._homes.get(sequence.id)
            if flight is not None and home is not None and version == len(sequence.tokens):
                found[id(flight)] = (home.line, flight)
        return list(found.values())

    def _note_transfer(self, flights: list[Flight], waited: float) -> None:
        """Book the part of the waiting in which no draft was being made."""
        latency = max((f.latency for f in flights if f.future.done()), default=0.0)
        at_work = max(map(_seconds, flights))
        if latency > 0:
            self.transfer_s += waited * min(max(0.0, 1.0 - at_work / latency), 1.0)

    def _collect(self) -> None:
        """Unpack all replies that have come."""
        for line in self._lines.values():
            for flight in line.landed():
                try:
                    self._unpack(flight)
                    self._trace(line, flight)
                except Exception:  # its own, or what a reply without sense leads to
                    self._give_up(line)

    def _unpack(self, flight: Flight) -> None:
        reply = flight.future.result()
        if not isinstance(reply, DraftReply):
            raise BadGuess(f"a {type(reply).__name__}")
        self.passes += int(reply.passes)
        for request_id in reply.missing:
            if request_id in self._homes:
                self._homes[request_id].known = 0
        for guess in reply.guesses:
            if self._coming.get(guess.id, (-1, None))[1] is flight:
                self._guesses[guess.id] = guess

    def _trace(self, line: Line, flight: Flight) -> None:
        """Note for requests that ask for a trace how long their draft was under way."""
        for growth in flight.ask.growths if self._traced else ():
            spans = self._traced.get(growth.id)
            if spans is not None:
                facts = {"at_work_us": round(1e6 * _seconds(flight)), "tokens": len(growth.tokens)}
                ended = flight.sent + flight.latency
                spans.add("draft", flight.sent, ended, facts, where=line.name)

    def _take(self, sequence: Sequence, context: DraftContext) -> Draft:
        guess = self._guesses.pop(sequence.id, None)
        if guess is None:
            return EMPTY
        wanted = Wanted(
            version=len(sequence.tokens),
            shape=self._shape,
            depth=useful_depth(sequence, self._shape),
            vocab_size=self._vocab_size,
            chain=context.sampled,
            probs=context.sampled and not self._team.deterministic,
            device=context.processor.device,
        )
        line = self._homes[sequence.id].line
        try:
            draft = to_draft(guess, wanted)
        except Exception:  # it is not what it should be, in whatever way
            self._give_up(line)
            return EMPTY
        line.trust()
        return draft or EMPTY

    # --- trouble ------------------------------------------------------------------------------

    def _give_up(self, line: Line) -> None:
        """A draft actor is dead or wrong: others take over its requests, or it opens them anew."""
        line.distrust()
        self._leave(line)

    def _leave(self, line: Line) -> None:
        for request_id in line.requests:
            del self._homes[request_id]
            self._coming.pop(request_id, None)
            self._guesses.pop(request_id, None)
        line.requests.clear()
        line.ended.clear()


def _opening(sequence: Sequence) -> Opening:
    return Opening(
        num_prompt=sequence.num_prompt,
        seed=sequence.request.seed,
        sampling=sequence.request.sampling,
        stop_tokens=tuple(sorted(sequence.stop_tokens)),
        noise=sequence.request.noise,
        cache_salt=sequence.request.cache_salt,
    )


def _seconds(flight: Flight) -> float:
    """How long the draft actor worked on the reply, if one has come."""
    if not flight.future.done() or flight.future.exception() is not None:
        return 0.0
    reply = flight.future.result()
    if isinstance(reply, DraftReply) and isinstance(reply.seconds, float):
        return reply.seconds
    return 0.0
