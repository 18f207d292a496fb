"""The models of a server, and which of them answers a body."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.modality.choose import modality
from pipelines.serve.api_error import ApiError
from pipelines.serve.generation.exchange import Exchange
from pipelines.serve.generation.facts import Facts, known
from pipelines.serve.generation.words import Words

if TYPE_CHECKING:
    from pipelines.serve.generation.pictures import Pictures

MODALITIES = {"text": "text", "images": "image"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`exchange`: the way to the manager of its pool."""

    exchange: Exchange
    facts: Facts

    async def known(self) -> Facts:
        """With what only the running model tells. Raises ApiError (503) while it loads."""
        return known(self.facts, await self.exchange.told())

    async def card(self) -> dict[str, Any]:
        """What /v1/models says of it. Raises ApiError (503) while it loads."""
        facts = self.facts
        card = {
            "id": facts.name,
            "object": "model",
            "created": facts.created,
            "owned_by": "paceline",
            "max_model_len": (await self.exchange.bounds()).max_length,
            "architecture": {"output_modalities": [MODALITIES[facts.kind]]},
        }
        if facts.steps:
            card["student"] = {"steps": facts.steps, "max_steps": facts.max_steps}
        return card


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel(Model):
    """Continues texts."""

    words: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel(Model):
    """Makes images of classes."""

    pictures: "Pictures"


ROUTES = {TextModel: "texts", ImageModel: "images"}
OfKind = TypeVar("OfKind", TextModel, ImageModel)


def load_model(exchange: Exchange, facts: Facts) -> TextModel | ImageModel:
    """A model with the tokenizer that an ingress needs."""
    if facts.kind == "text":
        return TextModel(exchange=exchange, facts=facts, words=Words(facts.checkpoint))
    from pipelines.modality.images import Images  # these load torch: only where images are made
    from pipelines.serve.generation.pictures import Pictures

    found = modality(facts.checkpoint)
    assert isinstance(found, Images), "facts.kind says so"
    pictures = Pictures(found, exchange, facts)
    return ImageModel(exchange=exchange, facts=facts, pictures=pictures)


class Models:
    """By the names that clients call them."""

    def __init__(self, models: Iterable[TextModel | ImageModel]) -> None:
        self._by_name = {model.facts.name: model for model in models}

    def __iter__(self) -> Iterator[TextModel | ImageModel]:
        return iter(self._by_name.values())

    def named(self, name: str) -> TextModel | ImageModel:
        """Raises ApiError (404), which names the known ones."""
        if name not in self._by_name:
            known = ", ".join(map(repr, self._by_name))
            told = f"there is no model {name[:100]!r}; this server has {known}"
            raise ApiError(told, status=404, param="model", code="model_not_found")
        return self._by_name[name]

    def without(self, kind: type[TextModel | ImageModel], path: str) -> ApiError:
        """That no model is of the kind that a route needs (404), and what the others make."""
        made = ", ".join(f"{m.facts.name!r} makes {ROUTES[type(m)]}" for m in self)
        told = f"{path}: no model of this server makes {ROUTES[kind]}; {made}"
        return ApiError(told, status=404, code="not_found")

    def of(self, kind: type[OfKind], name: str | None) -> OfKind:
        """The model of this name, or the only one of this kind.

        Raises ApiError: there is none of this name (404), it does something else, or several could
        be meant (400).
        """
        some = [model for model in self if isinstance(model, kind)]
        if name is None and len(some) == 1:
            return some[0]
        names = ", ".join(repr(model.facts.name) for model in some)
        if name is None:
            told = f"model is missing, and several make {ROUTES[kind]}: {names}"
            raise ApiError(told, param="model", code="missing_required_parameter")
        found = self.named(name)
        if not isinstance(found, kind):
            told = f"the model {name!r} does not make {ROUTES[kind]}; {names} are accepted here"
            raise ApiError(told, param="model", code="invalid_value")
        return found
