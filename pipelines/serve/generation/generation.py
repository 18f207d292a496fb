"""A generation from its body to its answer, whole or as a stream."""

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from models.requests.request import Result
from models.requests.update import Update
from pipelines.serve.answers.answer import Answer
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.echoes import Echoes, Prompt
from pipelines.serve.answers.forms import AnswerForm, Chats, Completions, ToolChats
from pipelines.serve.answers.free_chats import FreeChats
from pipelines.serve.answers.heading import Heading, Writer
from pipelines.serve.answers.parts import CallReader, FreeReader, Parts, TextReader
from pipelines.serve.answers.progress import MOST_CHOICES, Progress, beginning
from pipelines.serve.answers.timing import Timing
from pipelines.serve.answers.trace import Trace
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.constraints import grammar_of
from pipelines.serve.bodies.fields import ChatBody, CompletionBody
from pipelines.serve.bodies.plan import Planned, plan
from pipelines.serve.bodies.tools import free_grammar, is_free, tool_grammar
from pipelines.serve.generation.exchange import Call, ClientLeft, Exchange, Gone, Item
from pipelines.serve.generation.facts import Facts, known
from pipelines.serve.generation.words import Words


class Generation:
    """One body's requests and the answer that they make."""

    def __init__(
        self, exchange: Exchange, facts: Facts, plan: Planned, write: Callable[[Heading], Writer]
    ) -> None:
        """`write` makes the answer's writer."""
        self._exchange, self._plan = exchange, plan
        self.heading = Heading(
            id=plan.requests[0].id.partition("/")[0],
            created=int(time.time()),
            model=facts.name,
            fingerprint=facts.fingerprint,
            seed=plan.seed,
            prompt_tokens=plan.prompt_tokens,
            n=plan.n,
            has_prediction=bool(plan.requests[0].prediction),
            limit=plan.limit,
            repeats=facts.repeats,
        )
        self._writer = write(self.heading)
        self._choices = [AnswerChoice(index, plan.muted) for index in range(len(plan.requests))]

    def call(self, gone: Gone, client: str, deadline: float | None) -> Call:
        """The requests, to be run."""
        fingerprint = self.heading.fingerprint
        return self._exchange.call(self._plan.requests, gone, client, fingerprint, deadline)

    async def whole(self, call: Call) -> dict[str, Any]:
        """The answer, once all requests have ended. Raises ApiError, ClientLeft."""
        async for items in call.news():
            for index, came in by_choice(items).items():
                self._choices[index].add(came)
        return self._writer.whole(self._choices)

    async def events(self, call: Call, progress: Progress | None = None) -> AsyncIterator[bytes]:
        """The answer as server-sent events; an error is the last one.

        `progress`: events have ids, and begin after what it says was sent.
        """
        try:
            opening = list(self._writer.opening(self._choices))
            for each in opening if progress is None or progress.begins else ():
                yield each
            async for items in call.news():
                for index, came in by_choice(items).items():
                    delta = self._choices[index].add(came)
                    if not delta.is_empty:
                        for each in self._told(delta, progress):
                            yield each
            for each in self._writer.closing(self._choices):
                yield each
        except ApiError as error:
            for each in self._writer.failure(error):
                yield each
        except ClientLeft:
            return

    def _told(self, delta: Delta, progress: Progress | None) -> Iterator[bytes]:
        """The events of a delta."""
        if progress is None:
            yield from self._writer.news(delta)
            return
        old, new = progress.split(delta)
        if old is not None:
            list(self._writer.news(old))  # the writer must have seen it
        if new is not None:
            told = f"id: {progress.note(new)}\n".encode()
            for each in self._writer.news(new):
                yield told + each

    def progress(self, last: Progress | None, digest: str) -> Progress | None:
        """Of this answer's stream, from what a client has seen; None: it cannot go on later.

        `digest`: of the body. Raises ApiError (400).
        """
        count = len(self._choices)
        if last is not None and last.count != count:
            told = f"Last-Event-ID is of {last.count} choices; this body has {count}"
            raise ApiError(told, param="Last-Event-ID", code="invalid_value")
        heading = self.heading
        if last is not None or not heading.repeats or count > MOST_CHOICES:
            return last
        return beginning(heading.fingerprint, heading.seed % 2**63, digest, count, heading.limit)


def by_choice(items: Sequence[Item]) -> dict[int, list[Update | Result]]:
    """What came, for each choice in its order."""
    out: dict[int, list[Update | Result]] = {}
    for index, item in items:
        out.setdefault(index, []).append(item)
    return out


async def completion(
    body: CompletionBody, words: Words, exchange: Exchange, facts: Facts, client: str
) -> Generation:
    """The generation of a body of /v1/completions. Raises ApiError (400)."""
    timing = Timing() if body.paceline.trace_events else None
    facts.check_count(len(_given(body)) * body.n)
    prompts = await _prompts(body, words)
    form = Completions(words.spell, body.logprobs is not None)
    trace = Trace(words.spell, words.decode_now, prompts, body.n) if body.paceline.trace else None
    if body.echo:
        if body.stream and body.logprobs is not None:
            told = "log-probabilities of prompts are not streamed: echo, logprobs or stream"
            raise ApiError(told, param="echo", code="unsupported_parameter")
        form = Echoes(
            form.spell, form.logprobs, prompts=await _texts(body, prompts, words), n=body.n
        )
    asked = grammar_of(body.response_format, body.structured_outputs)
    planned = await _planned(body, prompts, words, exchange, form.prefix, asked, client)
    facts = known(facts, await exchange.told())
    return Generation(exchange, facts, planned, _answer(form, body, trace, timing))


async def chat(
    body: ChatBody,
    words: Words,
    exchange: Exchange,
    facts: Facts,
    client: str,
    write: Callable[[Heading, Chats, Parts], Writer] | None = None,
) -> Generation:
    """The generation of a body of /v1/chat/completions. Raises ApiError (400).

    `write` makes the writer of an answer in another form than OpenAI's chats.
    """
    timing = Timing() if body.paceline.trace_events else None
    facts.check_count(body.n)
    if write is not None:
        _refuse_traces(body)
    asked = grammar_of(body.response_format, body.structured_outputs)
    free = is_free(body.tools, body.tool_choice)
    call = await _call_grammar(body, words, free=free)
    if call is not None and asked is not None:
        told = f"{asked[1]} constrains the text, which is a tool call; give one of them"
        raise ApiError(told, param=asked[1], code="invalid_value")
    kind = Chats if call is None else FreeChats if free else ToolChats
    form = kind(words.spell, body.logprobs)
    prompts = [await chat_prompt(body, words)]
    asked = asked if call is None else (call, "tools")
    planned = await _planned(body, prompts, words, exchange, form.prefix, asked, client)
    facts = known(facts, await exchange.told())
    if write is None:
        spells = words.spell, words.decode_now
        trace = Trace(*spells, prompts, body.n) if body.paceline.trace else None
        return Generation(exchange, facts, planned, _answer(form, body, trace, timing))
    reader = TextReader() if call is None else FreeReader(words.spell) if free else CallReader()
    return Generation(exchange, facts, planned, lambda head: write(head, form, Parts(reader)))


def _refuse_traces(body: ChatBody) -> None:
    """Raise ApiError (400) for what answers in other forms have no place for."""
    for name in ("trace", "trace_events"):
        if getattr(body.paceline, name):
            told = f"paceline.{name} is of /v1/completions and /v1/chat/completions"
            raise ApiError(told, param=f"paceline.{name}", code="unsupported_parameter")


async def _call_grammar(body: ChatBody, words: Words, *, free: bool) -> str | None:
    """What holds calls of tools to their schemas; None if there are to be none."""
    if not free:
        return tool_grammar(body.tools, body.tool_choice)
    return free_grammar(body.tools, await words.tool_tags(), several=body.parallel_tool_calls)


async def chat_prompt(body: ChatBody, words: Words) -> list[int]:
    """The tokens of a chat, with its tools as the template writes them."""
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    return await words.encode_chat(body.messages, tools)


def _answer(
    form: AnswerForm,
    body: CompletionBody | ChatBody,
    trace: Trace | None,
    timing: Timing | None,
) -> Callable[[Heading], Writer]:
    if trace is not None and not body.stream:
        told = "a trace is of a stream: send stream, too"
        raise ApiError(told, param="paceline.trace", code="invalid_value")
    options = body.stream_options
    usage = options is not None and options.include_usage
    padded = options is not None and options.include_obfuscation

    if timing is not None:
        timing.planned()

    def write(heading: Heading) -> Answer:
        return Answer(
            form=form,
            include_usage=usage,
            padded=padded,
            trace=trace,
            timing=timing,
            **asdict(heading),
        )

    return write


async def _planned(
    body: CompletionBody | ChatBody,
    prompts: Sequence[Sequence[int]],
    words: Words,
    exchange: Exchange,
    prefix: str,
    asked: tuple[str, str] | None,
    client: str,
) -> Planned:
    """The requests; `asked`: their grammar and the field that asks for it."""
    if asked is not None:
        await words.check_grammar(*asked)
    predicted: list[int] = []
    if body.prediction is not None:
        (predicted,) = await words.encode([body.prediction.text], add_special_tokens=False)
    return plan(
        body,
        prompts,
        await exchange.bounds(),
        name=f"{prefix}-{uuid.uuid4().hex}",
        grammar=None if asked is None else asked[0],
        prediction=predicted,
        client=client,
    )


def _given(body: CompletionBody) -> list[Any]:
    """One or more prompts, each a text or token ids."""
    if isinstance(body.prompt, str) or isinstance(body.prompt[0], int):
        return [body.prompt]
    return list(body.prompt)


async def _prompts(body: CompletionBody, words: Words) -> list[list[int]]:
    """The prompts in tokens."""
    given = _given(body)
    return await words.encode(given) if isinstance(given[0], str) else given


async def _texts(
    body: CompletionBody, prompts: Sequence[Sequence[int]], words: Words
) -> list[Prompt]:
    """The prompts as they are returned: texts as they came, token ids decoded."""
    given = _given(body)
    if isinstance(given[0], str):
        pairs = zip(given, prompts, strict=True)
        return [Prompt(text, tokens) for text, tokens in pairs]
    return [Prompt(await words.decode(tokens), tokens) for tokens in prompts]
