"""The frozen target that a student learns from: its weights, and its laws of whole images.

Letters: B images, n tokens of an image, V vocabulary.
"""

from pathlib import Path

import torch

from models.errors import UnsupportedCheckpoint
from models.store import CONFIG, TENSORS, check_shapes, read_config, read_tensors
from models.targets.decoder.config import RASTER, Json, read_json
from models.targets.next_scale.model import MODEL_TYPE as NEXT_SCALE
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.tokenizers.load import load_tokenizer
from models.tokenizers.scales import ScaleTokenizer
from models.training.engines.worker import CPU
from models.training.raster import RasterConfig, RasterModel

OF_FIELDS = {
    "vocab_size": "vocab_size",
    "code_width": "code_width",
    "num_classes": "num_classes",
    "grid_width": "grid_width",
    "width": "hidden_size",
    "inner_width": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
}


class ScaleTeacher:
    """A next-scale target, in float32, without gradients and dropout, and its tokenizer."""

    def __init__(self, model: NextScaleModel, tokenizer: ScaleTokenizer) -> None:
        self.config, self.model, self.tokenizer = model.config, model, tokenizer

    @property
    def codebook(self) -> torch.Tensor:
        """[V, C] the codes that tokens stand for."""
        return self.tokenizer.codebook().detach()

    def __call__(self, classes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Classes [B] and tokens [B, n] -> logits [B, n, V]."""
        logits: torch.Tensor = self.model(classes, self.tokenizer.inputs(tokens))
        return logits


Teacher = RasterModel | ScaleTeacher


def load_teacher(folder: str | Path, device: torch.device = CPU) -> Teacher:
    """A target in float32, without gradients and dropout, on a device.

    Raises:
        UnsupportedCheckpoint: it is another kind of target, or a variant that students have not.
    """
    path = Path(folder)
    if read_json(path / CONFIG).get("model_type") == NEXT_SCALE:
        return _scale_teacher(path, device)
    model = RasterModel(_config(read_json(path / CONFIG), path), torch.zeros(0))
    tensors = {name: tensor.float() for name, tensor in read_tensors(path / TENSORS).items()}
    model.model.codebook = tensors.get("model.codebook", model.model.codebook)
    check_shapes(tensors, model, str(path))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False).to(device)


def _scale_teacher(path: Path, device: torch.device) -> ScaleTeacher:
    config, tokenizer = read_config(path, NextScaleConfig), load_tokenizer(path)
    if not isinstance(tokenizer, ScaleTokenizer):
        raise UnsupportedCheckpoint(f"{path}: its tokenizer is not one of scales")
    model = NextScaleModel(config, dropout=0.0)
    tensors = {name: tensor.float() for name, tensor in read_tensors(path / TENSORS).items()}
    check_shapes(tensors, model, str(path))
    model.load_state_dict(tensors)
    return ScaleTeacher(model.eval().requires_grad_(False).to(device), tokenizer.to(device))


def laws(
    teacher: Teacher, classes: torch.Tensor, tokens: torch.Tensor, guidance: float = 1.0
) -> torch.Tensor:
    """The teacher's logits at every place of whole images.

    Args:
        classes: [B] int64. tokens: [B, n] int64. On any device.
        guidance: scale of classifier-free guidance; 1: off.
    Returns:
        [B, n, V] float32, on the teacher's device.
    """
    device = teacher.codebook.device
    classes, tokens = classes.to(device), tokens.to(device)
    with torch.no_grad():
        read = tokens if isinstance(teacher, ScaleTeacher) else tokens[:, :-1]
        logits: torch.Tensor = teacher(classes, read)
        if guidance == 1.0:
            return logits
        no_class = torch.full_like(classes, teacher.config.num_classes)
        nothing: torch.Tensor = teacher(no_class, read)
        return nothing + guidance * (logits - nothing)


def _config(raw: Json, folder: Path) -> RasterConfig:
    if raw.get("model_type") != RASTER:
        found = raw.get("model_type")
        told = f"students are made of raster targets, model_type {RASTER!r}, and {NEXT_SCALE!r}"
        raise UnsupportedCheckpoint(f"{folder} has model_type {found!r}: {told}")
    values = dict[str, int]()
    for ours, theirs in OF_FIELDS.items():
        value = raw.get(theirs)
        if type(value) is not int or value < 1:
            told = f"{theirs} is {value!r}; students need a whole number"
            raise UnsupportedCheckpoint(f"{folder}: config.json: {told}")
        values[ours] = value
    places = raw.get("max_position_embeddings", 0) - 1
    height, rest = divmod(places, values["grid_width"])
    if places < 1 or rest:
        told = f"{places} places do not fill rows of {values['grid_width']}"
        raise UnsupportedCheckpoint(f"{folder}: config.json: {told}")
    config = RasterConfig(**values, grid_height=height, dropout=0.0)
    _refuse_variants(config.as_json(), raw, folder)
    return config


def _refuse_variants(ours: Json, raw: Json, folder: Path) -> None:
    """Raise UnsupportedCheckpoint where the target differs from what a student is built of."""
    heads = {"num_key_value_heads": ours["num_attention_heads"], "tie_word_embeddings": False}
    for name, value in {**heads, **ours}.items():
        if name != "architectures" and raw.get(name, value) != value:
            told = f"{name} is {raw[name]!r}; students are made of targets with {value!r}"
            raise UnsupportedCheckpoint(f"{folder}: config.json: {told}")
