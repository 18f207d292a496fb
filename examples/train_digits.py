"""Train two small image models on scikit-learn's handwritten digits, each with its tokenizer.

digits-raster: a grid of 8 x 8 tokens written row by row. digits-scale: maps of rising size, each
adding detail to the ones before. The 1,797 images of 8 x 8 pixels are enlarged to 16 x 16; a fifth
of them is held out, the others are turned, moved and resized a little at every look. A second run
goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F
from tqdm import tqdm

from models.metrics.images import digits
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.tokenizers import TOKENIZER_FOLDER
from models.tokenizers.conv import ConvConfig
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.load import Tokenizer, load_tokenizer
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer
from models.training.image_tokenizer import CodeUse, start_codes, tokenizer_step
from models.training.learn import Stage, learn
from models.training.raster import RasterConfig, RasterModel

SIZE, CLASSES, CODES, SCALES = 16, 10, 128, (1, 2, 3, 4, 6, 8)
BATCH, REVIVE_EVERY, COPIES = 64, 10, 24
CONV = ConvConfig(
    image_channels=1, channels=24, multipliers=(1, 2), num_blocks=1, latent_channels=32,
    num_groups=8,
)  # fmt: skip
GRID = GridConfig(conv=CONV, image_size=SIZE, vocab_size=CODES, code_width=8, background=-1.0)
PYRAMID = ScalesConfig(
    conv=CONV, image_size=SIZE, vocab_size=CODES, code_width=16, scales=SCALES
)  # fmt: skip
RASTER = RasterConfig(
    vocab_size=CODES, code_width=8, num_classes=CLASSES, grid_width=8, grid_height=8,
    width=128, inner_width=352, num_layers=6, num_heads=4,
)  # fmt: skip
NEXT_SCALE = NextScaleConfig(
    vocab_size=CODES, code_width=16, num_classes=CLASSES, scales=SCALES,
    width=128, inner_width=512, num_layers=6, num_heads=4,
)  # fmt: skip
# (classes [B], tokens [B, L]) -> mean nats per token
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Digits:
    """Images [N, 1, 16, 16] in -1 to 1, black is -1, and what they show."""

    images: torch.Tensor
    classes: torch.Tensor  # [N]

    def __getitem__(self, chosen: torch.Tensor) -> Digits:
        return Digits(self.images[chosen], self.classes[chosen])

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Run:
    """What all stages share: where their state goes, the seed and the scale of the work."""

    work: Path
    seed: int
    scale: float

    def size(self, full: int) -> int:
        """A number of steps or copies at this run's scale, at least one."""
        return max(1, round(full * self.scale))

    def stage(self, name: str, steps: int, rate: float) -> Stage:
        """A leg of training, its steps at this run's scale."""
        state = self.work / name.replace(" ", "-")
        return Stage(name=name, steps=self.size(steps), rate=rate, seed=self.seed, state=state)


def read_digits() -> tuple[Digits, Digits]:
    """The images to learn from and the held-out ones, four to one; judges use the same split."""
    parts = []
    for part in digits.load_digits():
        large = F.interpolate(part.images, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
        parts.append(Digits(2 * large - 1, part.classes))
    return parts[0], parts[1]


def varied(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image [B, 1, 16, 16] turned by up to 9 degrees, moved and resized a little."""
    turn, grow, across, down = 2 * torch.rand(4, len(images), generator=generator) - 1
    angle, size = 0.16 * turn, 1 + 0.08 * grow
    cosine, sine = size * angle.cos(), size * angle.sin()
    rows = [cosine, -sine, 0.1 * across, sine, cosine, 0.1 * down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def batch_of(data: Digits, generator: torch.Generator) -> Digits:
    """Random images."""
    return data[torch.randint(len(data), (BATCH,), generator=generator)]


def train_tokenizer(
    stage: Stage, tokenizer: Tokenizer, data: Digits, held: Digits, folder: Path
) -> tuple[Tokenizer, dict[str, object]]:
    """Train, store in bfloat16 and read back, so that targets see what users will."""
    use, last = CodeUse(CODES), 0.8 * stage.steps

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, str]:
        made = tokenizer_step(tokenizer, varied(batch_of(data, generator).images, generator))
        if step == 0:
            start_codes(tokenizer.codes, made, generator)
        use.observe(made.tokens)
        if step % REVIVE_EVERY == REVIVE_EVERY - 1 and step < last:
            use.revive(tokenizer.codes, made, generator)
        return made.loss, f"error {made.pixel_error:.4f}"

    spent = learn(stage, tokenizer, loss, {"use": use.shares})
    tokenizer.save(folder / TOKENIZER_FOLDER, dtype=torch.bfloat16)
    stored = load_tokenizer(folder)
    return stored, {**spent, **judge_tokenizer(stored, held), **sizes(folder / TOKENIZER_FOLDER)}


def judge_tokenizer(tokenizer: Tokenizer, held: Digits) -> dict[str, float]:
    """How far held-out images come back changed, and how many codes are at work."""
    tokens = tokenizer.encode(held.images)
    gone = tokenizer.decode(tokens) - held.images
    shares = torch.bincount(tokens.flatten(), minlength=CODES).float() / tokens.numel()
    return {
        "mean_square_error": gone.square().mean().item(),
        "mean_absolute_error": gone.abs().mean().item(),
        "variance_explained": 1 - (gone.var() / held.images.var()).item(),
        "codes_used": int((shares > 0).sum()),
        "code_perplexity": torch.special.entr(shares).sum().exp().item(),
    }


def tokens_of(tokenizer: Tokenizer, data: Digits, copies: int, seed: int) -> torch.Tensor:
    """Tokens of every image as it is and of varied copies of it: [copies, N, L]."""
    generator, made = torch.Generator().manual_seed(seed), []
    for copy in tqdm(range(copies), "encode", unit="copy"):
        images = varied(data.images, generator) if copy else data.images
        made.append(torch.cat([tokenizer.encode(part) for part in images.split(256)]))
    return torch.stack(made)


def dropped(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One class in ten becomes none, which guidance needs."""
    return classes.where(torch.rand(len(classes), generator=generator) >= 0.1, CLASSES)


class Target(Protocol):
    """A model of tokens given a class; class CLASSES stands for none."""

    def save(self, folder: Path, dtype: torch.dtype) -> None: ...


def train_target(
    stage: Stage,
    model: Target,
    loss_of: Loss,
    tokenizer: Tokenizer,
    data: Digits,
    held: Digits,
    folder: Path,
    batch: int,
) -> dict[str, object]:
    """Train on the tokens of varied images, `batch` a step; one class in ten is dropped."""
    tokens = tokens_of(tokenizer, data, min(COPIES, stage.steps), stage.seed)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, str]:
        chosen = torch.randint(len(data), (batch,), generator=generator)
        copy = torch.randint(len(tokens), (batch,), generator=generator)
        value = loss_of(dropped(data.classes[chosen], generator), tokens[copy, chosen])
        return value, f"{value.item():.3f} nats a token"

    assert isinstance(model, torch.nn.Module)
    spent = learn(stage, model, loss)
    model.save(folder, torch.bfloat16)
    told = tokenizer.encode(held.images)
    with torch.no_grad():
        none = torch.full_like(held.classes, CLASSES)
        losses = {
            "held_out_loss": loss_of(held.classes, told).item(),
            "held_out_loss_without_class": loss_of(none, told).item(),
            "training_loss": loss_of(data.classes, tokens[0]).item(),
        }
    return {**spent, **losses, **sizes(folder)}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the weights."""
    return {"weight_bytes": (folder / "model.safetensors").stat().st_size}


def make_raster(run: Run, data: Digits, held: Digits, folder: Path) -> dict[str, object]:
    """A grid and the target that writes it row by row; returns the report."""
    torch.manual_seed(run.seed)
    stage = run.stage("grid tokenizer", steps=400, rate=3e-3)
    grid, told = train_tokenizer(stage, GridTokenizer(GRID), data, held, folder)
    stage = run.stage("raster target", steps=700, rate=2e-3)
    model = RasterModel(RASTER, grid.codebook())
    return {
        "tokenizer": told,
        "target": train_target(stage, model, model.loss, grid, data, held, folder, BATCH),
    }


def make_scale(run: Run, data: Digits, held: Digits, folder: Path) -> dict[str, object]:
    """A pyramid of token maps and the target that writes it map by map; returns the report."""
    torch.manual_seed(run.seed)
    stage = run.stage("scale tokenizer", steps=400, rate=3e-3)
    made, told = train_tokenizer(stage, ScaleTokenizer(PYRAMID), data, held, folder)
    assert isinstance(made, ScaleTokenizer)
    pyramid, model = made, NextScaleModel(NEXT_SCALE, dropout=0.0)

    def loss_of(classes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return model.loss(classes, tokens, pyramid.inputs(tokens))

    stage = run.stage("next-scale target", steps=500, rate=2e-3)
    return {
        "tokenizer": told,
        "target": train_target(stage, model, loss_of, pyramid, data, held, folder, BATCH // 2),
    }


MODELS = {"digits-raster": make_raster, "digits-scale": make_scale}


def main(arguments: list[str] | None = None) -> None:
    """Read the options, make the models and write the report into each one's folder."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=here / "models")
    parser.add_argument("--work", type=Path, default=here.parent / "out" / "digits-models")
    parser.add_argument("--only", nargs="+", choices=MODELS, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="0.01 is a smoke test")
    options = parser.parse_args(arguments)
    run = Run(options.work, options.seed, options.steps_scale)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    shared = {"seed": run.seed, "steps_scale": run.scale, "threads": torch.get_num_threads()}
    data, held = read_digits()
    tqdm.write(f"{len(data)} images to learn from, {len(held)} held out")
    for name in options.only or MODELS:
        report = {**MODELS[name](run, data, held, options.output / name), **shared, **versions}
        (options.output / name / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
