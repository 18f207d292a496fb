"""Checkpoint folders in Hugging Face layout: configuration and safetensors, never pickles."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from models.errors import UnsupportedCheckpoint
from models.exactness import STEADY
from models.targets.decoder.config import DecoderConfig, parse_config, read_configs, read_json
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.fastest import kernels_win
from models.targets.decoder.weights import assemble, shapes
from models.targets.finite import require_finite

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def load_decoder(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    arithmetic: str = STEADY,
    rows: int = 1,
) -> Decoder:
    """Our decoder with the weights of a checkpoint; for `arithmetic` and `rows` see `load_target`.

    Raises:
        UnsupportedCheckpoint: a file, field or tensor is missing or wrong; the message names it.
    """
    config = parse_config(*read_configs(path))
    tensors = Tensors(path, config)
    kernels = device.type == "cpu" and (arithmetic == STEADY or kernels_win(config, dtype, rows))
    weights = assemble(config, tensors.read, dtype=dtype, device=device, kernels=kernels)
    return Decoder(config, weights, dtype=dtype, device=device, kernels=kernels)


def tensor_files(path: Path) -> dict[str, Path]:
    """The file of each tensor of a checkpoint."""
    if (path / INDEX).exists():
        places = read_json(path / INDEX).get("weight_map")
        if not isinstance(places, dict):
            raise UnsupportedCheckpoint(f"{path / INDEX} has no weight_map")
        for file in set(map(str, places.values())):
            if file in ("", ".", "..") or {"/", "\\", "\0"} & set(file):
                told = f"{path / INDEX} names {file!r}: a file of its own folder is needed"
                raise UnsupportedCheckpoint(told)
        return {name: path / str(file) for name, file in places.items()}
    if (path / SINGLE).exists():
        with open_file(path / SINGLE) as file:
            return dict.fromkeys(file.keys(), path / SINGLE)
    found = sorted(file.name for file in path.glob("*.bin")) + sorted(
        file.name for file in path.glob("*.pt*")
    )
    pickles = f"; {', '.join(found)} may hold code and is never loaded" if found else ""
    raise UnsupportedCheckpoint(f"{path} has neither {SINGLE} nor {INDEX}{pickles}")


class Tensors:
    """The tensors of one checkpoint, read one by one and checked against the configuration."""

    def __init__(self, path: Path, config: DecoderConfig) -> None:
        self._path, self._files, self._shapes = path, tensor_files(path), shapes(config)
        for name in self._shapes:
            if name not in self._files:
                raise UnsupportedCheckpoint(f"{path} lacks the tensor {name}")

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name`, in the dtype it was saved in."""
        return self.cut(name, 0, 0, self._shapes[name][0])

    def cut(self, name: str, dim: int, first: int, end: int) -> torch.Tensor:
        """`first` to `end` of a dimension (0 or 1) of a tensor; reads no more of it than that."""
        with open_file(self._files[name]) as file:
            if name not in file.keys():  # noqa: SIM118 - not a dict
                raise UnsupportedCheckpoint(f"{self._files[name]} lacks the tensor {name}")
            found = file.get_slice(name)
            shape = tuple(found.get_shape())
            if shape != self._shapes[name]:
                raise UnsupportedCheckpoint(
                    f"{self._path}: {name} is {shape}, config.json makes it {self._shapes[name]}"
                )
            tensor: torch.Tensor
            if (first, end) == (0, shape[dim]):
                tensor = file.get_tensor(name)
            else:
                tensor = found[first:end] if dim == 0 else found[:, first:end]
        require_finite(tensor, name, self._path)
        return tensor


def open_file(path: Path) -> safe_open:
    """A safetensors file. Raises UnsupportedCheckpoint if it is missing or damaged."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise UnsupportedCheckpoint(f"{path} is missing") from None
    except (OSError, SafetensorError) as error:
        raise UnsupportedCheckpoint(f"{path} is not a whole safetensors file: {error}") from error
