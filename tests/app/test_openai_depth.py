"""What OpenAI's chat and completions promise beyond one plain answer: several choices, the
older functions, choices of tools, echoes, the best of several, lists of prompts, and
schemas whose order counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.app.clients import openai_client
from tests.golden import face, fates
from tests.golden.face import forwarded, frames, post
from tests.golden.fates import (
    CHAT,
    COMPLETION,
    SMALLEST,
    TOOL,
    UPSTREAM,
    USER,
    Ask,
    Asked,
    Document,
)
from tests.rig import SeenRequest
from tests.rig.calls import access_line
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, Script, Wait, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.local import LocalGateway

COUNTS = {"prompt_eval_count": 7, "eval_count": 3}


class TellingUpstream(FaultUpstream):
    """Says which prompt and which seed it was asked with; the higher the seed,
    the surer it is of it."""

    def answer(self, request: SeenRequest) -> Script:
        if request.path not in ("/api/chat", "/api/generate"):
            return super().answer(request)
        body = request.json()
        seed = body.get("options", {}).get("seed", 0)
        return told(body, [f"{body.get('prompt', 'said')}", f" {seed}"], -1.0 / (seed + 1))


def told(body: Document, words: list[str], logprob: float) -> Script:
    """An answer of these words in the form that was asked for."""

    def part(text: str, tokens: list[str]) -> Document:
        spoken = (
            {"response": text}
            if "prompt" in body
            else {"message": {"role": "assistant", "content": text}}
        )
        entries = [{"token": token, "logprob": logprob, "top_logprobs": []} for token in tokens]
        return {"model": body["model"], **spoken} | (
            {"logprobs": entries} if body.get("logprobs") else {}
        )

    done = {"done": True, "done_reason": "stop", **COUNTS}
    if body["stream"]:
        return [
            Lines([*(part(word, [word]) | {"done": False} for word in words), part("", []) | done])
        ]
    return [Json(part("".join(words), words) | done)]


shared_upstream = module_fixture(TellingUpstream)


shared_gateway = module_fixture(lambda shared_upstream: face.local_gateway(shared_upstream))


ask = fates.ask


def sent_all(upstream: FaultUpstream) -> list[Document]:
    return [seen.json() for seen in forwarded(upstream)]


def texts(asked: Asked) -> list[str]:
    """The texts of all choices, whose indexes must be dense."""
    choices = asked.answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(len(choices)))
    return [
        choice["message"]["content"] if "message" in choice else choice["text"]
        for choice in choices
    ]


def by_index(asked: Asked) -> dict[int, list[Document]]:
    """The choices of a stream's chunks."""
    found: dict[int, list[Document]] = {}
    for frame in frames(asked.answer.body)[:-1]:
        for choice in frame["choices"]:
            found.setdefault(choice["index"], []).append(choice)
    return found


def refused(asked: Asked, param: str) -> None:
    assert (asked.answer.status, asked.answer.json()["error"]["param"]) == (400, param)
    assert param in asked.answer.json()["error"]["message"]
    assert asked.sent == {}


# --- Several choices ------------------------------------------------------------------------------


def test_every_choice_is_an_answer_of_its_own(ask: Ask, upstream: FaultUpstream) -> None:
    asked = ask(n=3, seed=7)
    assert texts(asked) == ["said 7", "said 8", "said 9"]
    assert asked.answer.json()["usage"] == {
        "prompt_tokens": 21,
        "completion_tokens": 9,
        "total_tokens": 30,
    }
    assert sorted(sent["options"]["seed"] for sent in sent_all(upstream)) == [7, 8, 9]
    assert all("n" not in sent for sent in sent_all(upstream))


def test_choices_without_a_seed_are_asked_for_alike(ask: Ask, upstream: FaultUpstream) -> None:
    ask(n=2)
    first, second = sent_all(upstream)
    assert first == second
    assert "options" not in first


def test_every_choice_of_a_stream_has_its_beginning_and_its_end(ask: Ask) -> None:
    asked = ask(n=3, seed=7, stream=True, stream_options={"include_usage": True})
    *chunks, last = frames(asked.answer.body)
    assert (
        len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks})
        == 1
    )
    for index, choices in by_index(asked).items():
        deltas = [choice["delta"] for choice in choices]
        assert deltas == [
            {"role": "assistant", "content": ""},
            {"content": "said"},
            {"content": f" {7 + index}"},
            {},
        ]
        assert [choice["finish_reason"] for choice in choices] == [None] * 3 + ["stop"]
    assert by_index(asked).keys() == {0, 1, 2}
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if not chunk["choices"]] == [30]
    assert not chunks[-1]["choices"]
    assert (last, asked.answer.body.count(b"[DONE]")) == ("[DONE]", 1)


def test_choices_begin_in_their_order_whichever_comes_first(
    ask: Ask, upstream: FaultUpstream
) -> None:
    """openai-python's helper mixes them up otherwise."""
    slow = [Wait(0.2), *told({"model": "m", "stream": True}, ["slow"], 0.0)]
    upstream.script("/api/chat", slow, told({"model": "m", "stream": True}, ["quick"], 0.0))
    parts = frames(ask(n=2, stream=True).answer.body)
    assert [
        (part["choices"][0]["index"], part["choices"][0]["delta"].get("role")) for part in parts[:2]
    ] == [
        (0, "assistant"),
        (1, "assistant"),
    ]
    assert "role" not in json.dumps(parts[2:])


def test_all_tokens_are_in_the_access_log(gateway: LocalGateway, request_id: str) -> None:
    post(gateway, CHAT, SMALLEST[CHAT] | {"n": 3}, **{"X-Request-Id": request_id})
    line = access_line(gateway, request_id)
    assert (line["prompt_eval_count"], line["eval_count"]) == (21, 9)


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("n", [0, -1, 17])
def test_number_of_choices_has_its_limits(path: str, n: int, ask: Ask) -> None:
    refused(ask(path, n=n), "n")


def test_sixteen_choices_are_possible(ask: Ask) -> None:
    assert texts(ask(n=16, seed=1)) == [f"said {seed}" for seed in range(1, 17)]


def test_G24_calls_of_each_choice_are_counted_from_zero(ask: Ask, upstream: FaultUpstream) -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    done = {
        "message": {"role": "assistant", "content": "", "tool_calls": [call, call]},
        "done": True,
    }
    upstream.script("/api/chat", [Lines([done | {"done_reason": "stop"}])])
    for choices in by_index(ask(n=2, tools=[TOOL], stream=True)).values():
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
        assert [call["index"] for call in calls] == [0, 1]
        assert choices[-1]["finish_reason"] == "tool_calls"


def test_official_helper_puts_every_choice_together(gateway: LocalGateway) -> None:
    with (
        openai_client(gateway) as official,
        official.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": "Hi"}], n=2, seed=3
        ) as run,
    ):
        final = run.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["said 3", "said 4"]
    assert [choice.message.role for choice in final.choices] == ["assistant"] * 2


# --- The older functions --------------------------------------------------------------------------

FUNCTION: Document = TOOL["function"]


def calling(upstream: FaultUpstream, *names: str) -> None:
    calls = [{"function": {"name": name, "arguments": {"b": 1, "a": "é"}}} for name in names]
    done = {
        "message": {"role": "assistant", "content": "", "tool_calls": calls},
        "done": True,
        "done_reason": "stop",
    }
    upstream.script("/api/chat", [Json(done | {"model": "m"})])


def test_functions_are_tools_and_the_call_comes_back_in_their_form(
    ask: Ask, upstream: FaultUpstream
) -> None:
    calling(upstream, "f", "g")
    asked = ask(functions=[FUNCTION])
    [choice] = asked.answer.json()["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "f", "arguments": '{"b":1,"a":"é"}'},
    }
    assert choice["finish_reason"] == "function_call"
    assert asked.sent["tools"] == [TOOL]


def test_streamed_call_has_the_older_form_and_comes_once(ask: Ask, upstream: FaultUpstream) -> None:
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("f", "g")]
    lines = [
        {"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False}
        for call in calls
    ]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    upstream.script("/api/chat", [Lines([*lines, end])])
    choices = by_index(ask(functions=[FUNCTION], stream=True))[0]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"function_call": {"name": "f", "arguments": '{"x":1}'}},
        {},
    ]
    assert choices[-1]["finish_reason"] == "function_call"


def test_answer_without_a_call_is_a_plain_one(ask: Ask) -> None:
    [choice] = ask(functions=[FUNCTION]).answer.json()["choices"]
    assert (choice["finish_reason"], choice["message"].keys()) == (
        "stop",
        {"role", "content", "refusal"},
    )


@pytest.mark.parametrize(
    ("choice", "shown", "approximated"),
    [("none", [], None), ("auto", ["f", "g"], None), ({"name": "g"}, ["g"], "tool_choice")],
)
def test_function_call_chooses_among_them(
    choice: Any, shown: list[str], approximated: str | None, ask: Ask
) -> None:
    asked = ask(functions=[FUNCTION, FUNCTION | {"name": "g"}], function_call=choice)
    assert [tool["function"]["name"] for tool in asked.sent.get("tools", ())] == shown
    assert asked.answer.headers.get("X-Ollama-Proxy-Approximated") == approximated


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [FUNCTION], "tools": [TOOL]}, "functions"),
        ({"functions": [FUNCTION], "function_call": {"name": "h"}}, "function_call"),
        ({"functions": [FUNCTION], "function_call": {}}, "function_call.name"),
        ({"functions": [FUNCTION], "function_call": "required"}, "function_call"),
        ({"functions": ["f"]}, "functions[0].name"),
        ({"functions": [{"name": "two words"}]}, "functions[0].name"),
        ({"messages": [*USER, {"role": "function", "content": "r"}]}, "messages[1].name"),
        (
            {"messages": [*USER, {"role": "assistant", "function_call": {}}]},
            "messages[1].function_call.name",
        ),
        (
            {
                "messages": [
                    *USER,
                    {"role": "assistant", "function_call": {"name": "f", "arguments": "{"}},
                ]
            },
            "messages[1].function_call.arguments",
        ),
    ],
)
def test_function_that_cannot_be_used_is_named(fields: Document, param: str, ask: Ask) -> None:
    refused(ask(**fields), param)


def test_G22_history_with_functions_becomes_calls_and_results(
    ask: Ask, upstream: FaultUpstream
) -> None:
    """The ids are the same whenever it is sent again."""
    history = [
        *USER,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": '{"b":1,"a":2}'},
        },
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
        {"role": "function", "name": "f", "content": "two"},
    ]
    for _ in range(2):
        assert ask(functions=[FUNCTION], messages=history).answer.status == 200
    first, second = forwarded(upstream)
    assert first.body == second.body
    _, call, result, again, last = first.json()["messages"]
    assert list(call["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]
    assert again["tool_calls"][0]["function"] == {"index": 0, "name": "f", "arguments": {}}
    ids = [message["tool_calls"][0]["id"] for message in (call, again)]
    assert len(set(ids)) == 2
    assert [
        (r["role"], r["tool_name"], r["tool_call_id"], r["content"]) for r in (result, last)
    ] == [
        ("tool", "f", ids[0], "one"),
        ("tool", "f", ids[1], "two"),
    ]


# --- Choosing tools -------------------------------------------------------------------------------

TOOLS = [TOOL, {"type": "function", "function": {**FUNCTION, "name": "g"}}]


def named(name: str) -> Document:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> Document:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]},
    }


@pytest.mark.parametrize(
    ("choice", "shown", "forced"),
    [
        ("auto", ["f", "g"], False),
        (None, ["f", "g"], False),
        ("none", [], False),
        ("required", ["f", "g"], True),
        (named("g"), ["g"], True),
        (allowed("auto", "g"), ["g"], False),
        (allowed("required", "f", "g"), ["f", "g"], True),
    ],
)
def test_G19_choice_of_tools(choice: Any, shown: list[str], forced: bool, ask: Ask) -> None:
    asked = ask(tools=TOOLS, tool_choice=choice)
    assert [tool["function"]["name"] for tool in asked.sent.get("tools", ())] == shown
    assert asked.answer.headers.get("X-Ollama-Proxy-Approximated") == (
        "tool_choice" if forced else None
    )
    assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None
    # A system message of ours would stand in for the model's own.
    [message] = asked.sent["messages"]
    assert message["role"] == "user"
    assert (message["content"] != USER[0]["content"]) is forced
    assert message["content"].startswith(USER[0]["content"])


def test_order_to_call_stands_behind_the_system_message(ask: Ask) -> None:
    system = {"role": "system", "content": "Be brief."}
    first, second = ask(tools=TOOLS, tool_choice=named("g"), messages=[system, *USER]).sent[
        "messages"
    ]
    assert first["content"].startswith("Be brief.\n\n")
    assert '"g"' in first["content"]
    assert second == USER[0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS, "tool_choice": named("h")}, "tool_choice"),
        ({"tool_choice": named("f")}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "h")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("never", "f")}, "tool_choice.allowed_tools.mode"),
        (
            {
                "tools": TOOLS,
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
            },
            "tool_choice.allowed_tools.tools",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "h"}}},
            "tool_choice",
        ),
    ],
)
def test_choice_that_is_not_on_offer_is_refused(fields: Document, param: str, ask: Ask) -> None:
    refused(ask(**fields), param)


def test_only_the_first_call_comes_where_calls_may_not_be_parallel(
    ask: Ask, upstream: FaultUpstream
) -> None:
    calling(upstream, "f", "g")
    asked = ask(tools=TOOLS, parallel_tool_calls=False)
    [choice] = asked.answer.json()["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["f"]
    assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None


def test_only_the_first_call_of_each_choice_comes(ask: Ask, upstream: FaultUpstream) -> None:
    calling(upstream, "f", "g")
    choices = ask(tools=TOOLS, parallel_tool_calls=False, n=2).answer.json()["choices"]
    assert [
        [call["function"]["name"] for call in one["message"]["tool_calls"]] for one in choices
    ] == [["f"], ["f"]]


# --- Completions ----------------------------------------------------------------------------------


def test_list_of_prompts_gives_the_choices_of_each(ask: Ask, upstream: FaultUpstream) -> None:
    asked = ask(COMPLETION, prompt=["a", "b"], n=2, seed=3)
    assert texts(asked) == ["a 3", "a 4", "b 3", "b 4"]
    assert asked.answer.json()["usage"]["total_tokens"] == 40
    assert {sent["prompt"] for sent in sent_all(upstream)} == {"a", "b"}


def test_list_of_prompts_streams_by_index(ask: Ask) -> None:
    asked = ask(COMPLETION, prompt=["a", "b"], n=2, seed=3, stream=True)
    told = {
        index: "".join(one["text"] for one in choices) for index, choices in by_index(asked).items()
    }
    assert told == {0: "a 3", 1: "a 4", 2: "b 3", 3: "b 4"}
    assert all(choices[-1]["finish_reason"] == "stop" for choices in by_index(asked).values())
    assert asked.answer.body.count(b"[DONE]") == 1


@pytest.mark.parametrize(
    "prompt", [[1, 2], [[1, 2], [3]], ["a", 1], [True], [None], [], ["a", ""], {"a": 1}]
)
def test_prompts_that_are_no_texts_are_refused(prompt: Any, ask: Ask) -> None:
    refused(ask(COMPLETION, prompt=prompt), "prompt")


def test_token_ids_are_refused_with_the_way_out(ask: Ask) -> None:
    assert "as a string" in ask(COMPLETION, prompt=[1, 2]).answer.json()["error"]["message"]


def test_answers_of_one_request_are_limited(ask: Ask) -> None:
    refused(ask(COMPLETION, prompt=["a"] * 33, n=2), "prompt")


@pytest.mark.parametrize("prompt", ["Hi", ["Hi", "Yo"]])
def test_echo_puts_the_prompt_before_its_answer(prompt: Any, ask: Ask) -> None:
    expected = [f"{one}{one} 0" for one in ([prompt] if isinstance(prompt, str) else prompt)]
    assert texts(ask(COMPLETION, prompt=prompt, echo=True)) == expected
    streamed = by_index(ask(COMPLETION, prompt=prompt, echo=True, stream=True))
    assert [
        "".join(one["text"] for one in streamed[index]) for index in sorted(streamed)
    ] == expected
    assert [choices[0]["text"] for _, choices in sorted(streamed.items())] == [
        one[:2] for one in expected
    ]


def test_echo_without_an_answer_is_the_prompt(ask: Ask, upstream: FaultUpstream) -> None:
    end = {"response": "", "done": True, "done_reason": "length"}
    upstream.script("/api/generate", [Lines([end])])
    [first, last] = by_index(ask(COMPLETION, echo=True, stream=True))[0]
    assert (first["text"], last["text"], last["finish_reason"]) == ("Hi", "", "length")


def test_best_of_shows_the_surest_and_counts_all(ask: Ask, upstream: FaultUpstream) -> None:
    asked = ask(COMPLETION, best_of=4, n=2, seed=1)
    assert texts(asked) == ["Hi 4", "Hi 3"]
    assert asked.answer.json()["usage"] == {
        "prompt_tokens": 28,
        "completion_tokens": 12,
        "total_tokens": 40,
    }
    assert all(sent["logprobs"] is True for sent in sent_all(upstream))
    assert [choice["logprobs"] for choice in asked.answer.json()["choices"]] == [None, None]


def test_best_of_each_prompt(ask: Ask) -> None:
    assert texts(ask(COMPLETION, prompt=["a", "b"], best_of=2, seed=1)) == ["a 2", "b 2"]


def test_best_of_as_many_as_are_shown_asks_for_nothing_more(ask: Ask) -> None:
    asked = ask(COMPLETION, best_of=2, n=2, seed=1)
    assert texts(asked) == ["Hi 1", "Hi 2"]
    assert "logprobs" not in asked.sent


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 17}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(
    fields: Document, param: str, ask: Ask
) -> None:
    refused(ask(COMPLETION, **fields), param)


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_of_tokens_begin_anew_in_every_choice(stream: bool, ask: Ask) -> None:
    asked = ask(COMPLETION, n=2, logprobs=0, seed=3, stream=stream)
    if stream:
        shown = {
            i: [c["logprobs"] for c in choices if c["logprobs"]]
            for i, choices in by_index(asked).items()
        }
        offsets = [
            [offset for one in shown[index] for offset in one["text_offset"]] for index in (0, 1)
        ]
    else:
        offsets = [choice["logprobs"]["text_offset"] for choice in asked.answer.json()["choices"]]
    assert offsets == [[0, 2], [0, 2]]


def test_suffix_goes_with_every_answer(ask: Ask, upstream: FaultUpstream) -> None:
    ask(COMPLETION, suffix="end", n=2)
    assert [sent["suffix"] for sent in sent_all(upstream)] == ["end", "end"]


# --- Forms of answers, thinking and extensions ----------------------------------------------------

SCHEMA: Document = {
    "type": "object",
    "properties": {
        "z": {"type": "string"},
        "a": {"type": "object", "properties": {"y": {}, "b": {}}},
        "m": {},
    },
    "required": ["z", "m", "a"],
    "additionalProperties": False,
    "$defs": {"T": {"type": "string"}, "B": {"type": "null"}},
}


@pytest.mark.parametrize("strict", [True, False, None])
def test_schema_arrives_in_its_own_order(strict: Any, ask: Ask, upstream: FaultUpstream) -> None:
    """The model writes the fields in the order of the schema."""
    schema = {"name": "answer", "strict": strict, "schema": SCHEMA}
    asked = ask(response_format={"type": "json_schema", "json_schema": schema})
    assert json.dumps(asked.sent["format"]) == json.dumps(SCHEMA)
    assert b'"properties":{"z":' in forwarded(upstream)[-1].body
    assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None


THOUGHT = {
    "message": {"role": "assistant", "content": "Hi", "thinking": "hm"},
    "done": True,
    "done_reason": "stop",
}


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, True),
        ({"exclude_reasoning": True}, False),
        ({"include_reasoning": False}, False),
        ({"include_reasoning": True}, True),
        ({"reasoning": {"exclude": True}}, False),
        ({"reasoning": {"exclude": False}, "include_reasoning": False}, True),
        ({"exclude_reasoning": False, "reasoning": {"exclude": True}}, True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_left_out_where_it_is_not_wanted(
    fields: Document, shown: bool, stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Lines([THOUGHT]) if stream else Json(THOUGHT)])
    body = ask(stream=stream, **fields).answer.body
    assert (b'"reasoning":"hm"' in body, b'"content":"Hi"' in body) == (shown, True)


TOO_LONG = Json({"error": "the input length exceeds the context length"}, 400)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_prompt_that_is_too_long_is_refused_in_words_that_clients_test_for(
    path: str, n: int, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script(UPSTREAM[path], [TOO_LONG])
    asked = ask(path, n=n)
    assert (asked.answer.status, asked.answer.json()["error"]["code"]) == (
        400,
        "context_length_exceeded",
    )
    assert (asked.sent["truncate"], asked.sent["shift"]) == (False, False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_prompt_is_cut_for_those_who_ask_for_it(
    path: str, stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    end = {
        "message": {"role": "assistant", "content": "x"},
        "response": "x",
        "done": True,
        "done_reason": "stop",
    }
    upstream.script(UPSTREAM[path], [TOO_LONG], [Lines([end]) if stream else Json(end)])
    asked = ask(path, truncate=True, stream=stream)
    assert (asked.answer.status, asked.answer.headers.get("X-Ollama-Proxy-Truncated")) == (
        200,
        "prompt",
    )
    assert ("truncate" in asked.sent, asked.sent["shift"]) == (False, False)


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("name", ["request_timeout", "timeout_ms"])
def test_client_may_wait_for_less(path: str, name: str, ask: Ask, upstream: FaultUpstream) -> None:
    upstream.script(UPSTREAM[path], [WaitForPeerClose()])
    answer = ask(path, **{name: 300}).answer
    assert (answer.status, answer.json()["error"]["type"]) == (504, "timeout_error")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_timeout", 0),
        ("timeout_ms", "1"),
        ("truncate", "yes"),
        ("exclude_reasoning", 1),
        ("include_reasoning", 0),
    ],
)
def test_extension_of_another_type_is_refused(name: str, value: Any, ask: Ask) -> None:
    refused(ask(**{name: value}), name)


def test_many_answers_to_a_large_request_are_refused(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """Each of them would hold a copy of it."""
    large = [{"role": "user", "content": "x" * (5 << 20)}]
    answer = post(gateway, CHAT, {"model": "m", "messages": large, "n": 16})
    assert answer.status == 413
    assert "16 answers" in answer.json()["error"]["message"]
    assert not forwarded(upstream)
