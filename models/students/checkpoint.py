"""A student as a folder: config.json, model.safetensors and the target's image tokenizer."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from models.errors import UnsupportedCheckpoint
from models.store import TENSORS, check_shapes, read_config, read_tensors, write_folder
from models.students.about import MODEL_TYPE, is_student
from models.students.config import StudentConfig
from models.students.network import Student
from models.tokenizers import TOKENIZER_FOLDER


def save_student(student: Student, folder: Path, *, tokenizer: Path | None = None) -> None:
    """Write the folder, with the files of the folder `tokenizer` in its own subfolder."""
    write_folder(folder, MODEL_TYPE, asdict(student.config), student.state_dict())
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder / TOKENIZER_FOLDER, dirs_exist_ok=True)


def load_student(folder: str | Path) -> Student:
    """The student in a folder, in float32, without gradients.

    Raises:
        UnsupportedCheckpoint: the folder holds no student, or a tensor is missing or of another
            shape than config.json says.
    """
    path = Path(folder)
    if not is_student(path):
        told = f"config.json needs model_type {MODEL_TYPE!r}; make one with `paceline distill`"
        raise UnsupportedCheckpoint(f"{path} holds no student: {told}")
    config, tensors = read_config(path, StudentConfig), read_tensors(path / TENSORS)
    prior = tensors.get("prior", torch.zeros(0))
    codebook = torch.zeros(config.vocab_size, config.code_width)
    student = Student(config, codebook, torch.zeros_like(prior))
    check_shapes(tensors, student, str(path))
    if prior.shape[1:] != (config.num_tokens, config.vocab_size):
        told = f"({config.num_classes}, {config.num_tokens}, {config.vocab_size})"
        raise UnsupportedCheckpoint(f"{path}: prior is {tuple(prior.shape)}, not {told}")
    student.load_state_dict(tensors)
    return student.eval().requires_grad_(False)
