"""Steady arithmetic does not depend on which of torch's kernels a CPU gets.

The same completions are made twice: here, and by a process whose torch, MKL and oneDNN were told
that the CPU has no AVX. Our compiled kernels run in both. The digests are known answers, too, for
CPUs on which torch takes other kernels than any of these two.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.compute.x86.kernels import compiled
from models.drafting.draft import NOTHING
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.registry import FLOW, GUMBEL
from models.requests.request import Request, Sampling
from models.targets.decoder.config import DecoderConfig, RotaryConfig
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.weights import assemble, shapes
from models.targets.guided import guide
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_target import NextScaleTarget
from models.tokenizers.conv import ConvConfig
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer
from models.training.raster import RasterConfig
from tests.models.hashed import hashed

pytestmark = pytest.mark.skipif(not compiled(), reason="no compiled kernels here")

CPU, F32 = torch.device("cpu"), torch.float32
LLAMA3 = RotaryConfig(kind="llama3", factor=8.0, original_context_length=64)
KNOWN = {
    "text": "828c61c5fc876f1c974e1608745c23d90a09f411b517c0f96848d20414469346",
    "stretched text": "69fb888dbe7be88e89e867d22728da38321ef8e606ff5a36aeb809671919ad44",
    "raster": "a279055c72261f6f2aa0246a09ad858b541a4504568033185460fac831c0315c",
    "next-scale": "848cd691b91d5c03ff46b0d7c9ed06f34e1b225222ceae8550b5a7421615740f",
    "raster, flow map": "3edffbe0701d3342b7e2c53c3989c824abb3a3081ddb51a67b396e604d3805a9",
}
ELSEWHERE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
PROGRAM = """
import torch
print(torch.backends.cpu.get_cpu_capability())
torch.backends.cpu.get_cpu_capability = lambda: "AVX2"  # our kernels ask torch what the CPU has
torch.set_num_threads(1)
from tests.models import test_machines
print(*test_machines.digests().values())
"""


def decoder_of(config):
    wanted = shapes(config)
    weights = assemble(config, lambda name: hashed(name, wanted[name]), dtype=F32, device=CPU)
    return Decoder(config, weights, dtype=F32, device=CPU)


def text(rotary):
    """A head of 48 dimensions: torch's powers for its rotations differ between kinds of CPU."""
    return decoder_of(
        DecoderConfig(
            architecture="LlamaForCausalLM", vocab_size=101, width=96, inner_width=72,
            num_layers=2, num_heads=2, num_kv_heads=1, head_dim=48, context_length=128,
            rotary=rotary, qk_norm=True,
        )
    )  # fmt: skip


def raster():
    """Its inputs are projected codes."""
    config = RasterConfig(
        vocab_size=60, code_width=7, num_classes=3, grid_width=4, grid_height=4,
        width=48, inner_width=72, num_layers=2, num_heads=2,
    )  # fmt: skip
    return guide(decoder_of(config.decoder()), 3.0)


def next_scale():
    conv = ConvConfig(
        image_channels=1, channels=8, multipliers=(1, 2), num_blocks=1, latent_channels=8,
        num_groups=4,
    )  # fmt: skip
    sides = {"vocab_size": 60, "code_width": 4, "scales": (1, 2, 3, 4)}
    tokenizer = ScaleTokenizer(ScalesConfig(conv=conv, image_size=8, **sides)).eval()
    tokenizer.load_state_dict(_hashed_state(tokenizer))
    config = NextScaleConfig(
        num_classes=3, width=48, inner_width=70, num_layers=2, num_heads=2, **sides
    )
    state = _hashed_state(NextScaleModel(config))
    return guide(NextScaleTarget(config, state, tokenizer, dtype=F32, device=CPU), 1.7)


def _hashed_state(module):
    return {name: hashed(name, tensor.shape) for name, tensor in module.state_dict().items()}


FLOWING = "raster, flow map"
TARGETS = {
    "text": lambda: text(RotaryConfig()),
    "stretched text": lambda: text(LLAMA3),
    "raster": raster,
    "next-scale": next_scale,
    FLOWING: raster,
}
SETTINGS = (
    {},
    {"temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.3},
    {"min_p": 0.05, "logit_bias": {3: 1.5}, "repetition_penalty": 1.3},
)


def digest(name, rows=2):
    """Of the tokens and log-probabilities of some completions."""
    target = TARGETS[name]()
    size = target.schedule.num_positions or (16 if "raster" in name else 30)
    first = 5 if "text" in name else target.vocab_size  # a class
    requests = [
        Request(
            id=str(i),
            prompt=(first + i,),
            sampling=Sampling(max_tokens=size, logprobs=2, **settings),
            seed=i,
            noise=FLOW if name == FLOWING else GUMBEL,
        )
        for i, settings in enumerate(SETTINGS)
    ]
    loop = TokenLoop(target, None, FixedSize(NOTHING), rows=rows, max_length=1 + size, scratch=size)
    made = sorted((r.id, r.tokens, r.logprobs) for r in loop.run(requests))
    return hashlib.sha256(repr(made).encode()).hexdigest()


def digests():
    return {name: digest(name) for name in TARGETS}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", TARGETS)
def test_known_completions(name, rows):
    assert digest(name, rows) == KNOWN[name]


def test_torchs_own_kernels_do_not_matter():
    root = Path(__file__).parents[2]
    environment = {**os.environ, **ELSEWHERE, "PYTHONPATH": str(root)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=root, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    capability, *found = ran.stdout.split()
    assert capability == "DEFAULT"
    assert dict(zip(TARGETS, found, strict=True)) == digests()
