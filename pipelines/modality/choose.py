"""Texts or images: chosen by the target's checkpoint."""

from pathlib import Path

from models.targets.decoder.config import read_configs
from models.tokenizers import OURS
from pipelines.generate.config import GenerateConfig
from pipelines.modality.modality import Modality


def modality_of(config: GenerateConfig) -> Modality:
    """By the target's config.json.

    Raises:
        UnsupportedCheckpoint: the folder has none, or an image target lacks its tokenizer.
    """
    return modality(config.engine().target, files=config.images_as == "files")


def modality(checkpoint: str, *, files: bool = False) -> Modality:
    """Of a checkpoint; `files`: images are written as files.

    Imported here: with texts, no process that reads, encodes or writes has to load torch.

    Raises:
        UnsupportedCheckpoint: it has no config.json, or an image target has no tokenizer.
    """
    raw, _ = read_configs(Path(checkpoint))
    if not str(raw.get("model_type")).startswith(OURS):
        from pipelines.modality.texts import Texts

        return Texts(checkpoint=checkpoint)
    from models.tokenizers.about import image_target
    from pipelines.modality.images import Images

    about = image_target(checkpoint)
    assert about is not None, "its model_type says so"
    return Images(checkpoint=checkpoint, about=about, as_files=files)
