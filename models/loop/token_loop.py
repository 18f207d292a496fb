"""The token loop: runs many requests with one target and one drafter, round by round.

    plan how much to draft -> draft -> score with one forward pass -> verify -> commit

If the target's schedule decides positions in groups, there are no drafts:

    plan a group -> score with one forward pass -> choose -> commit

Requests join and leave at any step.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import cast

import numpy as np

from models.drafting.draft import EMPTY, NOTHING, Draft, Shape
from models.drafting.drafter import DraftContext, Drafter
from models.drafting.hints import Hints
from models.drafting.sizing.sizing import Sizing
from models.errors import InvalidRequest
from models.exactness import exactness
from models.loop.cache_rows import Rows
from models.loop.facts import facts_of
from models.loop.figures import Figures, Sums
from models.loop.group_round import group_round
from models.loop.groups import need_plain, new_canvas
from models.loop.load import Load, load_of
from models.loop.logprobs import token_logprobs
from models.loop.pace import Pace
from models.loop.packing import Piece, draft_batch, prompt_batch
from models.loop.processors import Processors
from models.loop.prompt_logprobs import asked_nodes, note_prompts
from models.loop.readings import readings_for
from models.loop.stopwatch import Stopwatch
from models.loop.tracing import (
    PREFILL,
    note_admitted,
    note_group_round,
    note_prefill,
    note_round,
    note_waiting,
)
from models.loop.turns import Turns
from models.loop.updates import Updates
from models.registry import RULES, load
from models.requests.admission import (
    Advice,
    begin_grammar,
    check_noise,
    check_request,
    check_unfinished,
    no_advice,
)
from models.requests.grammar import Grammars
from models.requests.output_text import Decode
from models.requests.request import Request, Result
from models.requests.sequence import Sequence
from models.requests.update import Update
from models.sampling.maps import Maps
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.schedules.feed import GroupTarget
from models.targets.finite import broken_rows, told
from models.targets.target import Target
from models.verify.round import Commit, Round, RoundNoise, Rule


class TokenLoop:
    """Runs requests to their end. Not thread-safe: one thread calls `step`."""

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        sizing: Sizing,
        *,
        rows: int,
        max_length: int,
        scratch: int,
        verify: str = "match",
        prefill_chunk: int = 256,
        decode: Decode | None = None,
        name: str = "",
        entries: int | None = None,
        grammars: Callable[[], Grammars] | None = None,
        advise: Advice = no_advice,
    ) -> None:
        """Allocate the cache for `rows` requests of `max_length` tokens and `scratch` nodes each.

        `entries`: of all requests together (None: enough for all). A request must fit in alone.
        `decode` turns token ids into text; only requests with stop strings need it. `name`: the
        target's checkpoint, for error messages. `grammars` is asked for when a request has one.
        `advise`: what would make room for longer requests.
        """
        self.target, self.drafter, self.sizing = target, drafter, sizing
        self.name, self.rule, self._advise = name, verify, advise
        self._verify: Rule = load(RULES[verify].where)
        self.max_length, self._decode, self._pace = max_length, decode, Pace(prefill_chunk)
        assert entries is None or entries >= max_length + scratch, (entries, max_length, scratch)
        self._cache = target.new_cache(rows, max_length + scratch, entries)
        self._readings = readings_for(drafter, target)
        self._rows = Rows(
            self._cache,
            scratch=scratch,
            whole=not target.schedule.in_order,
            readings=self._readings,
        )
        self._groups = None if target.schedule.in_order else cast(GroupTarget, target)
        if self._groups is not None:
            need_plain(drafter.name if drafter else "none", verify)
        self._sums = Sums()
        self._ids: set[str] = set()  # of requests that have not ended
        self._updates = Updates()
        self._maps = Maps(target)
        self._processors = Processors(target, self._maps)
        self._grammars = None if grammars is None else cache(grammars)
        self._hints = Hints(scratch - 1)
        self._turns = Turns(drafter)
        self._noise = NoiseStore(target.vocab_size, target.device)
        self._marks = Stopwatch()

    # --- requests -----------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue a request. Raises InvalidRequest if it can never run here."""
        if request.id in self._ids:
            raise InvalidRequest(f"request {request.id!r} is already running: ids must differ")
        texts = self._decode is not None
        check_request(request, self.target, self.max_length, texts=texts, advise=self._advise)
        check_noise(request, self.rule, self._maps)
        made = self._sequence(request)
        self._ids.add(request.id)
        self._updates.begin(request)
        self._rows.wait(made)
        note_waiting(made)

    def _sequence(self, request: Request) -> Sequence:
        if self._groups is not None:
            return new_canvas(request, self._groups)
        grammar = begin_grammar(request, self._grammars)
        eos = self.target.eos_token_ids
        made = Sequence(request, eos=eos, decode=self._decode, grammar=grammar)
        made.resume()
        check_unfinished(made)
        return made

    def cancel(self, request_id: str) -> bool:
        """Drop a request and free its row; False if the loop does not have it.

        Nothing of it is reported afterwards, not even updates that were not taken.
        """
        self._updates.drop(request_id)
        for sequence in self._rows.waiting:
            if sequence.id == request_id:
                self._rows.withdraw(sequence)
                self._noise.forget(sequence.request.seed)
                self._forget(request_id)
                return True
        for sequence in [*self._rows.running, *self._rows.reading]:
            if sequence.id == request_id:
                self._release(sequence)
                return True
        return False

    def change_drafter(self, drafter: Drafter, sizing: Sizing) -> None:
        """From the next round on, `drafter` drafts, for requests that run already, too.

        They wait again, so that it can read what it needs of their prompts; what they have
        generated stays. Raises InvalidOption if it does not fit the target.
        """
        readings = readings_for(drafter, self.target)
        for sequence in self._rows.restart(readings):
            self._give_way(sequence)
        self.drafter, self.sizing, self._readings = drafter, sizing, readings
        self._turns = Turns(drafter)

    def take_updates(self) -> list[Update]:
        """The new tokens of streaming requests since the last call, one update for each step."""
        return self._updates.take()

    @property
    def num_unfinished(self) -> int:
        return len(self._rows)

    @property
    def num_rows(self) -> int:
        """The number of requests that can run at once."""
        return self._cache.rows

    @property
    def shares(self) -> bool:
        """Whether a prompt may begin with what the KV cache holds, and is read from there on.

        False where a drafter elsewhere must read all of the target's states, or the target's cache
        cannot share blocks.
        """
        return self._rows.shares

    @property
    def cache_bytes(self) -> int:
        return self._cache.num_bytes

    def figures(self) -> Figures:
        """The counts and times since the last reset."""
        return self._sums.figures(self._marks.totals())

    def load(self) -> Load:
        """What runs and waits now."""
        return load_of(self._rows, self._cache)

    def reset_figures(self) -> None:
        self._sums, self._marks = Sums(), Stopwatch()

    def describe(self) -> dict[str, object]:
        """Facts about the target, the drafter and the arithmetic, for summaries."""
        facts = facts_of(self.target, self.drafter, self.rule)
        return {**facts, "cache_bytes": self.cache_bytes}

    def run(self, requests: Iterable[Request]) -> list[Result]:
        """Submit all requests and step until all have ended; results in the order they ended."""
        for request in requests:
            self.submit(request)
        results: list[Result] = []
        while self.num_unfinished:
            results += self.step()
        return results

    # --- one step -----------------------------------------------------------------------------

    def step(self) -> list[Result]:
        """Prefill one chunk, then decode one round. Returns the results of requests that ended.

        So a request that is cancelled between two steps is in no later pass, whatever it waits for.
        """
        self._marks.start()
        if self._rows.waiting:
            self._sums.add(prefix_hit_tokens=self._rows.admit())
            note_admitted(self._rows.reading, self._marks)
        if self._rows.reading:
            self._read_prompts()
        self._make_room()
        results: list[Result] = []
        if self._rows.running:
            results = self._round() if self._groups is None else self._group_round(self._groups)
            self._pace.observe_round(self._marks.round_s())
        return results

    def _read_prompts(self) -> None:
        """Prefill one chunk of prompts, or a piece of it while other requests decode."""
        pieces = self._rows.next_pieces(self._pace)
        sequences = [self._rows.reading[row - len(self._rows.running)] for row, _ in pieces]
        read = sum(len(tokens) for _, tokens in pieces)
        if pieces:
            self._read_pieces(sequences, pieces)
            self._sums.add(prefill_passes=1, prompt_tokens=read)
        self._rows.commit(pieces)
        self._pace.observe_piece(read, self._marks.note(PREFILL))
        note_prefill(sequences, pieces, self._marks)

    def _read_pieces(self, sequences: list[Sequence], pieces: list[Piece]) -> None:
        asked, readings = asked_nodes(sequences, pieces), self._readings
        batch = prompt_batch(pieces, asked)
        batch = batch if readings is None else readings.asking(batch)
        scores = self.target.score(self._cache, batch)
        begins = self._cache.lengths[batch.rows].tolist()
        if len(asked):
            note_prompts(sequences, pieces, begins, scores.logits)
        if readings is not None:
            readings.of_prompts(sequences, begins, pieces, scores)

    def _make_room(self) -> None:
        """Make room for the next round; the youngest requests wait again where there is none."""
        for sequence in self._rows.make_room():
            self._sums.add(preemptions=1)
            self._give_way(sequence)

    def _give_way(self, sequence: Sequence) -> None:
        """A request waits again: it will be read as one that is new."""
        note_waiting(sequence)
        if self.drafter is not None:
            self.drafter.forget(sequence.id)
        if self._readings is not None:
            self._readings.forget(sequence.id)

    def _group_round(self, target: GroupTarget) -> list[Result]:
        running = list(self._rows.running)
        processor = self._processors.of(0, running)
        done = group_round(target, running, self._cache, processor, self._noise, self._marks)
        self._fail(done.broken)
        new = done.groups.num_new
        self._sums.add(rounds=1, round_rows=len(running), target_passes=1, tokens=new)
        self._updates.note_groups(done.groups, done.tokens)
        note_group_round(done.groups, self._marks)
        results = self._finish()
        self._marks.note("other")
        return results

    def _round(self) -> list[Result]:
        first, running = self._turns.next(self._rows.running)
        hints = self._hints.of(running)
        # A round of hints alone says nothing of what a shape costs.
        planned = self.drafter is not None and len(hints) < len(running)
        shape, drafting = self.sizing.plan(len(running)) if planned else (NOTHING, [])
        drafting = [b for b in drafting if b not in hints and running[b].request.drafts]
        processor = self._processors.of(first, running)
        noise = RoundNoise(running, self._noise)
        self._marks.note("other")
        drafts = self._draft(running, shape, drafting, processor, noise)
        for b, hint in hints.items():
            drafts[b] = hint.draft
        batch = draft_batch(first, running, drafts)
        if self._readings is not None:
            batch = self._readings.asking(batch)
        self._marks.note("other")
        scores = self.target.score(self._cache, batch)
        logits = scores.logits  # [T, V]
        self._marks.note("score")
        broken = broken_rows(logits)
        round_ = Round(running, drafts, logits, processor, noise)
        commits = self._verify(round_)
        if broken is not None:
            at = zip(round_.starts.tolist(), commits, strict=True)
            bad = [broken[start + np.array(commit.path)].any() for start, commit in at]
            self._fail(sequence for sequence, b in zip(running, bad, strict=True) if b)
        self._marks.note("verify")
        for row, commit in enumerate(commits, first):
            self._cache.commit(row, np.array(commit.path, dtype=np.int64))
        if self._readings is not None:
            self._readings.of_round(round_, commits, scores)
        self._learn(round_, commits, drafting)
        for b, hint in hints.items():
            self._hints.observe(running[b], hint, commits[b].num_accepted)
        name = self.drafter.name if self.drafter else ""
        sources = [hints[b].source if b in hints else name for b in range(len(running))]
        self._updates.note_round(round_, commits, sources)
        note_round(round_, commits, sources, self._marks)
        results = self._finish()
        self._marks.note("other")
        self._turns.book_transfer("other", self._marks)
        if planned:
            self.sizing.observe_round(self._marks.round_s())
        return results

    def _fail(self, sequences: Iterable[Sequence]) -> None:
        """End requests whose tokens were chosen from NaN or infinite scores."""
        for sequence in sequences:
            sequence.fail(told(self.name, self.target.dtype))

    def _draft(
        self,
        running: list[Sequence],
        shape: Shape,
        drafting: list[int],
        processor: Processor,
        noise: RoundNoise,
    ) -> list[Draft]:
        drafts = [EMPTY] * len(running)
        if not drafting or self.drafter is None:
            return drafts
        context = DraftContext(
            processor, noise, np.array(drafting), sampled=RULES[self.rule].sampled
        )
        passes = self.drafter.passes
        made = self.drafter.propose([running[b] for b in drafting], shape, context)
        for b, draft in zip(drafting, made, strict=True):
            drafts[b] = draft
        self._marks.note("draft")
        self._turns.book_transfer("draft", self._marks)
        self._sums.add(draft_passes=self.drafter.passes - passes)
        return drafts

    def _learn(self, round_: Round, commits: list[Commit], drafting: list[int]) -> None:
        """Update counters, sizing and drafter; record logprobs."""
        asked, depths = set(drafting), round_.form.depths
        for b, (sequence, commit) in enumerate(zip(round_.sequences, commits, strict=True)):
            sequence.rounds += 1
            if b in asked:
                ended = sequence.finish_reason is not None
                self.sizing.observe(depths[b], commit.num_accepted, ended=ended)
            if depths[b]:
                nodes = len(round_.drafts[b])
                sequence.note_draft(nodes, depths[b], commit.num_accepted)
                self._sums.add_draft(nodes, depths[b], commit.num_accepted)
            if sequence.request.sampling.logprobs is not None:
                sequence.logprobs += token_logprobs(round_, b, commit)
        if self.drafter is not None:
            self.drafter.observe(round_, commits)
        tokens = sum([len(commit.tokens) for commit in commits])
        self._sums.add(rounds=1, round_rows=len(commits), target_passes=1, tokens=tokens)

    def _finish(self) -> list[Result]:
        ended = [s for s in self._rows.running if s.finish_reason is not None]
        if not ended:
            return []
        for sequence in ended:
            self._release(sequence)
        exact = exactness(self.rule, self.target.schedule, steady=self.target.steady)
        return [s.result(exact) for s in ended]

    def _release(self, sequence: Sequence) -> None:
        self._rows.release(sequence)
        self._give_way(sequence)
        self._forget(sequence.id)
        self._noise.forget(sequence.request.seed)

    def _forget(self, request_id: str) -> None:
        self._ids.discard(request_id)
        self._hints.forget(request_id)
        self._updates.end(request_id)
        if self._readings is not None:
            self._readings.forget(request_id)
