"""The HTTP routes, and the Ray Serve deployment that answers them."""

import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve

from pipelines.modality.choose import modality
from pipelines.serve.access import check_access, check_content
from pipelines.serve.answers.events import HEADERS
from pipelines.serve.answers.forms import Chats
from pipelines.serve.answers.heading import Heading
from pipelines.serve.answers.messages import MessageWriter
from pipelines.serve.answers.progress import Progress
from pipelines.serve.answers.responses import ResponseWriter
from pipelines.serve.api_error import ApiError, renamed
from pipelines.serve.bodies.fields import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    ImageBody,
    TokenizeBody,
)
from pipelines.serve.bodies.messages import RENAMED as MESSAGES_RENAMED
from pipelines.serve.bodies.messages import CountBody, MessagesBody
from pipelines.serve.bodies.plan import drawn_seed
from pipelines.serve.bodies.read_body import AnyBody, read_body
from pipelines.serve.bodies.responses import RENAMED as RESPONSES_RENAMED
from pipelines.serve.bodies.responses import ResponsesBody
from pipelines.serve.error_replies import add_error_replies
from pipelines.serve.exchange import Exchange
from pipelines.serve.facts import Facts
from pipelines.serve.generation import Generation, chat, chat_prompt, completion
from pipelines.serve.metrics import MEDIA as METRICS_MEDIA
from pipelines.serve.metrics import exposition
from pipelines.serve.playground import page
from pipelines.serve.streams import Stream, continued
from pipelines.serve.words import Words

if TYPE_CHECKING:
    from pipelines.serve.pictures import Pictures

Streamed = CompletionBody | ChatBody | ResponsesBody | MessagesBody
MODALITIES = {"text": "text", "images": "image"}
SEED_HEADER = "x-paceline-seed"


@serve.ingress()
class Ingress:
    """A replica: routes, tokenizer, and a line to the manager."""

    def __init__(self, manager: Any, facts: Facts) -> None:
        self._manager, self._facts = manager, facts

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Ray Serve looks for
        """Called by Ray Serve once the replica runs."""
        return build_app(Exchange(self._manager, f"ingress-{uuid.uuid4().hex}"), self._facts)


def build_app(exchange: Exchange, facts: Facts) -> FastAPI:
    """The routes. Not to be confused: /health says that this process answers, /readyz the model."""
    exchange.limits = facts.limits
    app = FastAPI(title="Paceline", docs_url=None, redoc_url=None, openapi_url=None)
    routes = Routes(exchange, facts)
    for path in ("/health", "/healthz"):
        app.add_api_route(path, routes.health, methods=["GET"])
    app.add_api_route("/readyz", routes.ready, methods=["GET"])
    app.add_api_route("/", routes.playground, methods=["GET"])
    app.add_api_route("/metrics", routes.metrics, methods=["GET"])
    app.add_api_route("/v1/models", routes.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", routes.model, methods=["GET"])
    for path, answer in routes.of_kind().items():
        app.add_api_route(path, answer, methods=["POST"])
    add_error_replies(app)
    return app


class Routes:
    """One method per route."""

    def __init__(self, exchange: Exchange, facts: Facts) -> None:
        self._exchange, self._facts = exchange, facts
        if facts.kind == "text":
            self._words = Words(facts.checkpoint)
        else:
            self._pictures = _pictures(exchange, facts)

    def of_kind(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """The routes of a text model or an image model."""
        if self._facts.kind == "images":
            return {"/v1/images/generations": self.images}
        return {
            "/v1/completions": self.completions,
            "/v1/chat/completions": self.chats,
            "/v1/responses": self.responses,
            "/v1/messages": self.messages,
            "/v1/messages/count_tokens": self.count_tokens,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
        }

    async def health(self) -> Response:
        """This process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """The target can take requests; 503 otherwise."""
        await self._exchange.ask(self._exchange.manager.describe.remote())
        return JSONResponse({"status": "ready"})

    async def playground(self, request: Request) -> Response:
        """The page, which holds no secrets: it asks for a key where one is needed."""
        if not self._facts.key_hashes:
            check_access(request.headers, ())
        text, headers = page()
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus reads."""
        check_access(request.headers, self._facts.key_hashes)
        measured = await self._exchange.ask(self._exchange.manager.measured.remote())
        return Response(exposition({self._facts.name: measured}), media_type=METRICS_MEDIA)

    async def models(self, request: Request) -> Response:
        """The one model."""
        check_access(request.headers, self._facts.key_hashes)
        return JSONResponse({"object": "list", "data": [await self._card()]})

    async def model(self, request: Request, name: str) -> Response:
        """The model of this name."""
        check_access(request.headers, self._facts.key_hashes)
        self._check_model(name)
        return JSONResponse(await self._card())

    async def completions(self, request: Request) -> Response:
        """Continue texts or token ids."""
        body = await self._read(request, CompletionBody)
        body, last = continued(request, body, self._facts)
        made = await completion(body, *self._of(request))
        return await self._answer(request, body, made, made.progress(last))

    async def chats(self, request: Request) -> Response:
        """Answer a chat."""
        body = await self._read(request, ChatBody)
        body, last = continued(request, body, self._facts)
        made = await chat(body, *self._of(request))
        return await self._answer(request, body, made, made.progress(last))

    async def responses(self, request: Request) -> Response:
        """Answer a chat in the form of OpenAI's responses."""
        body = await self._read(request, ResponsesBody)
        calls = bool(body.tools) and body.tool_choice not in (None, "none", "auto")

        def write(heading: Heading, chats: Chats) -> ResponseWriter:
            return ResponseWriter(heading, body, chats, calls=calls)

        with renamed(RESPONSES_RENAMED):
            made = await chat(body.chat(), *self._of(request), write)
        return await self._answer(request, body, made)

    async def messages(self, request: Request) -> Response:
        """Answer a chat in Anthropic's form."""
        body = await self._read(request, MessagesBody)
        calls = body.tool_choice is not None and body.tool_choice.type in ("any", "tool")

        def write(heading: Heading, chats: Chats) -> MessageWriter:
            return MessageWriter(heading, calls=calls)

        with renamed(MESSAGES_RENAMED):
            made = await chat(body.chat(), *self._of(request), write)
        return await self._answer(request, body, made)

    async def count_tokens(self, request: Request) -> Response:
        """The tokens of a chat in Anthropic's form."""
        body = await self._read(request, CountBody)
        tokens = await chat_prompt(body.chat(), self._words)
        return JSONResponse({"input_tokens": len(tokens)})

    async def images(self, request: Request) -> Response:
        """Images of a class."""
        body = await self._read(request, ImageBody)
        seed = drawn_seed() if body.seed is None else body.seed
        headers = {SEED_HEADER: str(seed)}
        call = self._pictures.call(body, seed, request.is_disconnected, request.state.client)
        if not body.stream:
            async with call:
                return JSONResponse(await self._pictures.whole(call, seed), headers=headers)
        await call.__aenter__()  # what it raises has a status of its own
        events = self._pictures.events(call, body.partial_images)
        return Stream(call, events, headers=headers | HEADERS)

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text or a chat."""
        body = await self._read(request, TokenizeBody)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError("give prompt or messages, one of them", param="prompt")
        if body.messages is not None:
            tokens = await self._words.encode_chat(body.messages)
        else:
            special = body.add_special_tokens
            texts = [body.prompt or ""]
            tokens = (await self._words.encode(texts, add_special_tokens=special))[0]
        room = (await self._exchange.bounds()).max_length
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": room})

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids, without special tokens."""
        body = await self._read(request, DetokenizeBody)
        size = (await self._exchange.bounds()).vocabulary
        bad = [token for token in body.tokens if token >= size]
        if bad:
            told = f"tokens holds {bad[0]}; below {size} are accepted"
            raise ApiError(told, param="tokens", code="invalid_value")
        return JSONResponse({"prompt": await self._words.decode(body.tokens)})

    # --- what routes share --------------------------------------------------------------------

    def _of(self, request: Request) -> tuple[Words, Exchange, Facts, str]:
        """What a generation needs besides its body."""
        return self._words, self._exchange, self._facts, request.state.client

    async def _read(self, request: Request, kind: type[AnyBody]) -> AnyBody:
        """The body of a client that may send one."""
        request.state.client = check_access(request.headers, self._facts.key_hashes)
        check_content(request.headers)
        body = read_body(await self._bytes(request), kind)
        model = getattr(body, "model", None)
        if model is not None:
            self._check_model(model)
        return body

    async def _bytes(self, request: Request) -> bytes:
        most, data = self._facts.max_body_bytes, bytearray()
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise _too_large(most)
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise _too_large(most)
        return bytes(data)

    def _check_model(self, name: str) -> None:
        if name != self._facts.name:
            told = f"there is no model {name[:100]!r}; this server has {self._facts.name!r}"
            raise ApiError(told, status=404, param="model", code="model_not_found")

    async def _card(self) -> dict[str, Any]:
        bounds = await self._exchange.bounds()
        return {
            "id": self._facts.name,
            "object": "model",
            "created": self._facts.created,
            "owned_by": "paceline",
            "max_model_len": bounds.max_length,
            "architecture": {"output_modalities": [MODALITIES[self._facts.kind]]},
        }

    async def _answer(
        self,
        request: Request,
        body: Streamed,
        made: Generation,
        progress: Progress | None = None,
    ) -> Response:
        headers = {SEED_HEADER: str(made.heading.seed)}
        call = made.call(request.is_disconnected, request.state.client)
        if not body.stream:
            async with call:
                return JSONResponse(await made.whole(call), headers=headers)
        await call.__aenter__()  # what it raises has a status of its own
        return Stream(call, made.events(call, progress), headers=headers | HEADERS)


def _pictures(exchange: Exchange, facts: Facts) -> "Pictures":
    from pipelines.modality.images import Images  # these load torch: only where images are made
    from pipelines.serve.pictures import Pictures

    found = modality(facts.checkpoint)
    assert isinstance(found, Images), "facts.kind says so"
    return Pictures(found, exchange, facts)


def _too_large(most: int) -> ApiError:
    return ApiError(f"the body is too large: {most} bytes are accepted", status=413)
