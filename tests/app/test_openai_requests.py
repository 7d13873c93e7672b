"""What OpenAI's requests become: every field is mapped, carried or refused, and it shows."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.schema_fields import CARRIED, MAPPED, REFUSED
from tests.golden import fates
from tests.golden.face import forwarded, post
from tests.golden.fates import (
    CHAT,
    COMPLETION,
    FATES,
    FIELDS,
    SCHEMAS,
    SMALLEST,
    TOOL,
    UPSTREAM,
    USER,
    Ask,
    Document,
)
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.local import LocalGateway

#: What says that nothing may be cut.
UNCUT: Document = {"truncate": False, "shift": False}


ask = fates.ask


ALL = [(path, name) for path, names in FIELDS.items() for name in names]


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_of_the_api_has_a_fate_here_and_in_the_schema(path: str) -> None:
    assert FATES[path].keys() == set(FIELDS[path])
    fates = {
        name: getattr(SCHEMAS[path].fields.get(name), "handling", None) for name in FIELDS[path]
    }
    assert [name for name, fate in fates.items() if fate not in (MAPPED, CARRIED, REFUSED)] == []


@pytest.mark.parametrize(
    ("path", "name"), ALL, ids=[f"{path.rpartition('/')[2]}-{name}" for path, name in ALL]
)
def test_field_has_the_effect_that_its_fate_promises(path: str, name: str, ask: Ask) -> None:
    fate = FATES[path][name]
    asked = ask(path, **fate.beside, **{name: fate.value})
    if fate.kind == REFUSED:
        error = asked.answer.json()["error"]
        assert (asked.answer.status, error["param"], error["type"]) == (
            400,
            name,
            "invalid_request_error",
        )
        assert name in error["message"]
        assert asked.sent == {}
    elif fate.kind == CARRIED:
        assert asked.answer.status == 200
        assert asked.ignored == [name]
    else:
        assert asked.answer.status == 200
        assert fate.shows(asked), (asked.sent, asked.answer)


def test_schema_agrees_with_what_happens() -> None:
    handling = {
        (path, name): getattr(SCHEMAS[path].fields[name], "handling", None) for path, name in ALL
    }
    assert handling == {(path, name): FATES[path][name].kind for path, name in ALL}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("modalities", ["text"]),
        ("function_call", "none"),
        ("functions", []),
        ("include_reasoning", True),
        ("logit_bias", {}),
        ("metadata", {}),
        ("store", None),
        ("audio", None),
        ("tool_choice", "auto"),
        ("parallel_tool_calls", True),
        ("stream_options", {"include_usage": False}),
        ("response_format", {"type": "text"}),
    ],
)
def test_values_that_ask_for_nothing_special_are_taken_in_silence(
    name: str, value: Any, ask: Ask
) -> None:
    asked = ask(**{name: value})
    assert (asked.answer.status, asked.answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, None)
    assert asked.sent.keys() == {"model", "messages", "stream", "truncate", "shift"}


@pytest.mark.parametrize("path", UPSTREAM)
def test_user_is_in_the_access_log(path: str, gateway: LocalGateway) -> None:
    user = f"user of {path}"
    post(gateway, path, SMALLEST[path] | {"user": user})
    wait_until(
        lambda: user in [row.get("user") for row in gateway.log_lines("access")],
        5,
        f"{user} is in no line",
    )


@pytest.mark.parametrize("path", UPSTREAM)
def test_unknown_fields_are_carried_and_named(path: str, ask: Ask) -> None:
    asked = ask(path, brand_new_field={"a": 1}, another="x")
    assert asked.answer.status == 200
    assert asked.ignored == ["brand_new_field", "another"]
    assert not asked.sent.keys() & {"brand_new_field", "another"}


@pytest.mark.parametrize("name", ["x\r\nSet-Cookie: a=b", "é", "☃", "a, b", "", "x" * 2000, "\0"])
def test_field_name_can_do_no_harm_in_the_head_of_the_answer(name: str, ask: Ask) -> None:
    """A name is the client's own text: one that no header can hold must neither break the
    answer nor leak its slot."""
    asked = ask(**{name: 1})
    assert asked.answer.status == 200
    assert asked.answer.headers.get("Set-Cookie") is None
    named = asked.answer.headers.get("X-Ollama-Proxy-Ignored") or ""
    assert named.isascii()
    assert len(named) <= 500


def test_every_field_at_fault_is_named_at_once(ask: Ask) -> None:
    error = ask(temperature="hot", n="3", seed=1.5).answer.json()["error"]
    assert [name in error["message"] for name in ("temperature", "n: ", "seed")] == [True] * 3


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": []}),
        (CHAT, {"messages": None}),
        (CHAT, {"messages": "Hi"}),
        (COMPLETION, {"prompt": ""}),
        (COMPLETION, {"prompt": None}),
        (COMPLETION, {"prompt": ["a", ""]}),
        (COMPLETION, {"prompt": []}),
        (CHAT, {"model": ""}),
        (COMPLETION, {"model": None}),
    ],
)
def test_G10_empty_request_is_no_order_to_load_a_model(
    path: str, fields: Document, ask: Ask
) -> None:
    asked = ask(path, **fields)
    assert (asked.answer.status, asked.sent) == (400, {})
    assert asked.answer.json()["error"]["param"] == next(iter(fields))


def test_prompt_in_a_list_of_one_is_unwrapped(ask: Ask) -> None:
    assert ask(COMPLETION, prompt=["Hi"]).sent["prompt"] == "Hi"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 5}, 5),
        ({"max_tokens": 9}, 9),
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_tokens": 9, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 9, "max_completion_tokens": None}, 9),
    ],
)
def test_G14_limit_of_tokens(fields: Document, expected: int, ask: Ask) -> None:
    assert ask(**fields).options == {"num_predict": expected}


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_G14_no_limit_is_said_as_clients_of_ollama_say_it(path: str, ask: Ask) -> None:
    assert ask(path, max_tokens=-1).options == {"num_predict": -1}


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("value", [0, -2, 0.5], ids=str)
def test_G14_limit_that_is_none_is_refused(
    value: Any, path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = post(
        gateway, path, {"model": "m", "messages": [], "prompt": "hi", "max_tokens": value}
    )
    assert (answer.status, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert not forwarded(upstream)


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_G15_absent_sampling_stays_absent(path: str, ask: Ask) -> None:
    assert "options" not in ask(path).sent


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_null_sampling_stays_absent(path: str, ask: Ask) -> None:
    asked = ask(path, temperature=None, top_p=None, max_tokens=None, stop=None, seed=None)
    assert "options" not in asked.sent


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_G15_zero_is_not_absent(path: str, ask: Ask) -> None:
    fields = {
        "temperature": 0,
        "top_p": 0,
        "seed": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }
    assert ask(path, **fields).options == fields


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize(("stop", "expected"), [("X", ["X"]), (["X", "Y"], ["X", "Y"])])
def test_G16_stop_is_a_list_for_ollama(path: str, stop: Any, expected: list[str], ask: Ask) -> None:
    assert ask(path, stop=stop).options == {"stop": expected}


@pytest.mark.parametrize("stop", [5, ["X", 5], {"a": 1}])
def test_stop_of_another_type_is_refused(stop: Any, ask: Ask) -> None:
    asked = ask(stop=stop)
    assert (asked.answer.status, asked.answer.json()["error"]["param"]) == (400, "stop")


def message(ask: Ask, **fields: Any) -> Document:
    asked = ask(messages=[{"role": "user", **fields}])
    assert asked.answer.status == 200, asked.answer.text
    [one] = asked.sent["messages"]
    return dict(one)


def text(value: str) -> Document:
    return {"type": "text", "text": value}


def image(url: Any) -> Document:
    return {"type": "image_url", "image_url": url}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", {"content": "a"}),
        (None, {"content": ""}),
        ([], {"content": ""}),
        ([text("a"), text("b")], {"content": "a\nb"}),
        ([{"type": "refusal", "refusal": "no"}], {"content": "no"}),
        (
            [image({"url": "data:image/png;base64,AAAA", "detail": "low"})],
            {"content": "", "images": ["AAAA"]},
        ),
        ([image("data:image/webp;base64,AAAA")], {"content": "", "images": ["AAAA"]}),
        ([image({"url": "data:;base64,AAAA"})], {"content": "", "images": ["AAAA"]}),
        (
            [text("a"), image({"url": "data:image/png;base64,AAAA"}), text("b")],
            {"content": "a\nb", "images": ["AAAA"]},
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}],
            {"content": "", "images": ["UklGRg=="]},
        ),
    ],
)
def test_G17_parts_stay_one_message(content: Any, expected: Document, ask: Ask) -> None:
    assert message(ask, content=content) == {"role": "user"} | expected


@pytest.mark.parametrize(
    "part",
    [
        image({"url": "ftp://example.org/cat.png"}),
        image({"url": "file:///etc/passwd"}),
        image({"url": "data:image/png,notbase64"}),
        image({"url": 5}),
        image(None),
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "text"},
        {"type": "input_audio", "input_audio": {}},
        {"text": "no type"},
        "text",
    ],
)
def test_part_that_cannot_be_used_is_named(part: Any, ask: Ask) -> None:
    asked = ask(messages=[{"role": "user", "content": [text("a"), part]}])
    error = asked.answer.json()["error"]
    assert (asked.answer.status, asked.sent) == (400, {})
    assert error["param"].startswith("messages[0].content[1]")
    assert "messages[0].content[1]" in error["message"]


def test_G17_image_of_a_private_address_is_refused_by_name(
    ask: Ask, upstream: FaultUpstream
) -> None:
    asked = ask(messages=[{"role": "user", "content": [image({"url": f"{upstream.url}/cat.png"})]}])
    assert asked.answer.status == 400
    assert "messages[0].content[0]" in asked.answer.json()["error"]["message"]
    assert not forwarded(upstream)


@pytest.mark.parametrize(
    ("role", "sent_role"), [("system", "system"), ("developer", "system"), ("user", "user")]
)
def test_roles(role: str, sent_role: str, ask: Ask) -> None:
    asked = ask(messages=[{"role": role, "content": "x"}])
    assert asked.sent["messages"] == [{"role": sent_role, "content": "x"}]


@pytest.mark.parametrize("role", ["wizard", "", None, 5])
def test_unknown_role_is_refused(role: Any, ask: Ask) -> None:
    error = ask(messages=[{"role": role, "content": "x"}]).answer.json()["error"]
    assert error["param"] == "messages[0].role"


def history(call: Document, result: Document) -> list[Document]:
    return [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", **result},
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"b":1,"a":2}', '{"b":1,"a":2}'),
        ("", "{}"),
        ("{}", "{}"),
        ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
    ],
)
def test_G18_arguments_become_an_object_in_their_order(
    arguments: Any, expected: str, ask: Ask, upstream: FaultUpstream
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    ask(messages=history(call, {"tool_call_id": "c1", "content": "r"}))
    assert f'"arguments":{expected}'.encode() in forwarded(upstream)[-1].body


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "5", [1], 5])
def test_arguments_of_another_kind_are_refused(arguments: Any, ask: Ask) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    asked = ask(messages=history(call, {"tool_call_id": "c1", "content": "r"}))
    assert asked.answer.status == 400
    assert "messages[1].tool_calls[0]" in asked.answer.json()["error"]["message"]


@pytest.mark.parametrize("content", ["r", [text("r")]])
def test_G17_result_of_a_tool_keeps_its_id_and_gets_its_name(content: Any, ask: Ask) -> None:
    """A list of parts must not lose them."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = ask(messages=history(call, {"tool_call_id": "c1", "content": content}))
    assert asked.sent["messages"][-1] == {
        "role": "tool",
        "content": "r",
        "tool_name": "f",
        "tool_call_id": "c1",
    }


def test_G19_tool_choice_none_hides_the_tools(ask: Ask) -> None:
    asked = ask(tools=[TOOL], tool_choice="none")
    assert "tools" not in asked.sent
    assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None


@pytest.mark.parametrize(
    "tool",
    [
        {"type": 5},
        {"type": "custom"},
        {"type": "custom", "custom": {"name": "two words"}},
        {"type": "function"},
        {"type": "function", "function": {"name": ""}},
        {"type": "function", "function": {"name": "two words"}},
        {"type": "function", "function": {"name": "f", "parameters": []}},
        "f",
    ],
)
def test_tool_that_cannot_be_used_is_named(tool: Any, ask: Ask) -> None:
    asked = ask(tools=[TOOL, tool])
    assert (asked.answer.status, asked.sent) == (400, {})
    assert asked.answer.json()["error"]["param"].startswith("tools[1]")


def test_G20_schema_of_a_tool_arrives_whole_and_in_order(ask: Ask, upstream: FaultUpstream) -> None:
    """The face narrows nothing; what Ollama reads of it is Ollama's."""
    parameters: Document = {
        "type": "object",
        "properties": {"z": {"$ref": "#/$defs/Z"}, "a": {"oneOf": [{"type": "null"}]}},
    }
    parameters |= {
        "additionalProperties": False,
        "$defs": {"Z": {"type": "string", "default": "x"}},
    }
    ask(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert list(
        forwarded(upstream)[-1].json()["tools"][0]["function"]["parameters"]["properties"]
    ) == ["z", "a"]
    assert forwarded(upstream)[-1].json()["tools"][0]["function"]["parameters"] == parameters


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}}, "high"),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "low"),
        ({"think": True}, True),
        ({"think": "low"}, "low"),
    ],
)
def test_G21_effort_becomes_think(fields: Document, think: Any, ask: Ask) -> None:
    assert ask(**fields).sent["think"] == think


@pytest.mark.parametrize("effort", ["", None])
def test_no_effort_leaves_thinking_to_the_model(effort: Any, ask: Ask) -> None:
    assert "think" not in ask(reasoning_effort=effort).sent


@pytest.mark.parametrize(
    "fields",
    [{"reasoning_effort": "High"}, {"reasoning_effort": "huge"}, {"think": "huge"}, {"think": 1}],
)
def test_G21_unknown_effort_is_refused(fields: Document, ask: Ask) -> None:
    asked = ask(**fields)
    assert (asked.answer.status, asked.sent) == (400, {})


def test_G21_thinking_on_a_model_without_it_is_the_upstreams_400(
    ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": '"m" does not support thinking'}, 400)])
    asked = ask(reasoning_effort="high")
    assert asked.answer.status == 400
    assert asked.answer.json()["error"]["message"] == '"m" does not support thinking'


#: Ollama's options that are no fields of OpenAI's.
OPTIONS: Document = {
    **dict.fromkeys(
        "num_predict num_keep num_batch num_gpu main_gpu num_thread draft_num_predict".split(), 3
    ),
    **{"repeat_last_n": 64, "typical_p": 0.7, "repeat_penalty": 1.1, "use_mmap": False},
    **{"mirostat": 1, "mirostat_tau": 0.8, "mirostat_eta": 0.6},
}
SCHEMA: Document = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"keep_alive": "10m"}, {"keep_alive": "10m"}),
        ({"keep_alive": 300}, {"keep_alive": 300}),
        ({"num_ctx": 8192}, {"options": {"num_ctx": 8192}}),
        (
            {"options": {"num_ctx": 4096, "mirostat": 1}},
            {"options": {"num_ctx": 4096, "mirostat": 1}},
        ),
        ({"options": {"temperature": 1}, "temperature": 0.5}, {"options": {"temperature": 0.5}}),
        ({"top_k": 5, "min_p": 0.1}, {"options": {"top_k": 5, "min_p": 0.1}}),
        (OPTIONS, {"options": OPTIONS}),
        (
            {"options": {"num_gpu": 1, "seed": 1}, "num_gpu": 2.0},
            {"options": {"num_gpu": 2, "seed": 1}},
        ),
        ({"num_predict": 5, "max_tokens": 7}, {"options": {"num_predict": 7}}),
        ({"format": SCHEMA}, {"format": SCHEMA, "think": False}),
        ({"format": "json", "response_format": {"type": "text"}}, {}),
        (
            {"format": SCHEMA, "response_format": {"type": "json_object"}},
            {"format": "json", "think": False},
        ),
        ({"format": "", "stop": []}, {}),
    ],
)
def test_extensions_of_ollama_clients(fields: Document, expected: Document, ask: Ask) -> None:
    asked = ask(**fields)
    assert asked.sent == {"model": "m", "messages": USER, "stream": False, **UNCUT} | expected
    assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None


def test_rendering_for_debugging_is_not_passed_on(ask: Ask) -> None:
    asked = ask(_debug_render_only=True)
    assert (asked.answer.status, asked.sent) == (400, {})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "0.5"}, "temperature"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"num_predict": "5"}, "num_predict"),
        ({"repeat_penalty": True}, "repeat_penalty"),
        ({"format": "xml"}, "format"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"tools": {}}, "tools"),
        ({"temperature": True}, "temperature"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"keep_alive": "10"}, "keep_alive"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)
def test_wrong_value_is_a_400_that_names_the_field(fields: Document, param: str, ask: Ask) -> None:
    asked = ask(**fields)
    error = asked.answer.json()["error"]
    assert (asked.answer.status, error["type"], asked.sent) == (400, "invalid_request_error", {})
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    ("stream", "content_type"),
    [(None, "application/json"), (False, "application/json"), (True, "text/event-stream")],
)
def test_streaming_is_asked_for(stream: Any, content_type: str, ask: Ask) -> None:
    asked = ask(stream=stream)
    assert (asked.answer.headers.get("Content-Type") or "").startswith(content_type)
    assert asked.sent["stream"] is bool(stream)


@pytest.mark.parametrize("model", ["tiny-test", "M:Latest", "library/m", "ns/m:v1"])
def test_G12_model_is_echoed_and_sent_as_it_was_written(model: str, ask: Ask) -> None:
    asked = ask(model=model)
    assert (asked.answer.json()["model"], asked.sent["model"]) == (model, model)


@pytest.mark.parametrize(
    ("status", "document", "text"),
    [
        (429, {"StatusCode": 429, "Status": "429 Too Many Requests", "error": "slow"}, "slow"),
        (400, {"error": '{"error":{"code":400,"message":"bad schema"}}'}, "bad schema"),
        (400, {"error": {"message": "bad schema"}}, "bad schema"),
        (404, {"error": "model 'x' not found"}, "model 'x' not found"),
    ],
)
def test_errors_of_the_upstream_become_one_sentence(
    status: int, document: Document, text: str, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(document, status)])
    asked = ask()
    assert (asked.answer.status, asked.answer.json()["error"]["message"]) == (status, text)


@pytest.mark.parametrize("stream", [True, False])
def test_G05_missing_model_keeps_its_status_when_streaming_too(
    stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "model 'x' not found"}, 404)])
    asked = ask(stream=stream)
    assert asked.answer.status == 404
    assert asked.answer.json()["error"]["code"] == "model_not_found"
    assert (asked.answer.headers.get("Content-Type") or "").startswith("application/json")


def test_prompt_that_is_too_long_has_the_code_that_clients_look_for(
    ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Json({"error": "the input length exceeds the context length"}, 400)]
    )
    assert ask().answer.json()["error"]["code"] == "context_length_exceeded"


def test_G30_busy_upstream_says_when_to_come_back(ask: Ask, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Json({"error": "server busy, please try again."}, 503)])
    asked = ask()
    assert (asked.answer.status, asked.answer.json()["error"]["type"]) == (503, "api_error")
    assert int(asked.answer.headers.get("Retry-After") or 0) > 0


def test_usage_chunk_is_last_and_alone(ask: Ask) -> None:
    body = ask(
        stream=True, stream_options={"include_usage": True, "include_obfuscation": False}
    ).answer.body
    assert body.count(b'"usage":{') == 1
    assert body.split(b"\n\n")[-3].count(b'"choices":[]') == 1
