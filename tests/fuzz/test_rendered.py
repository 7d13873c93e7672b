"""Whatever an upstream says: each dialect draws it so that the official client of
that dialect reads the same.

The clients are whole, but for the network: what they would receive is handed to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.native.render import ChatRenderer as NativeChat
from ollama_proxy.dialects.native.render import GenerateRenderer
from ollama_proxy.dialects.openai.render import ChatRenderer, CompletionRenderer, CompletionShape
from ollama_proxy.dialects.responses.render import ResponseRenderer
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import Content, Done, Event, Thinking, ToolCall, collect
from ollama_proxy.wire.lines import escape_line_separators
from tests.fuzz.strategies import answers, batches, mixed, several_answers

MODEL, HI = "m", [{"role": "user", "content": "hi"}]
USER: Any = HI
JSON_TYPE = "application/json"


@dataclass
class Told:
    """What a client has understood of one answer."""

    text: str = ""
    thinking: str = ""
    #: Names and arguments.
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    reason: str = ""
    #: Tokens read and written.
    counts: tuple[int, int] = (0, 0)


def told(events: Sequence[Event]) -> Told:
    """What there was to be understood."""
    answer = Told()
    for event in events:
        match event:
            case Content(text):
                answer.text += text
            case Thinking(text):
                answer.thinking += text
            case ToolCall(call_id, name, arguments):
                answer.calls.append((name, arguments))
                answer.ids.append(call_id)
            case Done(reason, read, written):
                answer.reason, answer.counts = reason, (read, written)
    return answer


def drawn(renderer: Renderer, parts: Sequence[Sequence[Event]]) -> bytes:
    """A stream as it goes out."""
    return b"".join(escape_line_separators(renderer.render_stream(part)) for part in parts)


class Clients:
    """The official clients, each on a network that has one answer to everything."""

    def __init__(self, opened: ExitStack) -> None:
        self._body, self._type = b"", ""
        http = opened.enter_context(
            httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(**self._answer())))
        )
        http2 = opened.enter_context(
            httpx2.Client(
                transport=httpx2.MockTransport(lambda _: httpx2.Response(**self._answer()))
            )
        )
        settings: Any = {"base_url": "http://gateway/v1", "api_key": "k", "max_retries": 0}
        self._openai = openai.OpenAI(**settings, http_client=http)
        self._anthropic = anthropic.Anthropic(**settings, http_client=http2)
        self._ollama = ollama.Client(
            "http://gateway",
            transport=httpx.MockTransport(lambda _: httpx.Response(**self._answer())),
        )

    def _answer(self) -> Any:
        return {"status_code": 200, "headers": {"content-type": self._type}, "content": self._body}

    def openai(self, body: bytes, content_type: str) -> openai.OpenAI:
        """OpenAI's client."""
        self._body, self._type = body, content_type
        return self._openai

    def anthropic(self, body: bytes, content_type: str) -> anthropic.Anthropic:
        """Anthropic's client."""
        self._body, self._type = body, content_type
        return self._anthropic

    def ollama(self, body: bytes, content_type: str) -> ollama.Client:
        """Ollama's client."""
        self._body, self._type = body, content_type
        return self._ollama


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with ExitStack() as opened:
        yield Clients(opened)


ONE = answers().flatmap(lambda events: st.tuples(st.just(events), batches(events)))
WITHOUT_CALLS = answers(calls=False).flatmap(
    lambda events: st.tuples(st.just(events), batches(events))
)
Drawn = tuple[list[Event], list[Sequence[Event]]]


# Ollama's own API.


def of_ollama(parts: Sequence[Any]) -> Told:
    """What Ollama's client has understood."""
    answer = Told()
    for part in parts:
        answer.text += part.message.content or ""
        answer.thinking += part.message.thinking or ""
        answer.calls += [
            (call.function.name, dict(call.function.arguments))
            for call in part.message.tool_calls or ()
        ]
        answer.counts = (part.prompt_eval_count or 0, part.eval_count or 0)
        answer.reason = part.done_reason or answer.reason
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    return answer


@given(ONE)
def test_ollamas_client_reads_the_stream_of_a_chat(clients: Clients, drawn_: Drawn) -> None:
    events, parts = drawn_
    body = drawn(NativeChat(MODEL, 0.0), parts)
    said = of_ollama(
        list(clients.ollama(body, "application/x-ndjson").chat(MODEL, HI, stream=True))
    )
    assert said == without_ids(told(events))


@given(answers())
def test_ollamas_client_reads_a_chat_in_one_piece(clients: Clients, events: list[Event]) -> None:
    body = NativeChat(MODEL, 0.0).render_single(collect(events))
    assert of_ollama([clients.ollama(body, JSON_TYPE).chat(MODEL, HI)]) == without_ids(told(events))


def of_generate(parts: Sequence[Any]) -> Told:
    """What Ollama's client has understood of a completion."""
    last = parts[-1]
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    return Told(
        "".join(part.response for part in parts),
        "".join(part.thinking or "" for part in parts),
        reason=last.done_reason,
        counts=(last.prompt_eval_count or 0, last.eval_count or 0),
    )


@given(WITHOUT_CALLS)
def test_ollamas_client_reads_completions(clients: Clients, drawn_: Drawn) -> None:
    events, parts = drawn_
    body = drawn(GenerateRenderer(MODEL, 0.0), parts)
    client = clients.ollama(body, "application/x-ndjson")
    assert of_generate(list(client.generate(MODEL, "hi", stream=True))) == told(events)
    whole = GenerateRenderer(MODEL, 0.0).render_single(collect(events))
    assert of_generate([clients.ollama(whole, JSON_TYPE).generate(MODEL, "hi")]) == told(events)


def without_ids(answer: Told) -> Told:
    """Ollama's client does not read the ids of calls."""
    answer.ids = []
    return answer


# OpenAI's chats and completions.


def as_openai(answer: Told) -> Told:
    """The reason in OpenAI's words."""
    if answer.reason != "length":
        answer.reason = "tool_calls" if answer.calls else "stop"
    return answer


def of_choice(choice: Any) -> Told:
    """What OpenAI's client has understood of one choice."""
    message = choice.message
    calls = message.tool_calls or []
    return Told(
        message.content or "",
        getattr(message, "reasoning", None) or "",
        [(call.function.name, json.loads(call.function.arguments)) for call in calls],
        [call.id for call in calls],
        choice.finish_reason,
    )


def counted(completion: Any) -> tuple[int, int]:
    return completion.usage.prompt_tokens, completion.usage.completion_tokens


def of_completion(completion: Any) -> list[Told]:
    return [
        of_choice(choice) for choice in sorted(completion.choices, key=lambda choice: choice.index)
    ]


def without_counts(events: Sequence[Event]) -> Told:
    """What a choice tells: the counts are for all of them together."""
    answer = as_openai(told(events))
    answer.counts = (0, 0)
    return answer


def summed(several: Sequence[Sequence[Event]]) -> tuple[int, int]:
    read, written = zip(*(told(events).counts for events in several), strict=True)
    return sum(read), sum(written)


class Reassembled:
    """What the helper of OpenAI's client makes of a stream."""

    def __init__(self, clients: Clients, body: bytes, n: int) -> None:
        self.thinking = [""] * n
        with clients.openai(body, "text/event-stream").chat.completions.stream(
            model=MODEL, messages=USER, n=n
        ) as stream:
            for event in stream:
                if event.type == "chunk":
                    self._note(event.chunk)
            self.completion = self._final(stream)

    def _final(self, stream: Any) -> Any:
        try:
            return stream.get_final_completion()
        except openai.LengthFinishReasonError as error:  # the answer was limited
            return error.completion

    def _note(self, chunk: Any) -> None:
        for choice in chunk.choices:
            self.thinking[choice.index] += getattr(choice.delta, "reasoning", None) or ""

    def told(self) -> list[Told]:
        """The helper itself puts what it has no name for together as well; that sum
        is the one that counts."""
        answers_ = of_completion(self.completion)
        assert [answer.thinking for answer in answers_] == self.thinking
        return answers_


@given(ONE)
def test_openais_client_puts_the_stream_of_a_chat_together(clients: Clients, drawn_: Drawn) -> None:
    events, parts = drawn_
    read = Reassembled(clients, drawn(ChatRenderer(MODEL, include_usage=True), parts), 1)
    assert read.told() == [without_counts(events)]
    assert counted(read.completion) == told(events).counts


SEVERAL = several_answers().flatmap(
    lambda several: st.tuples(
        st.just(several), mixed(several).flatmap(lambda stream: batches(stream))
    )
)


@given(SEVERAL)
def test_openais_client_puts_several_choices_together(
    clients: Clients, drawn_: tuple[list[list[Event]], list[Sequence[Event]]]
) -> None:
    several, parts = drawn_
    read = Reassembled(
        clients, drawn(ChatRenderer(MODEL, include_usage=True, n=len(several)), parts), len(several)
    )
    assert read.told() == [without_counts(events) for events in several]
    assert counted(read.completion) == summed(several)


@given(st.one_of(several_answers(), answers().map(lambda events: [events])))
def test_openais_client_reads_a_chat_in_one_piece(
    clients: Clients, several: list[list[Event]]
) -> None:
    renderer = ChatRenderer(MODEL, include_usage=False, n=len(several))
    body = renderer.render_single([answer for events in several for answer in collect(events)])
    completion = clients.openai(body, JSON_TYPE).chat.completions.create(model=MODEL, messages=USER)
    assert of_completion(completion) == [without_counts(events) for events in several]
    assert counted(completion) == summed(several)


@given(
    several_answers(calls=False, thinking=False).flatmap(
        lambda s: st.tuples(st.just(s), mixed(s).flatmap(batches))
    )
)
def test_openais_client_reads_completions(
    clients: Clients, drawn_: tuple[list[list[Event]], list[Sequence[Event]]]
) -> None:
    several, parts = drawn_
    shape = CompletionShape(prompts=("p",), n=len(several))
    body = drawn(CompletionRenderer(MODEL, include_usage=True, shape=shape), parts)
    texts, reasons = [""] * len(several), [""] * len(several)
    for chunk in clients.openai(body, "text/event-stream").completions.create(
        model=MODEL, prompt="p", stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert list(zip(texts, reasons, strict=True)) == [
        (told(events).text, told(events).reason) for events in several
    ]
    assert counted(chunk) == summed(several)


# OpenAI's responses.


def of_response(response: Any) -> Told:
    """What OpenAI's client has understood of a response."""
    answer = Told(counts=(response.usage.input_tokens, response.usage.output_tokens))
    for item in response.output:
        match item.type:
            case "message":
                answer.text += "".join(part.text for part in item.content)
            case "reasoning":
                answer.thinking += "".join(part.text for part in item.content)
            case "function_call":
                answer.calls.append((item.name, json.loads(item.arguments)))
                answer.ids.append(item.call_id)
    answer.reason = "length" if response.status == "incomplete" else "stop"
    return answer


@given(ONE)
def test_openais_client_puts_the_stream_of_a_response_together(
    clients: Clients, drawn_: Drawn
) -> None:
    events, parts = drawn_
    body = drawn(ResponseRenderer(MODEL, ECHO), parts)
    with clients.openai(body, "text/event-stream").responses.stream(
        model=MODEL, input="hi"
    ) as stream:
        response = [event for event in stream][-1].response
    assert of_response(response) == told(events)
    assert response.output_text == told(events).text


@given(answers())
def test_openais_client_reads_a_response_in_one_piece(
    clients: Clients, events: list[Event]
) -> None:
    body = ResponseRenderer(MODEL, ECHO).render_single(collect(events))
    response = clients.openai(body, JSON_TYPE).responses.create(model=MODEL, input="hi")
    assert of_response(response) == told(events)


#: What a response repeats of its request.
ECHO: dict[str, Any] = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}


# Anthropic's messages.


def of_message(message: Any) -> Told:
    """What Anthropic's client has understood."""
    answer = Told(counts=(message.usage.input_tokens, message.usage.output_tokens))
    for block in message.content:
        match block.type:
            case "text":
                answer.text += block.text
            case "thinking":
                answer.thinking += block.thinking
            case "tool_use":
                answer.calls.append((block.name, block.input))
                answer.ids.append(block.id)
    answer.reason = message.stop_reason
    return answer


def as_anthropic(answer: Told) -> Told:
    """The reason in Anthropic's words."""
    ended = "tool_use" if answer.calls else "end_turn"
    answer.reason = "max_tokens" if answer.reason == "length" else ended
    return answer


@given(ONE)
def test_anthropics_client_puts_the_stream_of_a_message_together(
    clients: Clients, drawn_: Drawn
) -> None:
    events, parts = drawn_
    body = drawn(MessageRenderer(MODEL), parts)
    asked: Callable[..., Any] = clients.anthropic(body, "text/event-stream").messages.stream
    with asked(model=MODEL, max_tokens=9, messages=HI) as stream:
        assert of_message(stream.get_final_message()) == as_anthropic(told(events))


@given(answers())
def test_anthropics_client_reads_a_message_in_one_piece(
    clients: Clients, events: list[Event]
) -> None:
    body = MessageRenderer(MODEL).render_single(collect(events))
    message = clients.anthropic(body, JSON_TYPE).messages.create(
        model=MODEL, max_tokens=9, messages=USER
    )
    assert of_message(message) == as_anthropic(told(events))
