"""EAGLE-3 drafters share the entries of prompts: same tokens, same drafts, same entries as cold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import chain
from models.drafting.draft import NOTHING, Shape
from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.medusa_model import MedusaModel
from models.drafting.reading import Reading
from models.drafting.sizing.sizing import FixedSize
from models.memory.blocks import BLOCK
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.targets.decoder.decoder import Decoder
from tests.models.drafting.heads.random_heads import LAYER, TARGET, eagle_head, medusa_head
from tests.models.looping import loop_of, run_alone, tokens_of

CPU = torch.device("cpu")
VOCAB, CONTEXT = TARGET.vocab_size, 8 * BLOCK
RNG = np.random.default_rng(5)
PROMPT = tuple(RNG.integers(1, VOCAB, 3 * BLOCK + 20).tolist())
OPTIONS = {"max_length": 6 * BLOCK, "scratch": 20, "decode": None}
SHAPES = {"chain": Shape(depth=3), "tree": Shape(depth=3, width=3)}


class Watched(EagleDrafter):
    """Keeps what it drafted, by request and length, the entries of requests that ended, and how
    many of them each began with.
    """

    def __init__(self, model, **options):
        super().__init__(model, **options)
        self.drafts, self.entries, self.begun = {}, {}, []

    def begin(self, sequence):
        self.begun.append(super().begin(sequence))
        return self.begun[-1]

    def propose(self, sequences, shape, context):
        made = super().propose(sequences, shape, context)
        for sequence, draft in zip(sequences, made, strict=True):
            if len(draft):
                told = (draft.tokens.tolist(), draft.parents.tolist())
                self.drafts[sequence.id, len(sequence.tokens)] = told
        return made

    def forget(self, request_id):
        if request_id in self._rows:
            self.entries.setdefault(request_id, []).append(self._held(self._rows[request_id].slot))
        super().forget(request_id)

    def _held(self, slot):
        """[2, Hkv, P, D]"""
        places = np.arange(int(self._cache.lengths[slot]))
        slots = torch.from_numpy(self._cache.slots(slot, places))
        return self._cache.kv.flatten(3, 4)[0][:, :, slots].clone()


def eagle(rows=4, entries=None, seed=1):
    head = eagle_head(seed=seed, layer=replace(LAYER, context_length=CONTEXT))
    model = EagleModel(head, dtype=torch.float32, device=CPU)
    return Watched(model, rows=rows, capacity=CONTEXT, entries=entries)


@pytest.fixture(scope="module")
def target(arithmetic_of_module):
    return Decoder.from_config(replace(TARGET, tied=False, context_length=CONTEXT), seed=3)


def loop_over(target, shape="chain", *, rows=4, entries=None, chunk=256):
    made = (lambda: eagle(rows, entries), SHAPES[shape])
    return loop_of(made, target=target, rows=rows, entries=entries, chunk=chunk, **OPTIONS)


def asked(name, prompt, length=12, salt=b"", seed=1, temperature=2.0):
    sampling = Sampling(max_tokens=length, temperature=temperature, ignore_eos=True)
    return Request(id=name, prompt=prompt, sampling=sampling, seed=seed, cache_salt=salt)


def run_cold(target, requests, shape="chain"):
    """Each request in a loop of its own: its result, and its drafts."""
    results, drafts = {}, {}
    for request in requests:
        loop = loop_over(target, shape, rows=1)
        (results[request.id],) = loop.run([request])
        assert loop.figures().prefix_hit_tokens == 0
        drafts |= loop.drafter.drafts
    return results, drafts


def read_once(target, text, seed=1):
    """The drafter's entries of a text, read in one piece."""
    drafter = eagle(rows=1, seed=seed)
    batch = replace(chain(0, np.array(text[:-1])), readout=drafter.wants)
    states = target.score(target.new_cache(1, CONTEXT), batch).states
    sequence = Sequence(Request(id="a", prompt=tuple(text), sampling=Sampling(), seed=0))
    drafter.read([Reading(sequence=sequence, first=0, states=states, top=None)])
    drafter.forget("a")
    return drafter.entries["a"][0]


def assert_entries(target, drafter, texts, seed=1):
    """The drafter's entries are those of reading the texts once: how many were compared."""
    count = 0
    for name, held in drafter.entries.items():
        expected = read_once(target, texts[name], seed)
        for entries in held:
            shared = min(entries.shape[2], expected.shape[2])
            if target.steady:
                assert torch.equal(entries[:, :, :shared], expected[:, :, :shared])
            torch.testing.assert_close(entries[:, :, :shared], expected[:, :, :shared])
            count += shared
    return count


def texts_of(requests, results):
    return {r.id: [*r.prompt, *results[r.id].tokens] for r in requests}


def assert_same_drafts(target, found, expected):
    """To the bit where sums do not depend on the batch; else a close call may fall otherwise."""
    common = found.keys() & expected.keys()
    same = sum(found[key] == expected[key] for key in common)
    assert same >= (1.0 if target.steady else 0.98) * len(common)
    return len(common)


def accepted(result):
    return result.accepted_length, result.accepted_histogram, result.target_passes


def assert_as_cold(target, loop, requests, results, shape="chain"):
    cold, drafts = run_cold(target, requests, shape)
    assert tokens_of(results) == tokens_of(cold.values())
    if target.steady:
        assert loop.drafter.drafts == drafts
        for result in results:
            assert accepted(result) == accepted(cold[result.id])
    assert assert_same_drafts(target, loop.drafter.drafts, drafts) > len(requests)
    assert loop.figures().accepted > len(requests)
    assert_entries(target, loop.drafter, texts_of(requests, cold))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompt_in_memory_is_not_read_again(target, shape):
    loop = loop_over(target, shape)
    requests = [asked(str(i), (*PROMPT, i), seed=i) for i in range(3)]
    results = [loop.run([request])[0] for request in requests]
    assert [result.cached_tokens for result in results] == [0, 3 * BLOCK, 3 * BLOCK]
    assert_as_cold(target, loop, requests, results, shape)


def test_samples_of_one_prompt_read_it_once(target):
    loop = loop_over(target)
    requests = [asked(str(i), PROMPT, seed=i) for i in range(4)]
    results = loop.run(requests)
    figures, whole = loop.figures(), len(PROMPT) - 1
    # The state before the last token comes from the target, for the first draft.
    assert figures.prefix_hit_tokens == 3 * (whole - 1)
    assert figures.prompt_tokens == whole + 3
    assert_as_cold(target, loop, requests, results)


@pytest.mark.parametrize(("same", "hit"), [(BLOCK, 0), (BLOCK + 1, BLOCK), (2 * BLOCK, BLOCK)])
def test_a_block_needs_the_token_after_it(target, same, hit):
    loop = loop_over(target)
    other = (PROMPT[same] + 1) % VOCAB
    requests = [
        asked("0", PROMPT[:-1]),
        asked("1", (*PROMPT[:same], other, *PROMPT[same + 1 :])),
    ]
    results = [loop.run([request])[0] for request in requests]
    assert [result.cached_tokens for result in results] == [0, hit]
    assert_as_cold(target, loop, requests, results)


def test_a_first_token_that_differs_shares_nothing(target):
    loop = loop_over(target)
    requests = [asked(str(i), (i, *PROMPT[1:])) for i in (1, 2)]
    results = [loop.run([request])[0] for request in requests]
    assert [result.cached_tokens for result in results] == [0, 0]
    assert_as_cold(target, loop, requests, results)


def test_a_chat_continues_where_it_was(target):
    """The completion's blocks are found again when it is part of the next prompt."""
    loop = loop_over(target)
    first = asked("first", PROMPT, length=60)
    (answer,) = loop.run([first])
    further = asked("next", (*PROMPT, *answer.tokens, 1, 2, 3))
    (result,) = loop.run([further])
    assert result.cached_tokens == 4 * BLOCK > len(PROMPT)
    assert_as_cold(target, loop, [first, further], [answer, result])


def test_salts_keep_texts_apart(target):
    loop, salts = loop_over(target), [b"a", b"a", b"b", b"", b"b", b""]
    requests = [asked(str(i), PROMPT, salt=salt) for i, salt in enumerate(salts)]
    results = [loop.run([request])[0] for request in requests]
    cached = [result.cached_tokens for result in results]
    assert cached == loop.drafter.begun == [0, 3 * BLOCK, 0, 0, 3 * BLOCK, 3 * BLOCK]
    assert_as_cold(target, loop, requests, results)


def test_a_request_that_reads_its_whole_prompt_shares_nothing(target):
    """Log-probabilities of a prompt need all of its positions."""
    loop = loop_over(target)
    requests = [asked(str(i), (*PROMPT, i)) for i in range(3)]
    requests[1] = replace(requests[1], prompt_logprobs=1)
    results = [loop.run([request])[0] for request in requests]
    assert [result.cached_tokens for result in results] == [0, 0, 3 * BLOCK]
    assert_as_cold(target, loop, requests, results)


def test_prompts_that_nobody_drafted_for_are_shared_in_whole_blocks(target):
    loop = loop_over(target)
    loop.sizing = FixedSize(NOTHING)
    requests = [asked(str(i), (*PROMPT, i)) for i in range(2)]
    results = loop.run(requests[:1])
    loop.sizing = FixedSize(SHAPES["chain"])
    results += loop.run(requests[1:])
    assert results[1].cached_tokens >= 2 * BLOCK
    cold, drafts = run_cold(target, requests)
    assert tokens_of(results) == tokens_of(cold.values())
    assert assert_same_drafts(target, loop.drafter.drafts, drafts) > 2


def test_each_cache_may_have_lost_what_the_other_has(target):
    prompts = [tuple(RNG.integers(1, VOCAB, 3 * BLOCK + 9).tolist()) for _ in range(3)]
    for room in [(8 * BLOCK, None), (None, 8 * BLOCK)]:
        made = (lambda entries=room[1]: eagle(1, entries), SHAPES["chain"])
        loop = loop_of(made, target=target, rows=1, entries=room[0], **OPTIONS)
        requests = [asked(str(i), prompts[i % 3]) for i in range(7)]
        results = [loop.run([request])[0] for request in requests]
        assert sum(result.cached_tokens for result in results) < 3 * 3 * BLOCK
        assert_as_cold(target, loop, requests, results)


def test_what_is_kept_stays_in_the_pool(target):
    """Texts that came later take the place of those that nobody used: no more memory."""
    entries = 7 * BLOCK
    loop = loop_over(target, rows=2, entries=entries)
    size = loop.drafter._cache.num_bytes
    for turn in range(4):
        prompt = tuple(RNG.integers(1, VOCAB, 3 * BLOCK + 1).tolist())
        results = [loop.run([asked(f"{turn}{i}", (*prompt, i))])[0] for i in range(2)]
        assert [result.cached_tokens for result in results] == [0, 3 * BLOCK]
    assert loop.drafter._cache.num_bytes == size
    assert loop.drafter._cache.num_free == entries


@pytest.mark.parametrize(
    ("shape", "rows", "chunk", "blocks"),
    [
        ("chain", 1, 40, None),
        ("tree", 3, 256, None),
        ("chain", 8, 50, None),
        ("tree", 3, 40, 8),
        ("chain", 8, 256, 9),
    ],
)
def test_shared_prompts_of_all_kinds_at_any_step(target, shape, rows, chunk, blocks):
    """Common beginnings of all lengths, salts, arrivals in any order, too little room, cancels."""
    rng = np.random.default_rng(rows + chunk)
    requests = []
    for i in range(16):
        cut = int(rng.integers(0, len(PROMPT)))
        prompt = (*PROMPT[:cut], *rng.integers(0, VOCAB, int(rng.integers(1, 40))).tolist())
        salt = (b"", b"", b"", b"a")[int(rng.integers(4))]
        length, temperature = int(rng.integers(1, 40)), float(i % 3)
        requests.append(asked(str(i), prompt, length, salt, seed=i, temperature=temperature))
    entries = None if blocks is None else blocks * BLOCK
    loop = loop_over(target, shape, rows=rows, entries=entries, chunk=chunk)
    waiting, results, cancelled = list(requests), [], set()
    while waiting or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 4))):
            if waiting:
                loop.submit(waiting.pop(0))
        held = [*loop._rows.reading, *loop._rows.running, *loop._rows.waiting]
        if rng.random() < 0.08 and held:
            chosen = held[int(rng.integers(len(held)))].id
            cancelled.add(chosen)
            loop.cancel(chosen)
        results += loop.step()
    left = [r for r in requests if r.id not in cancelled]
    cold, drafts = run_cold(target, requests, shape)
    assert tokens_of(results) == tokens_of(cold[r.id] for r in left)
    assert loop.figures().prefix_hit_tokens > BLOCK
    assert loop.figures().accepted > 10
    assert assert_same_drafts(target, loop.drafter.drafts, drafts) > 20
    if target.steady and blocks is None:
        assert loop.drafter.drafts.keys() <= drafts.keys()
        assert all(accepted(result) == accepted(cold[result.id]) for result in results)
    assert assert_entries(target, loop.drafter, texts_of(requests, cold)) > 500
    assert not loop.drafter._rows
    assert sorted(loop.drafter._free) == list(range(rows))
    assert loop.drafter._cache.num_free == loop.drafter._cache._blocks.count * BLOCK


def medusa(rows):
    head = medusa_head()
    return HeadsDrafter(MedusaModel(head, dtype=torch.float32, device=CPU))


NEXT = {
    "the same": lambda rows: eagle(rows),
    "other weights": lambda rows: eagle(rows, seed=2),
    "heads": medusa,
}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("second", NEXT)
@pytest.mark.parametrize("first", ["the same", "heads"])
def test_another_drafter_for_requests_that_began_with_what_was_in_memory(
    target, first, second, begun
):
    """It has read nothing of a prefix that the target has: EAGLE-3 reads it, heads need not."""
    shape, rows = SHAPES["chain"], 3
    loop = loop_of((lambda: NEXT[first](rows), shape), target=target, rows=rows, **OPTIONS)
    before = asked("before", PROMPT)
    loop.run([before] if begun else [])
    requests = [asked(str(i), (*PROMPT[: 70 + 40 * i], 7), 30, seed=i) for i in range(4)]
    for request in requests:
        loop.submit(request)
    results = [result for _ in range(5) for result in loop.step()]
    hits = loop.figures().prefix_hit_tokens
    assert hits > 0
    new = NEXT[second](rows)
    loop.change_drafter(new, FixedSize(shape))
    drafted = loop.figures().accepted
    results += loop.run([])
    expected = run_alone(requests, target=target, **OPTIONS)
    assert tokens_of(results) == tokens_of(expected)
    assert loop.figures().accepted > drafted
    if second == "heads":
        assert loop.figures().prefix_hit_tokens > hits
    else:
        texts = texts_of(requests, {r.id: r for r in expected})
        assert assert_entries(target, new, texts, seed=1 + (second != "the same")) > 100
        again = asked("again", PROMPT)
        (result,) = loop.run([again])
        assert result.cached_tokens > 0
        assert result.tokens == run_alone([again], target=target, **OPTIONS)[0].tokens
