"""Linear layers: right in every form; compiled, a row has the same bits in any batch."""

import pytest
import torch
from torch.nn import functional as F

from models.compute.linear import (
    Compiled,
    Packed,
    Plain,
    Scratch,
    Widened,
    has_native,
    has_packed_kernels,
    make_linear,
)
from models.compute.x86.kernels import compiled

SIZES = [(96, 64), (300, 100), (17, 33), (2048, 512)]
packed_only = pytest.mark.skipif(not has_packed_kernels(), reason="no packed layers in this torch")


def _tensors(outputs, inputs, dtype, biased):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator).mul_(inputs**-0.5).to(dtype)
    bias = torch.randn(outputs, generator=generator).to(dtype) if biased else None
    return weight, bias, torch.randn(130, inputs, generator=generator).to(dtype)


def _forms(dtype, weight, bias):
    """The layers that may stand for this dtype on this CPU."""
    layers = [make_linear(weight, bias, Scratch(), kernels=ours) for ours in (True, False)]
    wide = [] if dtype == torch.float32 else [Widened(weight, bias, Scratch())]
    return [*layers, Plain(weight, bias), *wide]


@packed_only
@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_every_form_multiplies(outputs, inputs, dtype, biased):
    weight, bias, x = _tensors(outputs, inputs, dtype, biased)
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    near = 1e-5 if dtype == torch.float32 else 16 * torch.finfo(dtype).eps
    for layer in _forms(dtype, weight, bias):
        for count in (1, 7, 130):
            found = layer(x[:count])
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), exact[:count], rtol=near, atol=near)
            onto = found.clone()
            layer.add(x[:count], onto)
            torch.testing.assert_close(onto.double(), 2 * exact[:count], rtol=near, atol=2 * near)


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_a_row_does_not_depend_on_the_others(outputs, inputs, dtype):
    weight, bias, x = _tensors(outputs, inputs, dtype, biased=True)
    layer = make_linear(weight, bias, Scratch())
    alone = torch.cat([layer(row) for row in x.split(1)])
    for count in (2, 3, 5, 8, 16, 31, 64, 65, 130):
        assert torch.equal(layer(x[:count]), alone[:count]), count


@packed_only
def test_layers_of_one_shape_share_their_scratch():
    """Two half-precision layers use one room in turn, and neither sees the other's weights."""
    scratch = Scratch()
    pairs = [_tensors(96, 64, torch.bfloat16, biased=False) for _ in range(2)]
    other = pairs[1][0].flip(0).contiguous()
    first = Widened(pairs[0][0], None, scratch)
    second = Widened(other, None, scratch)
    x = pairs[0][2]
    expected = first(x).clone()
    assert torch.equal(second(x), expected.flip(1))
    assert torch.equal(first(x), expected)


@packed_only
def test_a_large_matrix_is_converted_in_blocks(monkeypatch):
    monkeypatch.setattr("models.compute.linear.BLOCK_ELEMENTS", 1000)
    weight, bias, x = _tensors(300, 100, torch.bfloat16, biased=True)
    whole = F.linear(x.float(), weight.float(), bias.float())
    found = Widened(weight, bias, Scratch())(x)
    torch.testing.assert_close(found.float(), whole, rtol=0.01, atol=0.01)


@packed_only
@pytest.mark.usefixtures("arithmetic")
def test_the_form_follows_dtype_and_purpose():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weight = torch.eye(16, dtype=dtype)
        of_torch = Packed if has_native(dtype) else Widened
        assert isinstance(make_linear(weight, None, Scratch(), kernels=False), of_torch)
        ours = Compiled if compiled() else of_torch
        assert isinstance(make_linear(weight, None, Scratch()), ours)
