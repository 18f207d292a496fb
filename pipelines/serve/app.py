"""The HTTP routes, and the Ray Serve deployment that answers them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence, Set
from functools import partial
from typing import Any, TypeVar

import ray
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve

from cluster import logs
from pipelines.serve.answers.events import HEADERS
from pipelines.serve.answers.forms import Chats
from pipelines.serve.answers.heading import Heading
from pipelines.serve.answers.messages import MessageWriter
from pipelines.serve.answers.parts import Parts
from pipelines.serve.answers.place import first_place, parse_place
from pipelines.serve.answers.progress import HEADER, Progress, parse_progress
from pipelines.serve.answers.responses import ResponseWriter
from pipelines.serve.api_error import ApiError, renamed, too_late
from pipelines.serve.bodies.decided import digest_of
from pipelines.serve.bodies.fields import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    DrafterBody,
    ImageBody,
    TokenizeBody,
)
from pipelines.serve.bodies.messages import RENAMED as MESSAGES_RENAMED
from pipelines.serve.bodies.messages import CountBody, MessagesBody
from pipelines.serve.bodies.plan import drawn_seed
from pipelines.serve.bodies.responses import RENAMED as RESPONSES_RENAMED
from pipelines.serve.bodies.responses import ResponsesBody
from pipelines.serve.door.access import check_access
from pipelines.serve.door.access_log import REQUEST_HEADER, AccessLog
from pipelines.serve.door.door import Door
from pipelines.serve.door.limits import Clients
from pipelines.serve.error_replies import add_error_replies
from pipelines.serve.generation.exchange import Exchange
from pipelines.serve.generation.facts import Facts
from pipelines.serve.generation.generation import Generation, chat, chat_prompt, completion
from pipelines.serve.generation.served import ImageModel, Models, TextModel, load_model
from pipelines.serve.generation.streams import (
    Completed,
    Mark,
    Stream,
    continued,
    limited,
    whole,
)
from pipelines.serve.generation.words import Words
from pipelines.serve.metrics import MEDIA as METRICS_MEDIA
from pipelines.serve.metrics import exposition
from pipelines.serve.playground import page

Streamed = CompletionBody | ChatBody | ResponsesBody | MessagesBody
OfText = TypeVar(
    "OfText",
    CompletionBody,
    ChatBody,
    ResponsesBody,
    MessagesBody,
    CountBody,
    TokenizeBody,
    DetokenizeBody,
    DrafterBody,
)
Answer = Callable[[Request], Awaitable[Response]]
Answers = dict[str, Answer]  # by route
SEED_HEADER = "x-paceline-seed"


@serve.ingress()
class Ingress:
    """A replica: routes, tokenizers, and a line to the manager of each model."""

    def __init__(self, door: Door, models: Sequence[tuple[Any, Facts]]) -> None:
        self._door, self._models = door, models

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Ray Serve looks for
        """Called by Ray Serve once the replica runs."""
        logs.set_up("ingress")
        here = ray.get_runtime_context().current_actor
        return build_app(self._door, self._models, actor=here)


def build_app(
    door: Door,
    models: Sequence[tuple[Any, Facts]],
    *,
    actor: Any = None,
    patience_s: float = 0.0,
) -> FastAPI:
    """The routes; `models`: each with the handle of its manager.

    `actor`: in which they are served. `patience_s`: how long requests wait for a manager that is
    replaced, see Exchange.

    Not to be confused: /health says that this process answers, /readyz that the models do.
    """
    app = FastAPI(title="Paceline", docs_url=None, redoc_url=None, openapi_url=None)
    name, clients = f"ingress-{uuid.uuid4().hex}", Clients(door.limits)
    way = partial(Exchange, name=name, clients=clients, actor=actor, patience_s=patience_s)
    loaded = [load_model(way(m), facts) for m, facts in models]
    routes = Routes(door, Models(loaded))
    for path in ("/health", "/healthz"):
        app.add_api_route(path, routes.health, methods=["GET"])
    app.add_api_route("/readyz", routes.ready, methods=["GET"])
    app.add_api_route("/", routes.playground, methods=["GET"])
    app.add_api_route("/metrics", routes.metrics, methods=["GET"])
    app.add_api_route("/v1/models", routes.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", routes.model, methods=["GET"])
    for path, answer in routes.of_kinds({facts.kind for _, facts in models}).items():
        app.add_api_route(path, answer, methods=["POST"])
    add_error_replies(app)
    app.add_middleware(AccessLog)
    return app


class Routes:
    """One method per route."""

    def __init__(self, door: Door, models: Models) -> None:
        self._door, self._models = door, models

    def of_kinds(self, kinds: Set[str]) -> Answers:
        """The routes of text models and of image models; without such a model they say so."""
        images: Answers = {"/v1/images/generations": partial(self.timed, self.images)}
        texts: Answers = {
            "/v1/completions": partial(self.timed, self.completions),
            "/v1/chat/completions": partial(self.timed, self.chats),
            "/v1/responses": partial(self.timed, self.responses),
            "/v1/messages": partial(self.timed, self.messages),
            "/v1/messages/count_tokens": partial(self.timed, self.count_tokens),
            "/tokenize": partial(self.timed, self.tokenize),
            "/detokenize": partial(self.timed, self.detokenize),
            "/drafter": self.drafter,  # a model that has begun to change does not stop
        }
        if "text" not in kinds:
            texts = dict.fromkeys(texts, partial(self.missing, TextModel))
        if "images" not in kinds:
            images = dict.fromkeys(images, partial(self.missing, ImageModel))
        return texts | images

    async def missing(self, kind: type[TextModel | ImageModel], request: Request) -> Response:
        """Raises ApiError (404): no model of this server is of the route's kind."""
        self._door.check(request.headers)
        raise self._models.without(kind, request.url.path)

    async def timed(self, answer: Answer, request: Request) -> Response:
        """An answer within the time that a request has, its body and its tokens included.

        Raises ApiError (504). What is streamed after this has the same time: `state.deadline`.
        """
        seconds, now = self._door.limits.seconds, asyncio.get_running_loop().time()
        request.state.deadline = now + seconds if seconds else None
        try:
            async with asyncio.timeout_at(request.state.deadline) as limit:
                return await answer(request)
        except TimeoutError as error:
            if limit.expired():
                raise too_late(seconds) from error
            raise

    async def health(self) -> Response:
        """This process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """All models can take requests; 503 otherwise."""
        for model in self._models:
            await model.exchange.ask(model.exchange.manager.ready.remote())
        return JSONResponse({"status": "ready"})

    async def playground(self, request: Request) -> Response:
        """The page, which holds no secrets: it asks for a key where one is needed."""
        if not self._door.key_hashes:
            check_access(request.headers, ())
        text, headers = page()
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus reads."""
        self._door.check(request.headers)
        found = {
            model.facts.name: await model.exchange.ask(model.exchange.manager.measured.remote())
            for model in self._models
        }
        return Response(exposition(found), media_type=METRICS_MEDIA)

    async def models(self, request: Request) -> Response:
        """All models."""
        self._door.check(request.headers)
        cards = [await model.card() for model in self._models]
        return JSONResponse({"object": "list", "data": cards})

    async def model(self, request: Request, name: str) -> Response:
        """The model of this name."""
        self._door.check(request.headers)
        return JSONResponse(await self._models.named(name).card())

    async def completions(self, request: Request) -> Response:
        """Continue texts or token ids."""
        body, model = await self._text(request, CompletionBody)
        body, last, digest = await _continued(request, body, model, parse_progress)
        made = await completion(body, *_of(request, model))
        return await self._answer(request, body, made, made.progress(last, digest))

    async def chats(self, request: Request) -> Response:
        """Answer a chat."""
        body, model = await self._text(request, ChatBody)
        body, last, digest = await _continued(request, body, model, parse_progress)
        made = await chat(limited(body, last), *_of(request, model))
        return await self._answer(request, body, made, made.progress(last, digest))

    async def responses(self, request: Request) -> Response:
        """Answer a chat in the form of OpenAI's responses."""
        body, model = await self._text(request, ResponsesBody)
        body, last, digest = await _continued(request, body, model, parse_place)

        def write(heading: Heading, chats: Chats, parts: Parts) -> ResponseWriter:
            place = last or first_place(heading, digest, named=heading.repeats)
            return ResponseWriter(heading, body, chats, parts, place)

        with renamed(RESPONSES_RENAMED):
            made = await chat(limited(body.chat(), last), *_of(request, model), write)
        return await self._answer(request, body, made)

    async def messages(self, request: Request) -> Response:
        """Answer a chat in Anthropic's form."""
        body, model = await self._text(request, MessagesBody)
        body, last, digest = await _continued(request, body, model, parse_place)

        def write(heading: Heading, chats: Chats, parts: Parts) -> MessageWriter:
            place = last or first_place(heading, digest, named=heading.repeats)
            return MessageWriter(heading, parts, place)

        with renamed(MESSAGES_RENAMED):
            made = await chat(limited(body.chat(), last), *_of(request, model), write)
        return await self._answer(request, body, made)

    async def count_tokens(self, request: Request) -> Response:
        """The tokens of a chat in Anthropic's form."""
        body, model = await self._text(request, CountBody)
        tokens = await chat_prompt(body.chat(), model.words)
        return JSONResponse({"input_tokens": len(tokens)})

    async def images(self, request: Request) -> Response:
        """Images of a class."""
        body = await self._door.read(request, ImageBody)
        pictures = self._models.of(ImageModel, body.model).pictures
        seed = drawn_seed() if body.seed is None else body.seed
        headers = {SEED_HEADER: str(seed)}
        state = request.state
        call = await pictures.call(
            body, seed, request.is_disconnected, state.client, state.deadline
        )
        await call.__aenter__()  # what it raises has a status of its own
        if not body.stream:
            return await whole(call, pictures.whole(call, seed), headers=headers)
        events = pictures.events(call, body.partial_images)
        return Stream(call, events, headers=headers | HEADERS)

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text or a chat."""
        body, model = await self._text(request, TokenizeBody)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError("give prompt or messages, one of them", param="prompt")
        if body.messages is not None:
            tokens = await model.words.encode_chat(body.messages)
        else:
            special = body.add_special_tokens
            texts = [body.prompt or ""]
            tokens = (await model.words.encode(texts, add_special_tokens=special))[0]
        room = (await model.exchange.bounds()).max_length
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": room})

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids, without special tokens."""
        body, model = await self._text(request, DetokenizeBody)
        size = (await model.exchange.bounds()).vocabulary
        bad = [token for token in body.tokens if token >= size]
        if bad:
            told = f"tokens holds {bad[0]}; below {size} are accepted"
            raise ApiError(told, param="tokens", code="invalid_value")
        return JSONResponse({"prompt": await model.words.decode(body.tokens)})

    async def drafter(self, request: Request) -> Response:
        """Let a model go on with another drafter, in the requests that run, too."""
        body, model = await self._text(request, DrafterBody)
        self._door.check_admin(request.state.client)
        await model.exchange.change_drafter(body.drafter)
        return JSONResponse({"model": model.facts.name, "drafter": body.drafter})

    # --- what routes share --------------------------------------------------------------------

    async def _text(self, request: Request, kind: type[OfText]) -> tuple[OfText, TextModel]:
        """A body, and the model that it is for."""
        body = await self._door.read(request, kind)
        return body, self._models.of(TextModel, body.model)

    async def _answer(
        self,
        request: Request,
        body: Streamed,
        made: Generation,
        progress: Progress | None = None,
    ) -> Response:
        headers = {SEED_HEADER: str(made.heading.seed), REQUEST_HEADER: made.heading.id}
        state = request.state
        call = made.call(request.is_disconnected, state.client, state.deadline)
        await call.__aenter__()  # what it raises has a status of its own
        if not body.stream:
            return await whole(call, made.whole(call), headers=headers)
        return Stream(call, made.events(call, progress), headers=headers | HEADERS)


async def _continued(
    request: Request, body: Completed, model: TextModel, parse: Callable[[str], Mark]
) -> tuple[Completed, Mark | None, str]:
    """As `continued`; a new stream asks nothing."""
    last = request.headers.get(HEADER)
    if last is None:
        return body, None, digest_of(body) if body.stream else ""
    return continued(last, body, await model.known(), parse)


def _of(request: Request, model: TextModel) -> tuple[Words, Exchange, Facts, str]:
    """What a generation needs besides its body."""
    return model.words, model.exchange, model.facts, request.state.client
