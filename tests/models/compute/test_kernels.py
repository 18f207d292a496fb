"""The compiled kernels: right to rounding, and the same bits for a row in any company."""

import ctypes

import pytest
import torch
from torch.nn import functional as F

from models.compute.x86 import kernels
from models.compute.x86.kernels import rms_norm
from models.compute.x86.packed_matrix import PackedMatrix

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(96, 64), (300, 100), (17, 33), (5, 1), (2048, 512), (64, 1536)]
compiled_only = pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")


def _near(dtype):
    return 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps


def _random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@compiled_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_a_matrix_multiplies(outputs, inputs, stored, dtype):
    matrix = _random(outputs, inputs, dtype=stored).div_(inputs**0.5)
    bias, x, onto = (
        _random(*shape, dtype=dtype, seed=seed)
        for seed, shape in enumerate([(outputs,), (70, inputs), (70, outputs)], start=1)
    )
    exact = x.double() @ matrix.double().t()
    with_bias, without = PackedMatrix(matrix, bias), PackedMatrix(matrix, None)
    for count in (*range(1, 20), 70):
        part, near = x[:count], _near(dtype)
        found = without.multiply(part)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact[:count], rtol=near, atol=near)
        added = onto[:count].clone()
        assert with_bias.multiply(part, added) is added
        wanted = onto[:count].double() + exact[:count] + bias.double()
        torch.testing.assert_close(added.double(), wanted, rtol=near, atol=near)


@compiled_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), [*SIZES, (40, 1100)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_does_not_depend_on_the_others_nor_on_threads(outputs, inputs, dtype, threads):
    """40 outputs of 1,100 inputs: chunks of inputs, and more threads than some have blocks."""
    layer = PackedMatrix(_random(outputs, inputs, dtype=dtype), _random(outputs))
    x, before = _random(130, inputs, dtype=dtype), torch.get_num_threads()
    alone = torch.cat([layer.multiply(row) for row in x.split(1)])
    torch.set_num_threads(threads)
    try:
        for count in (*range(2, 20), 31, 64, 130):
            assert torch.equal(layer.multiply(x[:count]), alone[:count]), count
    finally:
        torch.set_num_threads(before)


@compiled_only
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_rounded_as_torch_rounds(dtype):
    """Products of two half-precision numbers are exact in float32: one rounding is left."""
    x, factor = _random(2000, 1, dtype=dtype), _random(16, 1, dtype=dtype, seed=1)
    x[:6, 0] = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e-7])
    found = PackedMatrix(factor, None).multiply(x)
    wanted = (x.float() * factor.float().t()).to(dtype)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@compiled_only
def test_float32_that_fits_half_precision_is_stored_so_and_computes_the_same():
    """A checkpoint in half precision run in float32 reads half the memory, to the same bits."""
    x = _random(9, 64)
    for dtype in (torch.bfloat16, torch.float16):
        exact = _random(32, 64, dtype=dtype).float()
        exact[0, 0] = 1.5
        narrow = PackedMatrix(exact, None)
        assert narrow.stored_dtype == dtype
        other = torch.cat([exact, torch.full((16, 64), 1 + 2**-20)])  # only float32 holds it
        wide = PackedMatrix(other, None)
        assert wide.stored_dtype == torch.float32
        assert torch.equal(narrow.multiply(x), wide.multiply(x)[:, :32])


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 8, 100, 512])
def test_rms_norm(width, dtype):
    x, weight = _random(40, width, dtype=dtype), _random(width, seed=1) + 2
    x[1] = 0
    wide = x.double()
    exact = wide / (wide.square().sum(-1, keepdim=True) + 1e-6 * width).sqrt() * weight.double()
    found = rms_norm(x, weight, 1e-6)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=_near(dtype), atol=_near(dtype))
    alone = torch.cat([rms_norm(row, weight, 1e-6) for row in x.split(1)])
    assert torch.equal(found, alone)


@compiled_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 8, 100, 1536])
def test_swiglu(width, dtype):
    """Called as the layers call it, in C."""
    library = ctypes.CDLL(kernels._kernels.__file__)
    x, found = _random(40, 2 * width, dtype=dtype).mul_(4), torch.empty(40, width, dtype=dtype)
    x[0, :width], x[1, :width], x[2, :width] = -200.0, 200.0, torch.nan
    sizes = (ctypes.c_ssize_t(size) for size in (40, width))
    addresses = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, found))
    library.swiglu(kernels.KINDS[dtype], *sizes, *addresses, 2)
    gate, up = x.double().chunk(2, dim=-1)
    near = _near(dtype)
    torch.testing.assert_close(
        found.double(), F.silu(gate) * up, rtol=near, atol=near, equal_nan=True
    )


@compiled_only
def test_wrong_arguments_are_refused():
    assert kernels._kernels is not None
    for name, count in (
        ("linear", 12),
        ("rms_norm", 7),
        ("flow", 11),
        ("attend", 22),
        ("score", 28),
        ("gumbel", 10),
        ("choose", 16),
        ("chain", 37),
        ("trees", 42),
    ):
        call = getattr(kernels._kernels, name)
        with pytest.raises(TypeError, match=f"wanted: {count}"):
            call(1, 2)
        with pytest.raises(TypeError):
            call(*["x"] * count)
