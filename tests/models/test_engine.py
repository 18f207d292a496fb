"""From a configuration to a running loop: what is refused, and a real decoder under the loop."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers import models as token_models

from models.drafting.draft import NOTHING, Shape
from models.drafting.sizing.controller import Controller
from models.drafting.sizing.sizing import FixedSize
from models.engine import EngineConfig, build_loop, change_drafter
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.targets.load import load_target
from models.targets.vocabulary import same_vocabulary
from tests.models import checkpoints

REFUSED = {
    "verify": "exact",
    "dtype": "int8",
    "device": "tpu",
    "batch_size": 0,
    "prefill_chunk": 0,
    "draft_tokens": 65,
    "draft_width": 9,
}


def save_tokenizer(folder, *, swapped=False):
    """One token a letter; `swapped`: two of them the other way round."""
    tokens = [chr(0x4E00 + i) for i in range(checkpoints.VOCABULARY)]
    if swapped:
        tokens[5], tokens[6] = tokens[6], tokens[5]
    made = Tokenizer(
        token_models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=tokens[0])
    )
    made.decoder = decoders.Fuse()
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folders of a target and a draft that is the target with some noise on it."""
    target, draft = (tmp_path_factory.mktemp(name) for name in ("target", "draft"))
    model = checkpoints.save(target, "llama3")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(draft)
    for folder in (target, draft):
        save_tokenizer(folder)
    return str(target), str(draft)


def config_of(pair, **options):
    return EngineConfig(target=pair[0], **{"batch_size": 4, "max_length": 160, **options})


def requests():
    settings = [
        {"temperature": 0},
        {},
        {"temperature": 0.7, "top_p": 0.95},
        {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
        {"top_k": 20, "min_p": 0.02},
    ]
    return [
        Request(
            id=str(i),
            prompt=tuple((i * 31 + j * (j % 7)) % checkpoints.VOCABULARY for j in range(1 + 9 * i)),
            sampling=Sampling(max_tokens=24, ignore_eos=True, **settings[i % 5]),
            seed=i,
        )
        for i in range(10)
    ]


def outcome(config):
    loop = build_loop(config)
    with torch.inference_mode():
        results = loop.run(requests())
    return {r.id: r.tokens for r in results}, loop.figures()


@pytest.fixture(scope="module")
def plain(pair):
    return outcome(config_of(pair, batch_size=1))[0]


DRAFTING = {
    "plain": {},
    "lookup": {"drafter": "lookup", "draft_tokens": 4},
    "chain": {"drafter": "model", "draft_tokens": 3},
    "tree": {"drafter": "model", "draft_tokens": 3, "draft_width": 4},
    "part of a tree": {
        "drafter": "model",
        "draft_tokens": 4,
        "draft_width": 3,
        "draft_nodes": 5,
    },
    "auto": {"drafter": "model"},
    "auto lookup": {"drafter": "lookup"},
    "small chunks": {"drafter": "model", "draft_tokens": 2, "prefill_chunk": 7},
}


@pytest.mark.parametrize("name", DRAFTING)
def test_the_decoder_gives_the_tokens_of_plain_decoding(pair, plain, name):
    options = dict(DRAFTING[name])
    if options.get("drafter") == "model":
        options["drafter"] = pair[1]
    found, figures = outcome(config_of(pair, **options))
    assert found == plain
    if options.get("drafter") == pair[1]:
        assert figures.accepted > 0


def test_a_running_loop_changes_its_drafter(pair, plain):
    loop = build_loop(config_of(pair, drafter="lookup"))
    for request in requests():
        loop.submit(request)
    with torch.inference_mode():
        results = [result for _ in range(8) for result in loop.step()]
        change_drafter(loop, config_of(pair, drafter=pair[1]))
        assert loop.figures().draft_passes == 0
        results += loop.run([])
    assert {r.id: r.tokens for r in results} == plain
    assert loop.figures().draft_passes > 0


@pytest.mark.parametrize(
    ("began", "memory", "then", "told"),
    [
        ("none", None, "lookup", "a loop that began with one"),
        ("lookup", None, "none", "a loop that began with one"),
        ("lookup", "16MiB", "model", "at most 0 bytes of KV cache a token"),
    ],
)
def test_a_drafter_that_a_running_loop_cannot_change_to(pair, began, memory, then, told):
    loop = build_loop(config_of(pair, drafter=began, memory=memory))
    config = config_of(pair, drafter=pair[1] if then == "model" else then, memory=memory)
    with pytest.raises(InvalidOption, match=told):
        change_drafter(loop, config)
    assert len(loop.run(requests()[:1])) == 1


def test_loops_share_a_target(pair, plain):
    """Step by step in turn: each has a cache of its own."""
    target = load_target(pair[0], dtype=torch.float32, device="cpu")
    loops = [build_loop(config_of(pair, batch_size=size), target=target) for size in (1, 3)]
    found = [{}, {}]
    for loop in loops:
        for request in requests():
            loop.submit(request)
    with torch.inference_mode():
        while any(loop.num_unfinished for loop in loops):
            for loop, tokens in zip(loops, found, strict=True):
                tokens.update({r.id: r.tokens for r in loop.step()})
    assert found == [plain, plain]
    assert loops[0].target is loops[1].target is target


# What is refused


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_out_of_range(name):
    with pytest.raises(InvalidOption, match=f"^{name}="):
        EngineConfig(target="somewhere", **{name: REFUSED[name]})


@pytest.mark.parametrize(
    "options", [{"drafter": "lookup"}, {"drafter": "none"}, {"drafter": "x", "verify": "block"}]
)
def test_a_tree_needs_a_draft_model_and_match(options):
    with pytest.raises(InvalidOption, match="draft_width=2"):
        EngineConfig(target="somewhere", draft_width=2, **options)
    assert EngineConfig(target="somewhere", **options).max_width == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "draft_nodes=9.*number for draft_tokens"),
        ({"draft_tokens": 4, "draft_width": 1}, "draft_nodes=9.*number for draft_tokens"),
        ({"draft_width": 4}, "draft_nodes=9.*number for draft_tokens"),
        ({"draft_tokens": 4, "draft_width": 2}, "draft_nodes=9.*1 to 8"),
    ],
)
def test_some_nodes_of_a_tree_of_a_fixed_size_only(options, told):
    with pytest.raises(InvalidOption, match=told):
        EngineConfig(target="somewhere", drafter="x", draft_nodes=9, **options)
    EngineConfig(target="somewhere", drafter="x", draft_nodes=9, draft_tokens=3, draft_width=3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"drafter": "sjd", "coupling": "gumbel"}, "coupling='gumbel'.*mc-sjd"),
        ({"drafter": "mc-sjd", "coupling": "shared"}, "coupling='shared'.*maximal"),
        ({"drafter": "jacobi", "start": "below"}, "start='below'.*uniform"),
        ({"drafter": "lookup", "start": "uniform"}, "start='uniform'.*jacobi"),
        ({"drafter": "jacobi", "verify": "rejection"}, "verify='rejection'.*match"),
        ({"drafter": "sjd", "verify": "block"}, "verify='block'.*rejection"),
        ({"drafter": "jacobi", "draft_width": 2}, "draft_width=2"),
        ({"drafter": "mc-sjd", "draft_width": 2}, "draft_width=2"),
    ],
)
def test_what_a_parallel_decoder_cannot_do(options, told):
    with pytest.raises(InvalidOption, match=told):
        EngineConfig(target="somewhere", **options)


def test_the_rule_follows_the_decoder(pair):
    rules = {"jacobi": "match", "sjd": "rejection", "mc-sjd": "rejection", "lookup": "match"}
    for drafter, rule in rules.items():
        assert EngineConfig(target="somewhere", drafter=drafter).rule == rule
    fixed = sizing_of(pair, drafter="sjd")
    assert fixed.plan(0)[0] == Shape(depth=16)


def test_text_has_no_rows_to_copy_from(pair):
    with pytest.raises(InvalidOption, match=r"start='above'.*no grid"):
        build_loop(config_of(pair, drafter="jacobi", start="above"))


def test_a_length_beyond_the_context(pair):
    with pytest.raises(InvalidOption, match=r"max_length=513.*context of 512"):
        build_loop(config_of(pair, max_length=513))


def test_a_draft_with_another_tokenizer(pair, tmp_path):
    other = tmp_path / "draft"
    shutil.copytree(pair[1], other)
    save_tokenizer(other, swapped=True)
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizers of draft .* differ: token"):
        build_loop(config_of(pair, drafter=str(other)))
    same_vocabulary(pair[0], pair[1])
    (other / "tokenizer.json").unlink()
    same_vocabulary(pair[0], str(other))  # nothing to compare: sizes decide


def test_a_draft_whose_context_is_too_short(pair, tmp_path):
    other = tmp_path / "draft"
    shutil.copytree(pair[1], other)
    settings = json.loads((other / "config.json").read_text())
    settings["max_position_embeddings"] = 100
    (other / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UnsupportedCheckpoint, match="context of 100 tokens; 160 are needed"):
        build_loop(config_of(pair, drafter=str(other)))


# What is chosen


def sizing_of(pair, **options):
    return build_loop(config_of(pair, **options)).sizing


def test_the_size_is_the_user_s_or_the_controller_s(pair):
    assert sizing_of(pair).plan(0) == (NOTHING, [])
    fixed = sizing_of(pair, drafter="lookup", draft_tokens=5)
    assert isinstance(fixed, FixedSize)
    assert fixed.plan(0)[0] == Shape(depth=5)
    assert isinstance(sizing_of(pair, drafter=pair[1]), Controller)
    assert isinstance(sizing_of(pair, drafter="lookup"), Controller)


def test_stop_strings_use_the_checkpoint_s_tokenizer(pair, plain):
    tokens = plain["1"]
    stop = chr(0x4E00 + tokens[4]) + chr(0x4E00 + tokens[5])
    request = requests()[1]
    sampling = Sampling(max_tokens=24, ignore_eos=True, stop=(stop,))
    with torch.inference_mode():
        result = build_loop(config_of(pair)).run(
            [Request(id="1", prompt=request.prompt, sampling=sampling, seed=1)]
        )[0]
    assert result.finish_reason == "stop"
    assert result.stop_text == stop
    assert result.tokens == tokens[: len(result.tokens)]
    assert len(result.tokens) <= 6


def test_memory_is_known_before_a_request_comes(pair):
    small, large = (build_loop(config_of(pair, batch_size=n)).cache_bytes for n in (2, 8))
    assert large == 4 * small
    # 2 (keys, values) x 3 layers x 2 heads x 16 wide x 4 bytes for each of 160 + 1 entries
    assert small == pytest.approx(2 * 161 * 2 * 3 * 2 * 16 * 4, rel=0.2)
