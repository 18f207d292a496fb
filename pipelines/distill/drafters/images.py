"""A drafter of an image target: what its options mean, and which images it learns from."""

from collections.abc import Sequence
from dataclasses import replace

from models.drafting.distil.texts import Text
from models.errors import InvalidOption
from models.requests.request import require
from models.tokenizers.about import ImageTarget
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.records import LABEL
from pipelines.errors import InvalidInput

BESIDE = ("jacobi", "mc-sjd")  # in the evaluation, unless the user names others
PART = 5  # a fifth of the images, at most, is kept for exams, and a fifth for the evaluation


def settled(config: DrafterOptions, about: ImageTarget) -> DrafterOptions:
    """The options with what an image target decides in place of defaults for texts.

    Raises:
        InvalidOption: an option has no meaning for images, or another value is needed.
    """
    if not about.in_order:
        told = "a target that generates images token by token; this one writes whole maps at once"
        raise InvalidOption("target", config.target, told)
    told = "model with an image target: heads and EAGLE-3 drafters are trained for texts"
    require(config.kind == "model", "kind", config.kind, told)
    told = "none with an image target: its classes are the prompts, in turn"
    require(config.prompts is None, "prompts", config.prompts, told)
    sizes = {"length": 1 + about.num_tokens, "exam_tokens": about.num_tokens}
    for name, size in sizes.items():
        value = getattr(config, name)
        require(value in (None, size), name, value, f"{size}, a whole image, or none")
    return replace(
        config,
        **sizes,  # type: ignore[arg-type]
        prompt_field=config.prompt_field or LABEL,
        beside=config.beside or BESIDE,
        guidance=about.guidance if config.guidance is None else config.guidance,
    )


def split_images(
    images: Sequence[Text], *, kept: int, order: Sequence[int]
) -> tuple[list[Text], list[Text], list[Text]]:
    """To learn from, for exams, for the evaluation: no image is in two of them.

    `order`: the images' numbers; the last two parts are the last ones in it.

    Raises:
        InvalidInput: there are too few.
    """
    count = min(kept, len(images) // PART)
    if not count:
        raise InvalidInput(f"{len(images)} images; {PART} or more are needed")
    chosen = order[-2 * count :]
    rest = sorted(set(range(len(images))) - set(chosen))
    first, second, third = (
        [images[number] for number in numbers] for numbers in (rest, chosen[:count], chosen[count:])
    )
    return first, second, third
