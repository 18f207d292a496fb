"""A device for tests of code for GPUs, on machines without one: `accel`.

Its tensors lie in the machine's memory and its operations are the CPU's. But it is another device:
as with CUDA, an operation on tensors of both is refused, and none of its tensors becomes an array
before it was copied. Operations that have no deterministic implementation for CUDA are refused
where these are asked for.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

NAME = "accel"
HERE, CPU = 12, 1  # DLPack's kinds of devices: an extension's, the CPU
# CUDA takes indices from the CPU, too.
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
# Of these, CUDA has no deterministic implementation: see torch.use_deterministic_algorithms.
CUMSUM = "aten::cumsum"
RANDOM_ORDER = (
    CUMSUM,
    "aten::histc",
    "aten::kthvalue",
    "aten::median",
    "aten::nll_loss2d_forward",
    "aten::put_",
    "aten::_adaptive_avg_pool2d_backward",
    "aten::grid_sampler_2d_backward",
    "aten::reflection_pad2d_backward",
    "aten::upsample_bicubic2d_backward",
    "aten::upsample_bilinear2d_backward",
)


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Tensor(ctypes.Structure):
    """The beginning of DLPack's tensor."""

    _fields_ = (("data", ctypes.c_void_p), ("device", _Device))


class _Hook(_DummyPrivateUse1Hook):
    """The device is there for tests that ask for it, and for no other code of this process."""

    there = False

    def is_available(self) -> bool:
        return self.there


class _Module(_DummyBackendModule):
    def is_available(self) -> bool:
        return _Hook.there


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """The device. Gradients are computed in this thread: others know the devices from before.

    Modules that move to it keep their parameters, as with CUDA: those that are tied stay so.
    """
    _set_up()
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    _Hook.there = True
    try:
        with (
            torch.autograd.set_multithreading_enabled(False),
            patch.object(torch.Tensor, "__deepcopy__", _deep_copy),
        ):
            yield torch.device(NAME, 0)
    finally:
        _Hook.there = False
        torch.__future__.set_swap_module_params_on_conversion(before)


@cache
def _set_up() -> list[torch.library.Library]:
    """Once in a process; the libraries are to be kept."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hook())
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(_on_cpu, "PrivateUse1")
    some.impl("copy_", _copy, "PrivateUse1")
    some.impl("_to_copy", _to_copy, "PrivateUse1")
    ops = torch.ops.aten
    for op in (ops.native_group_norm, ops.native_group_norm_backward):  # torch's need one layout
        some.impl(op._qualified_op_name, partial(_on_cpu, op.default), "PrivateUse1")
    # torch leaves these to the device
    some.impl("convolution_overrideable", partial(_on_cpu, ops.convolution.default), "PrivateUse1")
    some.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
    return [every, some]


def _deep_copy(
    tensor: torch.Tensor, memo: dict[int, Any], original: Any = torch.Tensor.__deepcopy__
) -> torch.Tensor:
    """torch's own copies the memory behind a tensor, which only a device of C++ allocates."""
    if not _is_here(tensor):
        return original(tensor, memo)
    return memo.setdefault(id(tensor), tensor.detach().clone())


def _is_here(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _as(tensor: torch.Tensor, kind: int) -> torch.Tensor:
    """The same memory as a tensor of the other device."""
    capsule = torch._C._to_dlpack(tensor)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    _Tensor.from_address(pointer(capsule, b"dltensor")).device.kind = kind
    made = torch._C._from_dlpack(capsule)
    made = made.conj() if tensor.is_conj() else made  # DLPack tells of memory alone
    return torch._neg_view(made) if tensor.is_neg() else made


def _mapped(function: Any, value: Any) -> Any:
    """A value, or each of a list."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(function, item) for item in value)
    return function(value)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _lent(value: Any) -> Any:
    if _is_here(value):
        return _as(value, CPU)
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _kept(value: Any) -> Any:
    return _as(value, HERE) if isinstance(value, torch.Tensor) else value


def _on_cpu(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operation on tensors of this device."""
    _refuse(op, list(_tensors([args, list(kwargs.values())])))
    # An empty output gets its size from the operation, which cannot resize memory that is lent.
    outputs = {a.name: kwargs[a.name] for a in op._schema.arguments if a.is_out}
    fresh = {
        name: torch.empty(0, dtype=tensor.dtype)
        for name, tensor in outputs.items()
        if _is_here(tensor) and not tensor.numel()
    }
    own = {name: _mapped(_lent, value) for name, value in kwargs.items()} | fresh
    found = op(*_numbers(op._schema, [_mapped(_lent, value) for value in args]), **own)
    for name, tensor in fresh.items():
        outputs[name].data = _as(tensor, HERE)
    return _returned(op._schema, args, kwargs, found)


def _numbers(schema: Any, args: Any) -> Iterator[Any]:
    """The arguments; numbers in the places of tensors, as in `x % 3`, as tensors again."""
    for told, value in zip(schema.arguments, args, strict=False):
        if isinstance(told.type, torch.TensorType) and isinstance(value, int | float):
            dtype = torch.float64 if isinstance(value, float) else None
            yield torch.tensor(value, dtype=dtype)
        else:
            yield value


def _returned(schema: Any, args: Any, kwargs: Any, found: Any) -> Any:
    """The results; those that are arguments, as after an operation in place, are these."""
    names = [argument.name for argument in schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    written = {
        name: given[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for name in argument.alias_info.before_set
    }
    # A view is an inference tensor if what it is a view of is one.
    views = any(told.alias_info is not None for told in schema.returns) and not written
    mode = args[0].is_inference() if views else torch.is_inference_mode_enabled()
    with torch.inference_mode(mode):
        if len(schema.returns) == 1:
            return _one(schema.returns[0], found, written)
        values = zip(schema.returns, found or (), strict=True)
        return tuple(_one(told, value, written) for told, value in values) or None


def _one(told: Any, value: Any, written: dict[str, torch.Tensor]) -> Any:
    if told.alias_info is not None and told.alias_info.is_write:
        return written[next(iter(told.alias_info.before_set))]
    return _mapped(_kept, value)


def _refuse(op: Any, tensors: list[torch.Tensor]) -> None:
    name = op._schema.name
    strange = [t for t in tensors if not _is_here(t) and t.ndim > 0]
    indices = name in INDEXING and _is_here(tensors[0])
    if strange and len(strange) < len(tensors) and not indices:
        where = " and ".join(sorted({str(tensor.device) for tensor in tensors}))
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device: {where}")
    by_chance = name in RANDOM_ORDER and (name != CUMSUM or tensors[0].is_floating_point())
    if by_chance and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{name} does not have a deterministic implementation")


def _copy(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _lent(to).copy_(_lent(source))
    return to


def _convolution_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *told: Any):
    """`told` lacks the bias's size."""
    op = torch.ops.aten.convolution_backward.default
    return _on_cpu(op, grad, x, weight, [len(weight)], *told)


def _to_copy(
    tensor: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    memory_format: torch.memory_format | None = None,
    **_: Any,
) -> torch.Tensor:
    own = _lent(tensor).clone(memory_format=memory_format or torch.preserve_format)
    made = own.to(dtype or own.dtype)
    return _as(made, HERE) if (device or tensor.device).type == NAME else made
