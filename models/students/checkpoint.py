"""A student as a folder: config.json, model.safetensors and the target's image tokenizer."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from models.errors import UnsupportedCheckpoint
from models.store import (
    TENSORS,
    check_shapes,
    model_type,
    read_config,
    read_tensors,
    write_folder,
)
from models.students.about import MODEL_TYPE, SCALE_MODEL_TYPE, is_student
from models.students.config import StudentConfig
from models.students.networks.scale import ScaleStudent
from models.students.scale_config import ScaleStudentConfig
from models.students.start import AnyStudent, new_student
from models.tokenizers import TOKENIZER_FOLDER
from models.tokenizers.load import load_tokenizer
from models.tokenizers.scales import ScaleTokenizer
from models.training.engines.worker import CPU

CODEBOOK = "raster.model.codebook"  # the tensor's name


def save_student(
    student: AnyStudent,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder, with the files of the folder `tokenizer` in its own subfolder.

    `dtype`: of the tensors (None: unchanged). The codebook stays as it is, because the map from
    noise to tokens depends on it.
    """
    state = {name: tensor.to(dtype) for name, tensor in student.state_dict().items()}
    if CODEBOOK in state:
        state[CODEBOOK] = student.codebook
    kind = SCALE_MODEL_TYPE if isinstance(student, ScaleStudent) else MODEL_TYPE
    write_folder(folder, kind, asdict(student.config), state)
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder / TOKENIZER_FOLDER, dirs_exist_ok=True)


def load_student(folder: str | Path, device: torch.device = CPU) -> AnyStudent:
    """The student in a folder, in float32, without gradients, on a device.

    Raises:
        UnsupportedCheckpoint: the folder holds no student, or a tensor is missing or of another
            shape than config.json says.
    """
    path = Path(folder)
    if not is_student(path):
        told = f"config.json needs model_type {MODEL_TYPE!r}; make one with `paceline distill`"
        raise UnsupportedCheckpoint(f"{path} holds no student: {told}")
    tensors = read_tensors(path / TENSORS)
    prior = torch.zeros_like(tensors.get("prior", torch.zeros(0)))
    student = _unread(path, prior, device)
    check_shapes(tensors, student, str(path))
    config = student.config
    if prior.shape[1:] != (config.num_tokens, config.vocab_size):
        told = f"({config.num_classes}, {config.num_tokens}, {config.vocab_size})"
        raise UnsupportedCheckpoint(f"{path}: prior is {tuple(prior.shape)}, not {told}")
    student.load_state_dict(tensors)
    return student.eval().requires_grad_(False).to(device)


def _unread(path: Path, prior: torch.Tensor, device: torch.device) -> AnyStudent:
    """The student before its tensors are read; what is not its own is on the device already."""
    if model_type(path) == SCALE_MODEL_TYPE:
        tokenizer = load_tokenizer(path)
        if not isinstance(tokenizer, ScaleTokenizer):
            raise UnsupportedCheckpoint(f"{path}: its tokenizer is not one of scales")
        return ScaleStudent(read_config(path, ScaleStudentConfig), tokenizer.to(device), prior)
    config = read_config(path, StudentConfig)
    return new_student(config, torch.zeros(config.vocab_size, config.code_width), prior)
