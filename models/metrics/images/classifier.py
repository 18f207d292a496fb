"""A small convolutional classifier, for features of images and predictions of their labels.

Letters: N images, C channels, H and W pixels, F features, K classes.
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS, FEATURES = (16, 32), 64
EPOCHS, BATCH, RATE = 12, 64, 6e-3


class Classifier(nn.Module):
    """Two convolutions, one hidden layer (the features), one layer of classes."""

    def __init__(self, size: tuple[int, int, int], labels: tuple[str, ...]) -> None:
        """`size` is (channels, height, width); images are resized to it."""
        super().__init__()
        self.size, self.labels = size, labels
        self.first = nn.Conv2d(size[0], CHANNELS[0], 3, padding=1)
        self.second = nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, padding=1)
        self.hidden = nn.Linear(CHANNELS[1] * 16, FEATURES)
        self.classes = nn.Linear(FEATURES, len(labels))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[N, F] of images [N, C, H, W] in 0 to 1, any size. Mean square 1 on training images."""
        x = F.relu(self.first(resized(images, self.size)))
        x = F.relu(self.second(x))
        return F.relu(self.hidden(F.adaptive_avg_pool2d(x, 4).flatten(1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K]."""
        logits: torch.Tensor = self.classes(self.features(images))
        return logits

    @torch.inference_mode()
    def seen(self, images: torch.Tensor, *, batch: int = 1024) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, F] and the likeliest class [N] of many images."""
        found = [self.features(part) for part in images.split(batch)]
        features = torch.cat(found)
        return features, self.classes(features).argmax(-1)


def resized(images: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Images resized by area averaging; another number of channels is replaced by their mean."""
    if images.shape[1] != size[0]:
        images = images.mean(1, keepdim=True).expand(-1, size[0], -1, -1)
    same = tuple(images.shape[2:]) == size[1:]
    return images if same else F.adaptive_avg_pool2d(images, size[1:])


def train(
    images: torch.Tensor, classes: torch.Tensor, labels: tuple[str, ...], *, seed: int = 0
) -> Classifier:
    """A classifier of images [N, C, H, W] with classes [N], each an index into `labels`.

    Deterministic for a seed, on the same machine with the same number of threads.
    """
    random = torch.Generator().manual_seed(seed)
    channels, height, width = images.shape[1:]
    model = Classifier((channels, height, width), labels)
    _initialize(model, random)
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images), generator=random).split(BATCH):
            loss = F.cross_entropy(model(images[part]), classes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    _scale_features(model, images)
    return model.eval()


@torch.no_grad()
def _scale_features(model: Classifier, images: torch.Tensor) -> None:
    """Make the features' mean square 1 on these images, without changing any logit."""
    size = float(model.features(images).square().mean().sqrt())
    model.hidden.weight.div_(size)
    model.hidden.bias.div_(size)
    model.classes.weight.mul_(size)


@torch.inference_mode()
def accuracy(model: Classifier, images: torch.Tensor, classes: torch.Tensor) -> float:
    """Share of images [N, C, H, W] whose class [N] is the predicted one."""
    _, found = model.seen(images)
    return float((found == classes).double().mean())


def _initialize(model: Classifier, random: torch.Generator) -> None:
    """Initialise the weights from `random` only, not from torch's global generator."""
    for module in model.children():
        assert isinstance(module, nn.Conv2d | nn.Linear)
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=random)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
