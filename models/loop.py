"""The token loop: many requests, one target, one drafter, round after round.

    plan how much to draft -> draft -> score with one forward pass -> verify -> commit

Requests join and leave at every step. Cache rows 0..R-1 belong to the requests that decode, the
rows behind them to those whose prompts are still being read.
"""

import time
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Several
from itertools import zip_longest
from typing import Protocol

import numpy as np

from models.batch import Batch, Ints
from models.draft import EMPTY, NOTHING, Draft, Shape, depths, visibility
from models.drafters.base import DraftContext, Drafter
from models.errors import InvalidRequest
from models.figures import Figures
from models.logprobs import token_logprobs
from models.noise import NoiseStore
from models.processing import Processor
from models.request import Request, Result
from models.sequence import Decode, Sequence
from models.target import Target
from models.verify import EXACTNESS, RULES, Commit, Round, RoundNoise


class Sizing(Protocol):
    """Chooses how much to draft; see models/controller.py."""

    def plan(self, sequences: Several[Sequence]) -> tuple[Shape, list[int]]: ...
    def observe(self, sequence: Sequence, shape: Shape, depth: int, accepted: int) -> None: ...
    def observe_round(self, shape: Shape, rows: int, nodes: int, seconds: float) -> None: ...
    def forget(self, request_id: str) -> None: ...


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
    ) -> None:
        """Allocate the cache: `rows` requests of at most `max_length` tokens, and `scratch` nodes.

        `decode` turns token ids into text; only needed by requests with stop strings.
        """
        self.target, self.drafter, self.sizing = target, drafter, sizing
        self.rule, self._verify = verify, RULES[verify]
        self.max_length, self._chunk, self._decode = max_length, prefill_chunk, decode
        self._cache = target.new_cache(rows, max_length + scratch)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # row = index
        self._reading: list[Sequence] = []  # row = len(running) + index
        self._sums: dict[str, float | tuple[int, ...]] = {}
        self._ids: set[str] = set()  # of requests that have not ended
        self._processors: dict[int, tuple[list[Sequence], Processor]] = {}  # by first row
        self._turn = 0
        self._noise = NoiseStore(target.vocab_size, target.device)
        self._transferred_s = 0.0
        self._marks = _Stopwatch()

    # --- requests -----------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Queue a request. Raises InvalidRequest if it can never run here."""
        self._check(request)
        self._ids.add(request.id)
        self._waiting.append(Sequence(request, eos=self.target.eos_token_ids, decode=self._decode))

    def _check(self, request: Request) -> None:
        if request.id in self._ids:
            raise InvalidRequest(f"request {request.id!r} is already running: ids must differ")
        if not 0 <= request.seed < 2**63:
            raise InvalidRequest(
                f"request {request.id!r}: seed {request.seed} is not in 0..2**63 - 1"
            )
        if not request.prompt:
            raise InvalidRequest(
                f"request {request.id!r}: the prompt is empty; give a token or more"
            )
        total = len(request.prompt) + request.sampling.max_tokens
        if total > self.max_length:
            raise InvalidRequest(
                f"request {request.id!r}: prompt of {len(request.prompt)} tokens and max_tokens="
                f"{request.sampling.max_tokens} make {total}; at most {self.max_length} fit"
            )
        size = self.target.input_size
        bad = [t for t in request.prompt if not 0 <= t < size]
        if bad:
            raise InvalidRequest(f"request {request.id!r}: token {bad[0]} is not in 0..{size - 1}")
        size = self.target.vocab_size
        named = [*request.sampling.logit_bias, *request.sampling.stop_token_ids]
        bad = [t for t in named if not 0 <= t < size]
        if bad:
            raise InvalidRequest(
                f"request {request.id!r}: logit_bias or stop_token_ids name token {bad[0]}, "
                f"which is not in 0..{size - 1}"
            )
        if request.sampling.stop and self._decode is None:
            raise InvalidRequest(f"request {request.id!r}: stop strings need a tokenizer")

    def cancel(self, request_id: str) -> bool:
        """Drop a request and free its row; False if it is not here."""
        for sequence in self._waiting:
            if sequence.id == request_id:
                self._waiting.remove(sequence)
                self._ids.discard(request_id)
                return True
        for sequence in [*self._running, *self._reading]:
            if sequence.id == request_id:
                self._release(sequence)
                return True
        return False

    @property
    def num_unfinished(self) -> int:
        return len(self._waiting) + len(self._running) + len(self._reading)

    @property
    def cache_bytes(self) -> int:
        return self._cache.num_bytes

    def figures(self) -> Figures:
        """What was counted since the last reset."""
        return Figures(**self._sums)  # type: ignore[arg-type]

    def reset_figures(self) -> None:
        self._sums = {}

    def describe(self) -> dict[str, object]:
        """The target and how it runs, for summaries."""
        return {
            "architecture": self.target.architecture,
            "adapted": self.target.adapted,
            "parameters": self.target.num_parameters,
            "vocabulary": self.target.vocab_size,
            "context_length": self.target.context_length,
            "drafter": self.drafter.name if self.drafter else "none",
            "verify": self.rule,
            "noise": "gumbel",
            "cache_bytes": self.cache_bytes,
        }

    def run(self, requests: Iterable[Request]) -> list[Result]:
        """Submit all, step until all have ended; results in the order of ending."""
        for request in requests:
            self.submit(request)
        results: list[Result] = []
        while self.num_unfinished:
            results += self.step()
        return results

    # --- one step -----------------------------------------------------------------------------

    def step(self) -> list[Result]:
        """Read one chunk of a waiting prompt, then decode one round; the requests that ended."""
        self._marks.start()
        self._admit()
        self._read_prompts()
        results = self._round() if self._running else []
        self._count(**self._marks.totals())
        return results

    def _admit(self) -> None:
        while self._waiting and len(self._running) + len(self._reading) < self._cache.rows:
            self._reading.append(self._waiting.popleft())

    def _read_prompts(self) -> None:
        """One chunk of prompts; more while nothing decodes that could be stalled."""
        while self._reading:
            self._read_chunk(len(self._running))
            while self._reading and self._is_read(len(self._running), self._reading[0]):
                self._running.append(self._reading.pop(0))
            if self._running:
                break
        self._marks.note("prefill")

    def _is_read(self, row: int, sequence: Sequence) -> bool:
        """All but the last prompt token are in the cache; that one is the first round's root."""
        return int(self._cache.lengths[row]) == len(sequence.tokens) - 1

    def _read_chunk(self, first: int) -> None:
        """Read up to a chunk of tokens in one pass, of one prompt or of several short ones."""
        left, pieces = self._chunk, []
        for row, sequence in enumerate(self._reading, first):
            begin = int(self._cache.lengths[row])
            tokens = sequence.tokens[begin : min(len(sequence.tokens) - 1, begin + left)]
            if tokens:
                pieces.append((row, tokens))
            left -= len(tokens)
            if left <= 0:
                break
        if not pieces:
            return
        self.target.score(self._cache, _prompt_batch(pieces))
        for row, tokens in pieces:
            self._cache.commit(row, np.arange(len(tokens)))
        read = sum(len(tokens) for _, tokens in pieces)
        self._count(prefill_passes=1, prompt_tokens=read)

    def _round(self) -> list[Result]:
        first, running = self._group()
        shape, drafting = (NOTHING, []) if self.drafter is None else self.sizing.plan(running)
        processor = self._processor_of(first, running)
        noise = RoundNoise(running, self._noise)
        self._marks.note("other")
        drafts = self._draft(running, shape, drafting, processor, noise)
        batch = self._batch(first, running, drafts)
        self._marks.note("other")
        logits = self.target.score(self._cache, batch).logits  # [T, V]
        self._marks.note("score")
        round_ = Round(running, drafts, logits, processor, noise)
        commits = self._verify(round_)
        self._marks.note("verify")
        for row, commit in enumerate(commits, first):
            self._cache.commit(row, np.array(commit.path, dtype=np.int64))
        self._learn(round_, commits, shape, drafting)
        results = self._finish()
        self._marks.note("other")
        self._book_transfer("other")
        nodes = len(batch.tokens)
        self.sizing.observe_round(shape, len(running), nodes, self._marks.round_s())
        return results

    def _group(self) -> tuple[int, list[Sequence]]:
        """The rows of this round: first row and requests.

        With a drafter elsewhere the halves of the batch take turns, so that one is drafted for
        while the other is verified.
        """
        count = len(self._running)
        if self.drafter is None or not self.drafter.remote or count == 1:
            return 0, list(self._running)
        half = (count + 1) // 2
        self._turn = 1 - self._turn
        return (0, self._running[:half]) if self._turn else (half, self._running[half:])

    def _processor_of(self, first: int, running: list[Sequence]) -> Processor:
        """Kept while the group has the same members in the same order."""
        known = self._processors.get(first)
        if known is None or known[0] != running:
            made = Processor(running, self.target.vocab_size, self.target.device)
            # Others that hold one of these requests would miss what it generates from now on.
            others = self._processors.items()
            self._processors = {row: o for row, o in others if not set(running) & set(o[0])}
            self._processors[first] = known = (list(running), made)
        return known[1]

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
        context = DraftContext(processor, noise, np.array(drafting), sampled=self.rule != "match")
        passes = self.drafter.passes
        made = self.drafter.propose([running[b] for b in drafting], shape, context)
        for b, draft in zip(drafting, made, strict=True):
            drafts[b] = draft
        self._marks.note("draft")
        self._book_transfer("draft")
        self._count(draft_passes=self.drafter.passes - passes)
        return drafts

    def _batch(self, first: int, running: list[Sequence], drafts: list[Draft]) -> Batch:
        """Each row's root (its last token, not in the cache yet) and draft."""
        counts = np.array([len(d) + 1 for d in drafts], dtype=np.int64)
        tokens, levels, visible = [], [], []
        for sequence, draft in zip(running, drafts, strict=True):
            tokens += [sequence.tokens[-1], *draft.tokens.tolist()]
            is_chain = draft.is_chain
            levels.append(np.arange(len(draft) + 1) if is_chain else _levels(draft))
            visible.append(None if is_chain else visibility(draft.parents))
        return Batch(
            rows=np.arange(first, first + len(drafts)),
            counts=counts,
            tokens=np.array(tokens, dtype=np.int64),
            depths=np.concatenate(levels),
            visible=tuple(visible),
        )

    def _learn(
        self, round_: Round, commits: list[Commit], shape: Shape, drafting: list[int]
    ) -> None:
        """Count, tell the sizing and the drafter, record logprobs."""
        accepted = drafted = 0
        asked = set(drafting)
        by_depth = np.zeros((2, max(shape.depth, 1)), dtype=np.int64)
        for b, (sequence, draft, commit) in enumerate(
            zip(round_.sequences, round_.drafts, commits, strict=True)
        ):
            sequence.rounds += 1
            sequence.drafted += len(draft)
            depth = int(depths(draft.parents)[-1]) if not draft.is_chain else len(draft)
            if b in asked:
                self.sizing.observe(sequence, shape, depth, commit.num_accepted)
            if depth:
                by_depth[0, :depth] += 1
                by_depth[1, : commit.num_accepted] += 1
                accepted, drafted = accepted + commit.num_accepted, drafted + len(draft)
            if sequence.request.sampling.logprobs is not None:
                sequence.logprobs += token_logprobs(round_, b, commit)
        if self.drafter is not None:
            self.drafter.observe(round_, commits)
        width = shape.depth
        self._count(
            rounds=1,
            round_rows=len(commits),
            target_passes=1,
            tokens=sum(len(c.tokens) for c in commits),
            accepted=accepted,
            drafted=drafted,
            drafted_by_position=tuple(by_depth[0, :width].tolist()),
            accepted_by_position=tuple(by_depth[1, :width].tolist()),
        )

    def _book_transfer(self, part: str) -> None:
        """Move what a remote drafter spent on messages out of `part`."""
        if self.drafter is not None and self.drafter.remote:
            total = self.drafter.transfer_s
            self._marks.shift(part, "transfer", total - self._transferred_s)
            self._transferred_s = total

    def _finish(self) -> list[Result]:
        ended = [s for s in self._running if s.finish_reason is not None]
        for sequence in ended:
            self._release(sequence)
        return [s.result(EXACTNESS[self.rule]) for s in ended]

    def _release(self, sequence: Sequence) -> None:
        """Free the row; the rows stay dense by moving the last ones into the gap."""
        gap = self._gap(sequence)
        last = len(self._running) + len(self._reading)
        self._cache.truncate(gap, 0)
        if gap != last:
            self._cache.move(last, gap)
        if self.drafter is not None:
            self.drafter.forget(sequence.id)
        self.sizing.forget(sequence.id)
        self._ids.discard(sequence.id)
        self._noise.forget(sequence.request.seed)

    def _gap(self, sequence: Sequence) -> int:
        """Take the request off its list; the row that has become free."""
        if sequence in self._reading:
            place = self._reading.index(sequence)
            self._reading[place] = self._reading[-1]
            self._reading.pop()
            return len(self._running) + place
        row, last = self._running.index(sequence), len(self._running) - 1
        self._running[row] = self._running[last]
        self._running.pop()
        if row != last:
            self._cache.truncate(row, 0)
            self._cache.move(last, row)
        if self._reading:  # their rows now begin at `last`: the last of them moves to the front
            self._reading.insert(0, self._reading.pop())
        return last

    def _count(self, **values: float | tuple[int, ...]) -> None:
        sums = self._sums
        for name, value in values.items():
            if isinstance(value, tuple):
                old = sums.get(name, ())
                sums[name] = tuple(a + b for a, b in zip_longest(old, value, fillvalue=0))  # type: ignore[arg-type]
            else:
                sums[name] = sums.get(name, 0) + value  # type: ignore[operator]


def _levels(draft: Draft) -> Ints:
    return np.concatenate([[0], depths(draft.parents)])


def _prompt_batch(pieces: list[tuple[int, list[int]]]) -> Batch:
    """One pass over pieces of prompts, (row, tokens) each; no logits are wanted."""
    counts = np.array([len(tokens) for _, tokens in pieces], dtype=np.int64)
    return Batch(
        rows=np.array([row for row, _ in pieces], dtype=np.int64),
        counts=counts,
        tokens=np.concatenate([np.array(tokens, dtype=np.int64) for _, tokens in pieces]),
        depths=np.concatenate([np.arange(count) for count in counts]),
        visible=(None,) * len(pieces),
        wanted=np.zeros(0, dtype=np.int64),
    )


class _Stopwatch:
    """Where the time of a step went: each `note` books the time since the last one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        self._seconds, self._last = {}, time.perf_counter()

    def note(self, part: str) -> float:
        now = time.perf_counter()
        spent, self._last = now - self._last, now
        self._seconds[part] = self._seconds.get(part, 0.0) + spent
        return spent

    def shift(self, source: str, destination: str, seconds: float) -> None:
        """Book time noted under one part under another."""
        seconds = min(seconds, self._seconds.get(source, 0.0))
        self._seconds[source] -= seconds
        self._seconds[destination] = self._seconds.get(destination, 0.0) + seconds

    def round_s(self) -> float:
        """Of the step so far, all but the reading of prompts."""
        return sum(s for part, s in self._seconds.items() if part != "prefill")

    def totals(self) -> dict[str, float]:
        return {f"{part}_s": seconds for part, seconds in self._seconds.items()}
