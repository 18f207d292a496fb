"""A matrix in the memory order of the compiled kernels. Letters as in kernels.py."""

import torch

from models.compute.x86.kernels import KINDS, library

BLOCK = 16  # outputs in one block of a packed matrix


class PackedMatrix:
    """A matrix [O, I] in the memory order of the compiled kernels.

    It is stored in half precision if this keeps its values exactly. A pass then reads half the
    memory, with the same results.
    """

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._outputs, self._inputs = matrix.shape
        self._packed = _pack(_narrowest(matrix))
        self.stored_dtype = self._packed.dtype
        self._stored = KINDS[self.stored_dtype]
        self._bias = None if bias is None else _filled(bias.float())
        assert self._packed.data_ptr() % 32 == 0

    def row(self) -> tuple[int, int, int, int]:
        """`Matrix` of models/compute/x86/csrc/kernels.h; valid as long as this object exists."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        return self._stored, self._outputs, self._packed.data_ptr(), bias

    def multiply(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, I] times the matrix plus the bias: [T, O]; added to `onto` if given."""
        x = x.contiguous()
        result = x.new_empty(x.shape[0], self._outputs) if onto is None else onto
        library().linear(
            self._stored,
            KINDS[x.dtype],
            KINDS[x.dtype],
            x.shape[0],
            self._inputs,
            self._outputs,
            x.data_ptr(),
            self._packed.data_ptr(),
            0 if self._bias is None else self._bias.data_ptr(),
            result.data_ptr(),
            onto is not None,
            torch.get_num_threads(),
        )
        return result


def _narrowest(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix in half precision if this keeps its values, else unchanged."""
    if matrix.dtype == torch.float32:
        for dtype in (torch.bfloat16, torch.float16):
            narrow = matrix.to(dtype)
            if torch.equal(narrow.float(), matrix):
                return narrow
    return matrix


def _filled(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, padded with rows of zeros to a whole number of blocks."""
    missing = -tensor.shape[0] % BLOCK
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def _pack(matrix: torch.Tensor) -> torch.Tensor:
    """[O, I] -> [blocks, I, 16]; in bfloat16 the 16 outputs in the order 0, 8, 1, 9..."""
    blocks = _filled(matrix).unflatten(0, (-1, BLOCK)).transpose(1, 2)
    if matrix.dtype == torch.bfloat16:
        blocks = blocks.unflatten(2, (2, BLOCK // 2)).transpose(2, 3)
    packed: torch.Tensor = blocks.contiguous()
    return packed
