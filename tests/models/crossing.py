"""Random cases in which features of the token loop cross, and what plain decoding says of each.

A case is a seed: a target of some family, a drafter, a loop's sizes, requests of every kind, and
what happens at which step. Each request is compared with plain decoding of it alone, cold.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from llguidance import LLTokenizer, TokenizerWrapper
from torch.nn import functional as F

from models.compute.x86 import kernels
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import Drafter
from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_head import EagleConfig, EagleHead
from models.drafting.heads.eagle_head import shapes as eagle_shapes
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.hydra_head import HydraConfig, HydraHead
from models.drafting.heads.hydra_head import shapes as hydra_shapes
from models.drafting.heads.hydra_model import HydraModel
from models.drafting.heads.medusa_head import MedusaConfig, MedusaHead
from models.drafting.heads.medusa_head import shapes as medusa_shapes
from models.drafting.heads.medusa_model import MedusaModel
from models.drafting.parallel.canvas import CanvasDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.drafting.sizing.sizing import FixedSize
from models.loop.replay import first_difference
from models.loop.token_loop import TokenLoop
from models.memory.blocks import BLOCK, num_blocks
from models.registry import FLOW
from models.requests.constraint import of_choice, of_regex
from models.requests.grammar import Grammars
from models.requests.request import Request, Result, Sampling, TokenLogprob
from models.schedules.schedule import Scales
from models.students.config import MadeFor, StudentConfig
from models.students.networks.frozen import FrozenStudent
from models.students.networks.raster import Student
from models.students.start import student_of
from models.targets.decoder.config import DecoderConfig, GridInput, RotaryConfig
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.inputs import CODEBOOK
from models.targets.decoder.weights import assemble, random_tensor
from models.targets.guided import guide
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_target import NextScaleTarget
from models.targets.target import Target
from models.training.raster import RasterConfig, RasterModel
from tests.models.guessing import Prophet
from tests.models.loop.test_continue import cut
from tests.models.tokenizers import tiny_images

CPU = torch.device("cpu")
CONTEXT = 512
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LLAMA3 = RotaryConfig(kind="llama3", factor=8.0, original_context_length=64)
ROTARIES = (RotaryConfig(), LLAMA3, RotaryConfig(kind="linear", factor=2.0))
STARTS = ("uniform", "left")
DTYPES = (torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16)


# Targets


def spell(tokens: Any) -> str:
    """One or two letters a token, so that a stop string may begin within one."""
    return "".join(piece(int(token)) for token in tokens)


def piece(token: int) -> str:
    return LETTERS[token % 26] * (1 + token // 26 % 2)


class Pieces:
    """What llguidance wants of a tokenizer; the last token is the end."""

    def __init__(self, vocab_size: int) -> None:
        self.eos_token_id, self.bos_token_id = vocab_size - 1, None
        self.special_token_ids = [self.eos_token_id]
        spelled = [piece(token).encode() for token in range(vocab_size - 1)]
        self.tokens = [
            p if p not in spelled[:i] else f"<{i}>".encode() for i, p in enumerate(spelled)
        ] + [b"<|end|>"]

    def __call__(self, text: bytes) -> list[int]:
        return [byte - 97 for byte in text]


@cache
def grammars(vocab_size: int) -> Grammars:
    return Grammars(LLTokenizer(TokenizerWrapper(Pieces(vocab_size))), vocab_size)


def random_config(rng: np.random.Generator, **sizes: Any) -> DecoderConfig:
    """A decoder of any of the families that ours runs."""
    kv_heads, group = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 3, 4]))
    head_dim = int(rng.choice([8, 12, 16, 24]))
    vocab_size = int(rng.choice([11, 27, 30, 52, 150]))
    has_end = rng.random() < 0.7
    return DecoderConfig(
        architecture="LlamaForCausalLM",
        **{
            "vocab_size": vocab_size,
            "width": int(rng.choice([24, 32, 40, 52])),
            "inner_width": int(rng.choice([36, 43, 48, 56])),
            "num_layers": int(rng.choice([1, 2, 3])),
            "num_heads": kv_heads * group,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "context_length": CONTEXT,
            "rotary": ROTARIES[int(rng.integers(len(ROTARIES)))],
            "qkv_bias": bool(rng.random() < 0.3),
            "out_bias": bool(rng.random() < 0.2),
            "mlp_bias": bool(rng.random() < 0.2),
            "qk_norm": bool(rng.random() < 0.3),
            "tied": bool(rng.random() < 0.4),
            "window": int(rng.choice([1, 3, 7, 20, 65])) if rng.random() < 0.4 else None,
            "eos_token_ids": (vocab_size - 1,) if has_end else (),
            **sizes,
        },
    )


def text_target(rng: np.random.Generator) -> Target:
    dtype = DTYPES[int(rng.integers(len(DTYPES)))]
    return Decoder.from_config(random_config(rng), int(rng.integers(1 << 30)), dtype=dtype)


def torch_target(rng: np.random.Generator) -> Target:
    """The same with torch's operations, as on a machine without our kernels' instructions."""
    return Decoder.from_config(random_config(rng), int(rng.integers(1 << 30)), kernels=False)


def image_target(rng: np.random.Generator) -> Target:
    """A raster grid, with or without codes and guidance."""
    side, codes = int(rng.choice([5, 8])), rng.random() < 0.7
    config = random_config(
        rng,
        vocab_size=int(rng.choice([16, 24])),
        head_dim=int(rng.choice([8, 16])),
        context_length=1 + side * side,
        rotary=RotaryConfig(kind="grid", row_length=side),
        grid=GridInput(num_classes=3, code_width=4 if codes else None),
        eos_token_ids=(),
        window=None,
        tied=False,
    )
    made = Decoder.from_config(config, int(rng.integers(1 << 30)))
    return guide(made, float(rng.choice([1.0, 1.0, 2.5])))


def taught_target(rng: np.random.Generator) -> Target:
    """A raster grid that has a student, which can draft; see `student`."""
    config = RasterConfig(
        vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=6,
        width=32, inner_width=48, num_layers=int(rng.choice([1, 2])), num_heads=2,
    )  # fmt: skip
    torch.manual_seed(int(rng.integers(1 << 30)))
    model = RasterModel(config, F.normalize(torch.randn(24, 4), dim=-1)).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    said = StudentConfig.of(config, MadeFor(path="target", digest="a" * 32))
    prior = torch.randn(3, config.num_tokens, 24).softmax(-1)
    made = student_of(model, said, prior)
    assert isinstance(made, Student)
    state = {**model.state_dict(), CODEBOOK: made.codebook}
    weights = assemble(
        config.decoder(), lambda name: state[name].detach(), dtype=torch.float32, device=CPU
    )
    target = Decoder(config.decoder(), weights, dtype=torch.float32, device=CPU)
    target.student = FrozenStudent(made)  # type: ignore[attr-defined]
    return guide(target, float(rng.choice([1.0, 1.5])))


def scales_target(rng: np.random.Generator) -> Target:
    """A target that writes whole maps at once, of classes that modulate it."""
    sizes = {"shared_modulation": bool(rng.random() < 0.5), "unit_qk": bool(rng.random() < 0.5)}
    config = NextScaleConfig(
        vocab_size=tiny_images.VOCABULARY, code_width=4, num_classes=3,
        scales=tiny_images.SCALES, width=32, inner_width=int(rng.choice([48, 44])),
        num_layers=2, num_heads=2, **sizes,
    )  # fmt: skip
    torch.manual_seed(int(rng.integers(1 << 30)))
    model = NextScaleModel(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.25 if weight.ndim == 2 else 0.5)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    target = NextScaleTarget(
        config, state, tiny_images.scales(), dtype=pick(rng, DTYPES), device=CPU
    )
    return guide(target, float(rng.choice([1.0, 1.7])))


@cache
def adapted(family: str) -> Target:
    """In double precision, so that no tie is decided by rounding."""
    import transformers

    from models.targets.adapted.adapter import AdaptedTarget
    from tests.models import checkpoints

    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(checkpoints.OTHERS[family]())
    return AdaptedTarget(made.double().eval(), eos_token_ids=(2,))


def adapted_target(rng: np.random.Generator) -> Target:
    return adapted(str(rng.choice(["gpt2", "gpt-neox", "qwen2-half-windowed", "mamba"])))


# By name, and how often.
FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Target], float]] = {
    "text": (text_target, 0.55),
    "torch": (torch_target, 0.15),
    "image": (image_target, 0.1),
    "taught": (taught_target, 0.1),
    "scales": (scales_target, 0.1),
    "adapted": (adapted_target, 0.0),
}


# Drafters


@dataclass
class Making:
    """What a drafter may be made from."""

    rng: np.random.Generator
    target: Target
    known: dict[str, tuple[int, ...]]
    rows: int
    max_length: int
    shape: Shape

    @property
    def capacity(self) -> int:
        return self.max_length + 80

    @property
    def entries(self) -> int | None:
        """Of a drafter's own cache; too few for all at times."""
        least = self.max_length + 80
        return None if self.rng.random() < 0.5 else whole(least + int(self.rng.integers(0, 150)))


def whole(entries: int) -> int:
    """As many in whole blocks, as a budget pays for."""
    return num_blocks(entries) * BLOCK


def width_of(target: Target) -> int:
    target = getattr(target, "inner", target)
    config = getattr(target, "config", None)
    return config.width if config is not None else target.model.config.hidden_size


def tensors(wanted: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    return {name: random_tensor(name, shape, seed) for name, shape in wanted.items()}


def draft_ids(making: Making) -> list[int] | None:
    """The tokens that can be drafted: all, or some."""
    size = making.target.vocab_size
    if making.rng.random() < 0.6:
        return None
    return sorted(making.rng.choice(size, size // 2, replace=False).tolist())


def draft_model(making: Making) -> Drafter:
    """The target itself, or a stranger with its vocabulary."""
    model = making.target
    if isinstance(model, Decoder) and making.rng.random() < 0.6:
        c = model.config
        config = random_config(
            making.rng,
            vocab_size=c.vocab_size,
            context_length=c.context_length,
            **{"rotary": c.rotary, "grid": c.grid, "tied": False, "head_dim": 8} if c.grid else {},
        )
        model = Decoder.from_config(config, 5)
    entries = making.entries
    return ModelDrafter(model, rows=making.rows, capacity=making.capacity, entries=entries)


def eagle(making: Making) -> Drafter:
    target, rng, ids = making.target, making.rng, draft_ids(making)
    layer = random_config(
        rng, vocab_size=target.vocab_size, num_layers=1, window=None, qk_norm=False,
        qkv_bias=False, out_bias=False, mlp_bias=False,
    )  # fmt: skip
    config = EagleConfig(
        layer=layer,
        draft_vocab_size=target.vocab_size if ids is None else len(ids),
        target_width=width_of(target),
        taps=tuple(sorted({0, target.num_layers // 2, target.num_layers})),
        norm_before_residual=bool(rng.random() < 0.5),
        norm_taps=bool(rng.random() < 0.5),
        norm_output=bool(rng.random() < 0.5),
    )
    chosen = None if ids is None else torch.tensor(ids)
    head = EagleHead(config=config, tensors=tensors(eagle_shapes(config), 1), ids=chosen)
    model = EagleModel(head, dtype=torch.float32, device=CPU)
    entries = making.entries
    return EagleDrafter(model, rows=making.rows, capacity=making.capacity, entries=entries)


def medusa(making: Making) -> Drafter:
    target, ids = making.target, draft_ids(making)
    config = MedusaConfig(
        vocab_size=target.vocab_size, width=width_of(target), num_heads=3,
        shared=bool(making.rng.random() < 0.5),
    )  # fmt: skip
    made = tensors(medusa_shapes(config, None if ids is None else len(ids)), 2)
    chosen = None if ids is None else torch.tensor(ids)
    head = MedusaHead(config=config, tensors=made, ids=chosen)
    return HeadsDrafter(MedusaModel(head, dtype=torch.float32, device=CPU))


def hydra(making: Making) -> Drafter:
    target = making.target
    width = width_of(target)
    config = HydraConfig(vocab_size=target.vocab_size, width=width, embedded=12, num_heads=3)
    output = random_tensor("output", (target.vocab_size, width), 3)
    head = HydraHead(config=config, tensors=tensors(hydra_shapes(config), 3), output=output)
    dtype = torch.float32 if target.adapted else target.dtype
    return HeadsDrafter(HydraModel(head, dtype=dtype, device=CPU))


def prophet(making: Making) -> Drafter:
    rng = making.rng
    return Prophet(
        making.known,
        making.target.vocab_size,
        right=float(rng.choice([0.7, 0.9, 1.0])),
        absent=float(rng.choice([0.0, 0.3])),
        wanders=bool(rng.random() < 0.3),
        seed=int(rng.integers(1 << 30)),
    )


def jacobi(making: Making) -> Drafter:
    rule = str(making.rng.choice(["uniform", "left", "above"]))
    return JacobiDrafter("shared", Start(rule=rule, row_length=5))


def student(making: Making) -> Drafter:
    """The target's; for targets without one, the drafter that it makes use of."""
    found = getattr(getattr(making.target, "inner", making.target), "student", None)
    return jacobi(making) if found is None else CanvasDrafter(found, name="student")


Maker = Callable[[Making], Drafter | None]
DRAFTERS: dict[str, Maker] = {
    "none": lambda making: None,
    "lookup": lambda making: LookupDrafter(),
    "model": draft_model,
    "prophet": prophet,
    "jacobi": jacobi,
    "eagle": eagle,
    "medusa": medusa,
    "hydra": hydra,
    "student": student,
}
CHAINS = ("lookup", "jacobi", "student")
MOST = 4  # cancelled requests, and changes of the drafter, in a case


# Cases


@dataclass
class Case:
    """One random crossing."""

    number: int
    family: str
    target: Target
    requests: list[Request]  # whole, none continues
    plain: dict[str, Result]
    rows: int
    max_length: int
    scratch: int
    chunk: int
    entries: int | None
    drafter: str
    shape: Shape
    seen: Counter[str] = field(default_factory=Counter)


def random_shape(rng: np.random.Generator, drafter: str) -> Shape:
    if drafter == "none":
        return NOTHING
    depth = int(rng.integers(1, 7))
    width = 1 if drafter in CHAINS or rng.random() < 0.4 else int(rng.integers(2, 5))
    some = width > 1 and drafter != "prophet" and rng.random() < 0.4
    nodes = int(rng.integers(1, depth * width + 1)) if some else 0
    return Shape(depth=depth, width=width, nodes=nodes)


def pick(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def random_sampling(rng: np.random.Generator, size: int, *, image: int | None) -> Sampling:
    """`size`: of the vocabulary; `image`: tokens of one."""
    most = int(rng.integers(1, 100 if rng.random() < 0.35 else 25)) if image is None else image
    some = rng.integers(0, size, 3).tolist()
    values: dict[str, Any] = {
        "max_tokens": most,
        "temperature": pick(rng, (0.0, 0.6, 1.0, 1.0, 1.7)),
        "top_k": pick(rng, (0, 0, 0, 1, 3, size + 5)),
        "top_p": pick(rng, (1.0, 1.0, 0.5, 0.9)),
        "min_p": pick(rng, (0.0, 0.0, 0.1, 0.4)),
        "presence_penalty": pick(rng, (0.0, 0.0, 0.7)),
        "frequency_penalty": pick(rng, (0.0, 0.0, 0.4, -0.3)),
        "repetition_penalty": pick(rng, (1.0, 1.0, 1.3, 0.8)),
        "logit_bias": pick(rng, ({}, {}, {some[0]: 2.5, some[1]: -2.0}, {some[2]: -np.inf})),
        "logprobs": pick(rng, (None, None, 0, 3)),
    }
    if image is not None:
        return Sampling(**values)
    grammar = random_grammar(rng)
    stops = {"".join(rng.choice(list(LETTERS[:12]), int(rng.integers(1, 3)))) for _ in range(2)}
    return Sampling(
        **values,
        min_tokens=int(rng.integers(0, most + 1)) if rng.random() < 0.4 else 0,
        stop=tuple(sorted(stops)) if rng.random() < 0.4 else (),
        stop_token_ids=(some[1],) if rng.random() < 0.3 else (),
        ignore_eos=bool(grammar is None and rng.random() < 0.5),
        grammar=grammar,
    )


@cache
def some_grammars() -> tuple[str, ...]:
    return (
        of_regex("(ab|ba|c){2,9}d?"),
        of_regex("a[bc]*d(ef)+"),
        of_choice(["abcdefgh", "abcde", "badd", "hhhhg"]),
    )


def random_grammar(rng: np.random.Generator) -> str | None:
    return pick(rng, some_grammars()) if rng.random() < 0.15 else None


def random_requests(
    rng: np.random.Generator, target: Target, *, image: int | None
) -> list[Request]:
    size, texts, in_order = target.vocab_size, image is None, target.schedule.in_order
    lengths = rng.integers(1, pick(rng, (20, 20, 20, 150, 150, 370)), 2).tolist()
    stems = [rng.integers(0, size, length).tolist() for length in lengths]
    made: list[Request] = []
    crowd = rng.random() < 0.1
    for i in range(int(rng.integers(12, 20) if crowd else rng.integers(1, 8))):
        if made and rng.random() < 0.25:  # another sample of the prompt before
            prompt, sampling = made[-1].prompt, made[-1].sampling
        elif texts:
            stem = pick(rng, stems)
            kept = stem[: int(rng.integers(0, len(stem) + 1))] if rng.random() < 0.7 else []
            tail = rng.integers(0, size, int(rng.integers(0, 12))).tolist()
            prompt = tuple([*kept, *tail] or [1])
            sampling = random_sampling(rng, size, image=None)
        else:
            prompt = (size + int(rng.integers(0, target.input_size - size)),)
            sampling = random_sampling(rng, size, image=image)
        flows = not texts and target.codes is not None and rng.random() < 0.3
        made.append(
            Request(
                id=str(i),
                prompt=prompt,
                sampling=sampling,
                seed=int(rng.integers(1 << 40)) if rng.random() < 0.9 else 7,
                noise=FLOW if flows else "gumbel",
                prompt_logprobs=pick(rng, (0, 2)) if in_order and rng.random() < 0.15 else None,
                cache_salt=pick(rng, (b"", b"", b"", b"x")),
                drafts=bool(rng.random() < 0.9),
                stream=bool(rng.random() < 0.4),
                priority=int(rng.integers(0, 3)) if rng.random() < 0.3 else 0,
            )
        )
    return made


def alone(target: Target, request: Request) -> Result:
    """Plain decoding: nothing drafted, nothing shared, the prompt read at once."""
    bare = replace(request, prediction=(), drafts=False, cache_salt=b"", stream=False, priority=0)
    length = len(request.prompt) + request.sampling.max_tokens
    loop = TokenLoop(
        target, None, FixedSize(NOTHING), rows=1, max_length=length, scratch=1, decode=spell,
        prefill_chunk=CONTEXT, grammars=lambda: grammars(target.vocab_size),
    )  # fmt: skip
    (result,) = loop.run([bare])
    return result


def random_case(number: int, drafters: dict[str, Maker] = DRAFTERS, *, family: str = "") -> Case:
    rng = np.random.default_rng([number, 17])
    names = list(FAMILIES)
    family = family or str(rng.choice(names, p=[FAMILIES[name][1] for name in names]))
    target = FAMILIES[family][0](rng)
    image = target.context_length - 1 if target.input_size > target.vocab_size else None
    requests = random_requests(rng, target, image=image)
    if family == "adapted":
        requests = requests[:3]
    plain = {request.id: alone(target, request) for request in requests}
    # A text like the output: the output itself, with some other tokens.
    for i, request in enumerate(requests):
        if rng.random() < 0.25:
            tokens = [t for t in plain[request.id].tokens if rng.random() < 0.9]
            requests[i] = replace(request, prediction=tuple(tokens))
    in_order = target.schedule.in_order
    drafter = str(rng.choice(list(drafters))) if in_order else "none"
    shape = random_shape(rng, drafter)
    rows = int(rng.integers(1, 6)) if len(requests) < 10 else int(rng.integers(8, 20))
    longest = max(len(r.prompt) + r.sampling.max_tokens for r in requests)
    max_length = longest + int(rng.integers(0, 20))
    scratch = shape.budget + 1 + pick(rng, (0, 0, 8, 20)) if in_order else 1
    least = max_length + scratch
    return Case(
        number, family, target, requests, plain,
        rows=rows,
        max_length=max_length,
        scratch=scratch,
        chunk=pick(rng, (1, 3, 7, 16, 64, 256)),
        entries=None if rng.random() < 0.3 else whole(least + int(rng.integers(0, 1 + least // 2))),
        drafter=drafter,
        shape=shape,
    )  # fmt: skip


# Running a case


def run_case(case: Case, drafters: dict[str, Maker] = DRAFTERS) -> dict[str, Result]:
    """The loop's results by id; `case.seen` counts what happened."""
    rng = np.random.default_rng([case.number, 23])
    known = {r.id: case.plain[r.id].tokens for r in case.requests}
    making = Making(rng, case.target, known, case.rows, case.max_length, case.shape)
    loop = TokenLoop(
        case.target,
        drafters[case.drafter](making),
        FixedSize(case.shape),
        rows=case.rows,
        max_length=case.max_length,
        scratch=case.scratch,
        entries=case.entries,
        prefill_chunk=case.chunk,
        decode=spell,
        grammars=lambda: grammars(case.target.vocab_size),
    )
    watch_moves(loop, case.seen)
    coming = [begun(rng, case, request) for request in case.requests]
    results: dict[str, Result] = {}
    streamed: dict[str, list[int]] = {}
    steps = 0
    while coming or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 3)) + (not loop.num_unfinished)):
            if coming:
                loop.submit(coming.pop(0))
        if rng.random() < 0.06 and case.seen["cancelled"] < MOST:
            coming += cancelled(rng, case, loop, streamed)
        if rng.random() < 0.06 and case.scratch > 1 and case.seen["changed"] < MOST:
            change(rng, case, loop, making, drafters)
        for result in loop.step():
            assert result.id not in results, result.id
            results[result.id] = result
        for update in loop.take_updates():
            streamed.setdefault(update.id, []).extend(update.tokens)
        steps += 1
        assert steps < 20_000, "the loop does not end"
    figures = loop.figures()
    case.seen.update(
        accepted=figures.accepted,
        drafted=figures.drafted,
        preempted=figures.preemptions,
        shared=figures.prefix_hit_tokens,
    )
    check_streams(case, results, streamed)
    assert not loop._cache.lengths.any()
    return results


def begun(rng: np.random.Generator, case: Case, request: Request) -> Request:
    """The request, or what is left of it after some of its tokens were generated elsewhere."""
    result = case.plain[request.id]
    if result.error is not None or rng.random() > 0.3:
        return request
    case.seen["continued"] += 1
    return rest(case, request, int(rng.integers(0, len(result.tokens))))


def rest(case: Case, request: Request, count: int) -> Request:
    """What is left after `count` tokens, or after the last whole group of them."""
    if isinstance(case.target.schedule, Scales):
        count = max([end for end in case.target.schedule.ends if end <= count], default=0)
    return cut(request, case.plain[request.id], count, name=request.id)


def cancelled(
    rng: np.random.Generator, case: Case, loop: TokenLoop, streamed: dict[str, list[int]]
) -> list[Request]:
    """Cancel a request; it comes again, with as many of its tokens as may be known."""
    there = [*loop._rows.waiting, *loop._rows.reading, *loop._rows.running]
    if not there:
        return []
    sequence = pick(rng, there)
    done = sequence.num_generated
    assert loop.cancel(sequence.id)
    loop.take_updates()
    case.seen["cancelled"] += 1
    request = next(r for r in case.requests if r.id == sequence.id)
    kept = int(rng.integers(0, done + 1)) if done else 0
    streamed.pop(request.id, None)
    plain = case.plain[request.id]
    if plain.error is not None:
        return [request]
    case.seen["came again"] += 1
    return [rest(case, request, min(kept, len(plain.tokens) - 1))]


def change(
    rng: np.random.Generator,
    case: Case,
    loop: TokenLoop,
    making: Making,
    drafters: dict[str, Maker],
) -> None:
    """Another drafter, of a shape that the loop has room for."""
    name = str(rng.choice([name for name in drafters if name != "none"]))
    shape = random_shape(rng, name)
    while shape.budget >= case.scratch:
        shape = random_shape(rng, name)
    making.shape = shape
    drafter = drafters[name](making)
    assert drafter is not None
    loop.change_drafter(drafter, FixedSize(shape))
    case.seen["changed"] += 1


def watch_moves(loop: TokenLoop, seen: Counter[str]) -> None:
    """Count rows that move while they hold something."""
    move = loop._cache.move

    def noted(source: int, destination: int) -> None:
        seen["moved"] += bool(source != destination and loop._cache.lengths[source])
        move(source, destination)

    loop._cache.move = noted  # type: ignore[method-assign]


def check_streams(case: Case, results: dict[str, Result], streamed: dict[str, list[int]]) -> None:
    for request in case.requests:
        result = results[request.id]
        if request.stream and result.error is None:
            told = tuple(streamed.get(request.id, ()))
            assert told == result.tokens[len(result.tokens) - len(told) :], request.id
            assert told, request.id


# Comparing


def differences(case: Case, results: dict[str, Result]) -> list[str]:
    """What is not as in plain decoding, request by request."""
    found = []
    assert set(results) == set(case.plain)
    for request in case.requests:
        plain, result = case.plain[request.id], results[request.id]
        for name in ("tokens", "finish_reason", "stop_text", "error", "invalid", "exactness"):
            if getattr(plain, name) != getattr(result, name):
                if is_tie(case, request, plain, result):
                    case.seen["ties"] += 1
                else:
                    a, b = getattr(plain, name), getattr(result, name)
                    found.append(f"request {request.id}: {name} {a} became {b}")
                break
        else:
            for name in ("logprobs", "prompt_logprobs"):
                if not alike(case, getattr(plain, name), getattr(result, name)):
                    a, b = getattr(plain, name), getattr(result, name)
                    found.append(f"request {request.id}: {name} {a} became {b}")
    return found


def is_tie(case: Case, request: Request, plain: Result, result: Result) -> bool:
    """Whether rounding alone decided, where it may."""
    replayed = request.noise != FLOW and case.target.schedule.in_order
    if case.target.steady or plain.error or result.error or not replayed:
        return False
    try:
        difference = first_difference(case.target, request, plain.tokens, result.tokens)
    except ValueError:
        return False
    return difference is not None and difference.is_tie


Said = tuple[TokenLogprob, ...] | None


def alike(case: Case, first: Said, second: Said) -> bool:
    """To the bit where that is promised."""
    if case.target.steady or first is None or second is None:
        return first == second
    if [each.token for each in first] != [each.token for each in second]:
        return False
    return bool(np.allclose([e.logprob for e in first], [e.logprob for e in second], atol=1e-4))


def told(case: Case) -> str:
    """All that a failure's message needs."""
    c = case
    config = getattr(getattr(c.target, "inner", c.target), "config", c.target.architecture)
    lines = [
        f"case {c.number}: {c.family}, {c.target.dtype}, compiled={kernels.compiled()}, {config}",
        f"drafter={c.drafter}, {c.shape}, rows={c.rows}, max_length={c.max_length}, "
        f"scratch={c.scratch}, chunk={c.chunk}, entries={c.entries}",
        *(str(r) for r in c.requests),
    ]
    return "\n".join(lines)
