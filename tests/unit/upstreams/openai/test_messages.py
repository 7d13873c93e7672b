"""A history in OpenAI's form: calls and their results belong together, images are told
apart, thoughts go back."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Document, ImageUrl, Message, ToolCall
from ollama_proxy.settings.provider_profiles import Profile
from ollama_proxy.upstreams.openai import messages
from ollama_proxy.upstreams.openai.messages import (
    FROM_TOOL,
    ReasoningCache,
    Thought,
    encode_messages,
)
from tests.rig.tables import each_row

PLAIN = Profile()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def called(*calls: tuple[str, str], content: str = "", thinking: str | None = None) -> Message:
    """A turn of the model with calls, each an id and a name."""
    return Message(
        "assistant",
        content,
        thinking,
        tool_calls=[ToolCall(i, name, {"a": name}) for i, name in calls],
    )


def result(
    content: str, name: str | None = None, call_id: str | None = None, **fields: Any
) -> Message:
    return Message("tool", content, tool_name=name, tool_call_id=call_id, **fields)


def encoded(
    messages: Sequence[Message], profile: Profile = PLAIN, **options: Any
) -> list[dict[str, Any]]:
    return encode_messages(messages, profile, **options)


def test_texts_stay_texts() -> None:
    messages = [
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a"),
        Message("user", ""),
    ]
    assert encoded(messages) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": ""},
    ]


def test_arguments_are_a_text_with_the_keys_in_their_order() -> None:
    [told] = encoded([Message("assistant", tool_calls=[ToolCall("c1", "f", {"b": "世", "a": 2})])])
    function = {"name": "f", "arguments": '{"b":"世","a":2}'}
    assert told == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


@pytest.mark.parametrize(
    ("null", "content", "sent"), [(True, "", None), (True, "a", "a"), (False, "", "")]
)
def test_the_text_of_a_turn_of_calls_alone(null: bool, content: str, sent: str | None) -> None:
    [told] = encoded([called(("c1", "f"), content=content)], Profile(null_content=null))
    assert told["content"] == sent


RESULTS: dict[str, tuple[list[Message], list[tuple[str, str]]]] = {
    "by id": (
        [called(("c1", "f"), ("c2", "g")), result("G", call_id="c2"), result("F", call_id="c1")],
        [("c2", "G"), ("c1", "F")],
    ),
    "by name": (
        [called(("", "f"), ("", "g")), result("G", "g"), result("F", "f")],
        [("call_0_1", "G"), ("call_0_0", "F")],
    ),
    "by name, the same tool twice": (
        [called(("", "f"), ("", "f")), result("1", "f"), result("2", "f")],
        [("call_0_0", "1"), ("call_0_1", "2")],
    ),
    "by name, of a call that has an id": ([called(("c1", "f")), result("F", "f")], [("c1", "F")]),
    "in order, where nothing is named": (
        [called(("", "f"), ("", "g")), result("F"), result("G")],
        [("call_0_0", "F"), ("call_0_1", "G")],
    ),
    "in order, where the name is unknown": (
        [called(("", "f")), result("F", "h")],
        [("call_0_0", "F")],
    ),
    "of the closest turn": (
        [called(("", "f")), result("1", "f"), called(("", "f")), result("2", "f")],
        [("call_0_0", "1"), ("call_1_0", "2")],
    ),
    "by an id that the calls have lost": (
        [called(("", "f")), result("F", "f", "gone")],
        [("call_0_0", "F")],
    ),
    "by an id of an earlier turn": (
        [
            called(("c1", "f")),
            called(("c2", "g")),
            result("G", call_id="c2"),
            result("F", call_id="c1"),
        ],
        [("c2", "G"), ("c1", "F")],
    ),
    "by an id without any call": ([result("F", "f", "c1")], [("c1", "F")]),
}


@each_row(("messages", "expected"), RESULTS.values())
def test_results_belong_to_their_calls(
    messages: list[Message], expected: list[tuple[str, str]]
) -> None:
    told = encoded(messages)
    assert [
        (each["tool_call_id"], each["content"]) for each in told if each["role"] == "tool"
    ] == expected
    assert orjson.dumps(encoded(messages)) == orjson.dumps(told)


def test_calls_without_ids_get_those_that_their_results_name() -> None:
    told = encoded([called(("", "f"), ("", "g")), result("G", "g")])
    assert [call["id"] for call in told[0]["tool_calls"]] == ["call_0_0", "call_0_1"]
    assert told[1]["tool_call_id"] == "call_0_1"


def test_a_result_without_a_call_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\]") as failed:
        encoded([Message("user", "hi"), result("F", "f")])
    assert failed.value.param == "messages[1]"


PNG = b64(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
WAV = b64(b"RIFF\x01\x02\x03\x04WAVEfmt ")
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def test_images_come_behind_the_text() -> None:
    [told] = encoded(
        [Message("user", "look", attachments=[PNG, ImageUrl("https://x/y.png", "w"), WAV])]
    )
    assert told["content"] == [
        {"type": "text", "text": "look"},
        PICTURE,
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
    ]


@pytest.mark.parametrize(
    "image", [b64(b"what is this"), b64(b"G"), "\xff"], ids=["text", "one byte", "no base64"]
)
def test_an_unknown_file_is_left_to_the_provider_as_a_png(image: str) -> None:
    [told] = encoded([Message("user", attachments=[image])])
    assert told["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    ]


@pytest.mark.parametrize(("name", "sent"), [("doc.pdf", "doc.pdf"), ("", "document.pdf")])
def test_a_document_is_a_file_with_a_name(name: str, sent: str) -> None:
    [told] = encoded([Message("user", "u", attachments=[Document("JVBERi0=", name, 1)])])
    file = {"filename": sent, "file_data": "data:application/pdf;base64,JVBERi0="}
    assert told["content"] == [{"type": "text", "text": "u"}, {"type": "file", "file": file}]


def test_an_image_without_text() -> None:
    [told] = encoded([Message("user", attachments=[PNG])])
    assert told["content"] == [PICTURE]


def test_images_of_results_come_behind_all_of_the_results() -> None:
    messages = [
        called(("c1", "f"), ("c2", "g")),
        result("F", call_id="c1", attachments=[PNG]),
        result("G", call_id="c2"),
    ]
    told = encoded([*messages, Message("user", "so?")])
    shown = {"role": "user", "content": [{"type": "text", "text": FROM_TOOL}, PICTURE]}
    assert [each["role"] for each in told] == ["assistant", "tool", "tool", "user", "user"]
    assert (told[1]["content"], told[3]) == ("F", shown)
    assert encoded(messages)[-1] == shown


# Thoughts.


TOOL_TURNS, ALWAYS, NEVER = (
    Profile(reasoning_back=word) for word in ("tool_turns", "always", "never")
)
HISTORY = [Message("user", "hi"), called(("c1", "f"), thinking="hm"), result("F", call_id="c1")]


@pytest.mark.parametrize(("profile", "sent"), [(TOOL_TURNS, "hm"), (ALWAYS, "hm"), (NEVER, None)])
def test_thoughts_of_the_client_go_back(profile: Profile, sent: str | None) -> None:
    assert encoded(HISTORY, profile)[1].get("reasoning_content") == sent


def test_they_go_back_by_the_name_of_the_provider() -> None:
    profile = Profile(reasoning_back="tool_turns", reasoning_field="reasoning")
    assert encoded(HISTORY, profile)[1]["reasoning"] == "hm"


@pytest.mark.parametrize(("profile", "sent"), [(TOOL_TURNS, [False, True]), (ALWAYS, [True, True])])
def test_thoughts_that_are_lost_are_empty(profile: Profile, sent: list[bool]) -> None:
    messages = [
        Message("user", "hi"),
        Message("assistant", "a"),
        Message("user", "go"),
        called(("c1", "f")),
    ]
    told = [each for each in encoded(messages, profile) if each["role"] == "assistant"]
    assert ["reasoning_content" in each for each in told] == sent
    assert told[1]["reasoning_content"] == ""


def test_no_thoughts_go_back_where_thinking_is_off() -> None:
    assert "reasoning_content" not in encoded(HISTORY, ALWAYS, thinks=False)[1]


def remembered(details: list[Any] | None = None) -> ReasoningCache:
    cache = ReasoningCache()
    cache.keep(HISTORY[0], [ToolCall("c1", "f", {"a": "f", "b": 1})], Thought("so", details or []))
    return cache


@pytest.mark.parametrize(
    "call", [ToolCall("c1", "f", {}), ToolCall("", "f", {"b": 1, "a": "f"})], ids=["id", "no id"]
)
def test_thoughts_that_the_client_has_dropped_come_from_memory(call: ToolCall) -> None:
    messages = [HISTORY[0], Message("assistant", tool_calls=[call])]
    assert encoded(messages, TOOL_TURNS, find=remembered().find)[1]["reasoning_content"] == "so"


def test_the_word_of_the_client_goes_before_memory() -> None:
    assert encoded(HISTORY, TOOL_TURNS, find=remembered().find)[1]["reasoning_content"] == "hm"


def test_thoughts_stay_in_their_talk() -> None:
    other = [Message("user", "another"), called(("c1", "f"))]
    assert encoded(other, TOOL_TURNS, find=remembered().find)[1]["reasoning_content"] == ""


def test_sealed_thoughts_go_back_as_they_came() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    profile = Profile(reasoning_back="tool_turns", reasoning_details=True)
    told = encoded(HISTORY, profile, find=remembered(details).find)[1]
    assert (told["reasoning_details"], "reasoning_content" in told) == (details, False)


def test_where_thoughts_are_sealed_none_is_better_than_an_empty_one() -> None:
    profile = Profile(reasoning_back="tool_turns", reasoning_details=True)
    told = encoded([HISTORY[0], called(("c1", "f"))], profile)[1]
    assert not told.keys() & {"reasoning_details", "reasoning_content"}


ASKED = Message("user", "hi")


def call(number: int) -> list[ToolCall]:
    return [ToolCall(f"c{number}", "f", {"n": number})]


def test_memory_has_a_limit() -> None:
    cache = ReasoningCache(max_bytes=45_000)
    for number in range(5):
        cache.keep(ASKED, call(number), Thought("x" * 10_000))
    # Each is kept under two names.
    assert [cache.find(ASKED, call(number)) is not None for number in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_thought_that_is_kept_again_counts_once() -> None:
    cache = ReasoningCache(max_bytes=45_000)
    cache.keep(ASKED, call(0), Thought("x" * 10_000))
    for _ in range(5):
        cache.keep(ASKED, call(1), Thought("y" * 10_000))
    assert cache.find(ASKED, call(0)) == Thought("x" * 10_000)


def test_one_thought_may_not_take_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_CHARS_EACH", 5)
    cache = ReasoningCache()
    cache.keep(ASKED, call(0), Thought("x" * 6))
    cache.keep(ASKED, call(1), Thought("", [{"data": "xxxxxx"}]))
    cache.keep(ASKED, call(2), Thought(""))
    assert [cache.find(ASKED, call(number)) for number in range(3)] == [None] * 3


def test_without_calls_there_is_nothing_to_keep_or_find() -> None:
    cache = ReasoningCache()
    cache.keep(None, [], Thought("x"))
    assert cache.find(None, []) is None


def test_a_talk_may_begin_with_calls() -> None:
    cache = ReasoningCache()
    cache.keep(None, call(1), Thought("x"))
    assert cache.find(None, call(1)) == Thought("x")
    assert cache.find(ASKED, call(1)) is None
