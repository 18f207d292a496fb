"""What the image benchmark runs: ways of decoding, labelled requests, and their pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.engine import EngineConfig, build_loop
from models.requests.request import Request, Sampling
from models.tokenizers.about import ImageTarget, image_target
from models.tokenizers.load import load_tokenizer
from pipelines.bench.interleave import Contestant, warmed
from pipelines.inputs.seeds import row_seed

SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How images are decoded: as in EngineConfig."""

    target: str
    name: str = SEQUENTIAL
    drafter: str = "none"
    window: int = 1
    coupling: str = "maximal"
    guidance: float = 1.0

    def engine(self, *, batch_size: int, threads: int) -> EngineConfig:
        """Of a loop."""
        return EngineConfig(
            target=self.target,
            drafter=self.drafter,
            draft_tokens="auto" if self.drafter == "none" else self.window,
            coupling=self.coupling,
            guidance=self.guidance,
            batch_size=batch_size,
            threads=threads,
        )


def grid(target: str, windows: Iterable[int], *, guidance: float = 1.0) -> list[Way]:
    """Sequential decoding first, then every decoder with every window."""
    plain = Way(target=target, guidance=guidance)
    decoders = {
        "jacobi": ("jacobi", "maximal"),
        "sjd": ("sjd", "maximal"),
        "mc-sjd": ("mc-sjd", "maximal"),
        "mc-sjd, gumbel": ("mc-sjd", "gumbel"),
    }
    return [plain] + [
        replace(plain, name=f"{name}, {window}", drafter=drafter, coupling=coupling, window=window)
        for name, (drafter, coupling) in decoders.items()
        for window in windows
    ]


def about(target: str) -> ImageTarget:
    """What the checkpoint says of itself; it must be one of images."""
    found = image_target(target)
    assert found is not None, target
    return found


def requests(target: str, count: int, *, turn: int, seed: int = 7) -> list[Request]:
    """Every class in turn; other seeds in every turn."""
    size = about(target)
    return [
        Request(
            id=f"{turn}/{i}",
            prompt=(size.vocab_size + i % size.num_classes,),
            sampling=Sampling(max_tokens=size.num_tokens),
            seed=row_seed(seed, f"{turn}/{i}", 0),
        )
        for i in range(count)
    ]


def contestant(way: Way, *, batch_size: int, count: int, threads: int) -> Contestant:
    """A loop that decodes `count` images in a turn, warmed up."""
    loop = build_loop(way.engine(batch_size=batch_size, threads=threads))
    warm = requests(way.target, min(count, batch_size), turn=-1)
    return warmed(loop, warm, lambda turn: requests(way.target, count, turn=turn))


def save_pictures(outputs: Mapping[str, tuple[int, ...]], target: str, file: Path) -> str:
    """Requests' images, labels and tokens as arrays that `paceline evaluate` reads."""
    names = sorted(outputs, key=lambda name: tuple(map(int, name.split("/"))))
    tokens = torch.tensor([outputs[name] for name in names])
    labels = [int(name.split("/")[1]) % about(target).num_classes for name in names]
    return save_tokens(tokens, labels, target, file)


def save_tokens(tokens: torch.Tensor, labels: Sequence[int], target: str, file: Path) -> str:
    """The same of tokens [N, n] and labels [N]."""
    with torch.inference_mode():
        pixels = load_tokenizer(target).decode(tokens)
    images = ((pixels + 1) / 2).clamp(0, 1)
    np.savez(
        file, images=images.movedim(1, -1).numpy(), labels=np.array(labels), tokens=tokens.numpy()
    )
    return str(file)
