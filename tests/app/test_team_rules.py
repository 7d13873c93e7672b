"""`models` of the configuration: overrides and limits, what is left out, time and system
prompts, in every API."""

from __future__ import annotations

import json
import time
from itertools import product
from typing import Any

import pytest

from tests.app import team
from tests.app.team import (
    EVERY,
    Document,
    ask,
    clamped,
    each_one,
    each_text,
    each_vector,
    named,
    sent,
)
from tests.golden.face import TOKEN, forwarded
from tests.rig import NDJSON
from tests.rig.calls import CHAT_LINE, FACES, MESSAGES
from tests.rig.errors import NATIVE, assert_error
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    FaultUpstream,
    Head,
    Json,
    Lines,
    WaitForPeerClose,
)
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Replay, recording
from tests.rig.tables import check_rows

gateway, new_gateway, stocked = team.gateway, team.new_gateway, team.stocked


# --- Precedence: caller, override, the model's own ------------------------------------------------

#: What the caller says, to which model, and what of it the upstream is told.
PRECEDENCE: dict[str, tuple[Document, str, Document]] = {
    "S2-26 nobody but the operator": (
        {},
        "ruled",
        {"options": {"num_ctx": 8192, "temperature": 0.1}, "think": "high", "keep_alive": "30m"},
    ),
    "S2-03 nobody": ({}, "plainly", {}),
    "S2-27 the caller's option": (
        {"options": {"num_ctx": 2048}},
        "ruled",
        {"options": {"num_ctx": 2048, "temperature": 0.1}, "think": "high", "keep_alive": "30m"},
    ),
    "S2-31 other options": (
        {"options": {"top_k": 3, "mirostat": 2}},
        "ruled",
        {
            "options": {"num_ctx": 8192, "temperature": 0.1, "top_k": 3, "mirostat": 2},
            "think": "high",
            "keep_alive": "30m",
        },
    ),
    "S2-32 the caller's thinking": (
        {"think": False},
        "ruled",
        {"options": {"num_ctx": 8192, "temperature": 0.1}, "think": False, "keep_alive": "30m"},
    ),
    "S2-49 the caller's lease": (
        {"keep_alive": "5m"},
        "ruled",
        {"options": {"num_ctx": 8192, "temperature": 0.1}, "think": "high", "keep_alive": "5m"},
    ),
    "null is no word": (
        {"think": None, "keep_alive": None, "options": None},
        "ruled",
        {"options": {"num_ctx": 8192, "temperature": 0.1}, "think": "high", "keep_alive": "30m"},
    ),
    "only the caller": (
        {"options": {"num_ctx": 2048}, "think": True, "keep_alive": 60},
        "plainly",
        {"options": {"num_ctx": 2048}, "think": True, "keep_alive": 60},
    ),
}


#: What an API says where nobody else does.
DEFAULTS: dict[str, Document] = {
    "anthropic messages": {"think": False},
    "openai completions": {"think": False},
}


def told(upstream: FaultUpstream, name: str) -> Document:
    """Options, thinking and lease that the upstream was told, without the length that
    Anthropic's clients must give."""
    body = sent(upstream, name)
    if name == "anthropic messages":
        del body["options"]["num_predict"]
    return {
        key: body[key]
        for key in ("options", "think", "keep_alive")
        if body.get(key) not in (None, {})
    }


def test_S2_27_caller_then_override_then_the_models_own(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, case: str) -> None:
        fields, model, expected = PRECEDENCE[case]
        answer = ask(gateway, name, model, **fields)
        assert (answer.status, clamped(answer)) == (200, None)
        assert told(upstream, name) == DEFAULTS.get(name, {}) | expected

    check_rows(product(FACES, PRECEDENCE), check)


@each_vector
def test_S2_27_options_and_lease_of_embeddings(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    ask(gateway, name, "ruled", options={"num_ctx": 512})
    body = sent(upstream, name)
    assert (body["options"], body["keep_alive"]) == ({"num_ctx": 512, "temperature": 0.1}, "30m")
    assert "think" not in body


@pytest.mark.parametrize(
    "name", ["openai chat", "openai completions", "openai responses", "anthropic messages"]
)
def test_S2_19_num_ctx_beside_the_other_fields(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    ask(gateway, name, "ruled", num_ctx=1024)
    assert sent(upstream, name)["options"]["num_ctx"] == 1024


@pytest.mark.parametrize(
    ("name", "fields", "think"),
    [
        ("openai chat", {"reasoning_effort": "low"}, "low"),
        ("openai responses", {"reasoning": {"effort": "low"}}, "low"),
        ("anthropic messages", {"thinking": {"type": "disabled"}}, False),
        ("anthropic messages", {}, "high"),
    ],
)
def test_S2_27_the_clients_own_word_for_thinking_comes_first(
    name: str, fields: Document, think: str | bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, name, "ruled", **fields).status == 200
    assert sent(upstream, name)["think"] == think


def test_thinking_that_a_model_cannot_do_is_not_asked_for_where_the_client_would_not_know(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/show", [Json({"capabilities": ["completion"]})])
    assert (
        ask(
            gateway,
            "anthropic messages",
            "incapable",
            thinking={"type": "enabled", "budget_tokens": 9},
        ).status
        == 200
    )
    assert "think" not in sent(upstream, "anthropic messages")
    assert upstream.wait_for_request(path="/api/show").json() == {"model": "incapable"}


@pytest.mark.parametrize("field", ["Think", "SYSTEM", "Options", "Keep_Alive"])
def test_B6_a_field_that_rules_decide_on_is_refused_in_another_case(
    field: str, gateway: LocalGateway
) -> None:
    fields: Document = {field: None}
    answer = ask(gateway, "native generate", "ruled", **fields)
    assert answer.status == 400
    assert f"'{field}'" in answer.text


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
@each_text
def test_limits_hold_and_the_answer_says_so(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    options, fields = (
        dict[str, int](num_ctx=65536, num_predict=9999),
        dict[str, Any](keep_alive="2h"),
    )
    if name == "anthropic messages":
        fields["max_tokens"] = options.pop("num_predict")
    answer = ask(gateway, name, "limited", stream=stream, options=options, **fields)
    assert clamped(answer) == "num_ctx=32768, num_predict=4096, keep_alive=3600s"
    body = sent(upstream, name)
    assert (body["options"], body["keep_alive"]) == ({"num_ctx": 32768, "num_predict": 4096}, 3600)


@each_text
def test_what_is_within_the_limits_passes_without_a_word(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    is_anthropic = name == "anthropic messages"
    fields: Document = {"max_tokens": 4096} if is_anthropic else {"options": {"num_predict": 4096}}
    answer = ask(gateway, name, "Limited:latest", keep_alive="1h", **fields)
    assert (answer.status, clamped(answer)) == (200, None)
    assert sent(upstream, name)["keep_alive"] == "1h"


@each_vector
def test_limits_of_embeddings_are_those_that_they_have(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, name, "limited", options={"num_ctx": 65536})
    assert (clamped(answer), sent(upstream, name)["options"]) == (
        "num_ctx=32768",
        {"num_ctx": 32768},
    )


@pytest.mark.parametrize(
    "spelling",
    [
        "limited",
        "LIMITED",
        "library/limited",
        "limited:local",
        "https://registry.ollama.ai/library/limited",
    ],
)
def test_B10_no_spelling_gets_around_a_limit(spelling: str, gateway: LocalGateway) -> None:
    answer = ask(gateway, "openai chat", spelling, num_ctx=65536, max_tokens=10)
    assert clamped(answer) == "num_ctx=32768"


@pytest.mark.parametrize("lease", ["+2h", "120.m", "7200000000µs", "7200000000000ns", 7200])
def test_lease_is_limited_in_every_notation(
    lease: str | int, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, "native chat", "limited", keep_alive=lease, options={"num_predict": 1})
    assert (answer.status, clamped(answer)) == (200, "keep_alive=3600s")
    assert sent(upstream, "native chat")["keep_alive"] == 3600


@pytest.mark.parametrize("asked", [256, 512, 8192, None])
@each_text
def test_pinned_options_keep_the_model_that_is_loaded(
    name: str, asked: int | None, new_gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/ps", [Replay(recording("ps-loaded"))])
    answer = ask(new_gateway, name, "pinned", options={"num_ctx": asked, "num_gpu": 1, "seed": 7})
    reported = ["num_ctx=512"] * (asked not in (None, 512)) + ["num_gpu=default"]
    assert clamped(answer) == ", ".join(reported)
    options = sent(upstream, name)["options"]
    assert {**options, "num_predict": None} == {"num_ctx": 512, "seed": 7, "num_predict": None}


@pytest.mark.parametrize("row", [{"models": []}, {"models": None}, {"error": "no"}])
def test_pinned_options_of_a_model_that_is_not_loaded_are_the_callers(
    row: Document, new_gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/ps", [Json(row, 500 if "error" in row else 200)])
    answer = ask(new_gateway, "native chat", "pinned", options={"num_ctx": 2048})
    assert (answer.status, clamped(answer)) == (200, None)
    assert sent(upstream, "native chat")["options"] == {"num_ctx": 2048}


# --- Thinking that is left out --------------------------------------------------------------------

THOUGHT, SAID = "Let me see.", "Four."


def thinking_script(name: str, *, stream: bool, edges: int | None = None) -> list[Action]:
    """An upstream that thinks and then answers, in one object or in lines."""
    is_chat = EVERY[name].upstream_path == "/api/chat"
    base = {"model": "thinker", "created_at": "2026-01-01T00:00:00Z"}

    def line(thinking: str = "", text: str = "", **more: Any) -> Document:
        part = {"thinking": thinking} if thinking else {}
        if is_chat:
            return {
                **base,
                "message": {"role": "assistant", "content": text, **part},
                "done": False,
                **more,
            }
        return {**base, "response": text, **part, "done": False, **more}

    end: Document = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 5}
    if not stream:
        return [Json(line(THOUGHT, SAID, **end))]
    return [Lines([line("Let me "), line("see."), line(text=SAID), line(**end)], edges)]


def test_S2_29_thinking_is_left_out_by_the_operator_or_by_the_caller(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, model: str, form: tuple[bool, int | None]) -> None:
        stream, edges = form
        script = thinking_script(name, stream=stream, edges=edges)
        upstream.script(EVERY[name].upstream_path, script)
        fields: Document = {} if model == "silent" else {"exclude_reasoning": True}
        answer = ask(gateway, name, model, stream=stream, think=True, **fields)
        assert (answer.status, answer.complete, named(answer)) == (200, True, {model})
        assert SAID in answer.text
        assert "Let me" not in answer.text
        assert "see." not in answer.text

    #: Single, streamed, and streamed byte by byte.
    forms = ((False, None), (True, None), (True, 1))
    check_rows(product(FACES, ("silent", "thinker"), forms), check)


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
@pytest.mark.parametrize(
    "name", ["native chat", "native generate", "openai chat", "openai responses"]
)
def test_S2_29_the_caller_may_undo_it(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, thinking_script(name, stream=stream))
    answer = ask(gateway, name, "silent", stream=stream, exclude_reasoning=False)
    assert "Let me " in answer.text
    assert "see." in answer.text


@pytest.mark.parametrize("name", FACES)
def test_S2_29_null_undoes_nothing(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, thinking_script(name, stream=False))
    assert "see." not in ask(gateway, name, "silent", exclude_reasoning=None).text


def entry(token: str) -> Document:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode())}


@pytest.mark.parametrize("name", ["native chat", "native generate"])
def test_S2_29_thinking_that_is_left_out_of_a_stream_is_not_in_its_log_probabilities(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """Also not in a line with nothing to read, while the model server holds back
    what may be thinking."""
    lines = []
    for thinking, text, token in [("Let me see.", "", "see."), ("", "", "held"), ("", SAID, SAID)]:
        parts = {"thinking": thinking} if thinking else {}
        said = (
            {"message": {"content": text, **parts}}
            if name == "native chat"
            else {"response": text, **parts}
        )
        lines.append({"model": "thinker", **said, "logprobs": [entry(token)], "done": False})
    upstream.script(
        EVERY[name].upstream_path, [Lines([*lines, {"model": "thinker", "done": True}])]
    )
    seen = ask(gateway, name, "silent", stream=True, think=True, logprobs=True).body.splitlines()
    assert [json.loads(line).get("logprobs") for line in seen] == [None, None, [entry(SAID)], None]


@pytest.mark.parametrize(("thinking", "kept"), [(THOUGHT, False), ("", True)])
@pytest.mark.parametrize("name", ["native chat", "native generate"])
def test_S2_29_single_answer_that_has_thought_has_no_log_probabilities_without_it(
    name: str, thinking: str, kept: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    said = {"thinking": thinking, "content" if name == "native chat" else "response": SAID}
    document = {"message": said} if name == "native chat" else said
    logprobs = [entry(token) for token in (thinking, SAID) if token]
    upstream.script(
        EVERY[name].upstream_path, [Json({"model": "thinker", **document, "logprobs": logprobs})]
    )
    answer = ask(gateway, name, "silent", think=True, logprobs=True)
    assert answer.json().get("logprobs") == (logprobs if kept else None)
    assert THOUGHT not in answer.text


def test_thinking_in_a_line_that_was_cut_is_not_seen(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    lines = b'{"model":"thinker","message":{"thinking":"hidden th'
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(lines)])
    answer = ask(gateway, "native chat", "silent", stream=True)
    assert "hidden" not in answer.text
    assert "error" in json.loads(answer.body.splitlines()[-1])


@pytest.mark.parametrize("model", ["silent", "coder"])
@each_text
def test_errors_of_the_upstream_pass_for_an_alias_as_for_a_model(
    name: str, model: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, [Json({"error": "model 'x' not found"}, 404)])
    answer = ask(gateway, name, model, stream=True)
    assert answer.status == 404
    assert "model 'x' not found" in answer.text


def test_client_that_leaves_an_edited_stream_ends_it(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat",
        [Head(200, NDJSON), Chunk(json.dumps(CHAT_LINE).encode() + b"\n"), WaitForPeerClose()],
    )
    body = {"model": "coder", "messages": MESSAGES}
    with gateway.open_stream("POST", "/api/chat", body, bearer(TOKEN)) as stream:
        assert json.loads(stream.read_some())["model"] == "coder"
    seen = upstream.wait_for_request(path="/api/chat")
    upstream.wait_peer_closed(seen.connection, 2)


# --- Time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
@each_text
def test_S2_28_the_operators_time_for_an_answer_counts(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, [WaitForPeerClose()])
    began = time.monotonic()
    answer = ask(gateway, name, "quick", stream=stream)
    assert answer.status == 504
    assert time.monotonic() - began > 0.08


@pytest.mark.parametrize("field", ["request_timeout", "timeout_ms"])
@each_one
def test_S2_28_the_caller_may_wait_for_less(
    field: str, name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, [WaitForPeerClose()])
    began = time.monotonic()
    fields: Document = {field: 80}
    answer = ask(gateway, name, "other", **fields)
    assert (answer.status, clamped(answer)) == (504, None)
    assert time.monotonic() - began > 0.06


@each_one
def test_S2_28_the_caller_gets_no_more_than_the_operator_allows(
    name: str, gateway: LocalGateway
) -> None:
    answer = ask(gateway, name, "plainly", request_timeout=99_999_999)
    assert (answer.status, clamped(answer)) == (200, "request_timeout=50000")


def test_time_that_is_none_is_refused(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(name: str, value: Any) -> None:
        before = len(forwarded(upstream))
        answer = ask(gateway, name, "other", request_timeout=value)
        assert answer.status == 400
        assert "request_timeout" in answer.text
        assert forwarded(upstream)[before:] == []

    check_rows(product(EVERY, (0, -5, "5s", True)), check)


# --- System prompts -------------------------------------------------------------------------------

GIVEN = "SECRET You are a cat."
SYSTEM: dict[str, Document] = {
    "native chat": {"messages": [{"role": "system", "content": GIVEN}, *MESSAGES]},
    "native generate": {"system": GIVEN},
    "openai chat": {"messages": [{"role": "system", "content": GIVEN}, *MESSAGES]},
    "openai responses": {"instructions": GIVEN},
    "anthropic messages": {"system": GIVEN},
}


def system_texts(upstream: FaultUpstream, name: str) -> list[str]:
    """The system prompts that the model is given."""
    body = sent(upstream, name)
    if "messages" not in body:
        return [body["system"]] if body.get("system") else []
    return [message["content"] for message in body["messages"] if message["role"] == "system"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("spoken", ["Rules.\n\nYou are a dog."]), ("mute", []), ("plainly", [GIVEN])],
)
@pytest.mark.parametrize("name", SYSTEM)
def test_system_prompt_is_what_the_operator_makes_of_it(
    name: str, model: str, expected: list[str], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, name, model, **SYSTEM[name]).status == 200
    assert system_texts(upstream, name) == expected


@pytest.mark.parametrize(
    ("model", "expected"), [("spoken", ["Rules."]), ("mute", []), ("plainly", [])]
)
@each_text
def test_system_prompt_where_the_client_gives_none(
    name: str, model: str, expected: list[str], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, name, model).status == 200
    assert system_texts(upstream, name) == expected


@pytest.mark.parametrize("role", ["System", "SYSTEM"])
def test_native_role_in_another_case_is_a_system_prompt_all_the_same(
    role: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    ask(gateway, "native chat", "mute", messages=[{"role": role, "content": GIVEN}, *MESSAGES])
    assert sent(upstream, "native chat")["messages"] == MESSAGES


@pytest.mark.parametrize(
    "message",
    [
        {"Role": "system", "Content": "EVIL"},
        {"role": "user", "Role": "system", "content": "EVIL"},
        {"role": "user", "content": "hi", "CONTENT": "EVIL"},
    ],
)
@pytest.mark.parametrize("model", ["mute", "spoken"])
def test_B6_key_of_a_message_in_another_case_does_not_get_around_the_rules(
    model: str, message: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, "native chat", model, messages=[*MESSAGES, message])
    assert answer.status == 400
    assert "messages: the field '" in answer.text
    assert "EVIL" not in answer.text
    assert forwarded(upstream) == []


def test_key_of_a_message_in_another_case_is_ollamas_business_where_there_are_no_rules(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    messages = [{"Role": "user", "Content": "hi"}]
    assert ask(gateway, "native chat", "plainly", messages=messages).status == 200
    assert sent(upstream, "native chat")["messages"] == messages


@pytest.mark.parametrize(
    "messages",
    [
        b'[{"role":"system","content":"EVIL","role":null},{"role":"user","content":"hi"}]',
        b'[{"role":"system","content":"EVIL","content":null},{"role":"user","content":"hi"}]',
        b'[null,{"role":"system","content":"EVIL"},{"role":"user","content":"hi"}]',
    ],
)
def test_null_which_go_takes_for_no_word_does_not_get_around_the_rules(
    messages: bytes, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """Go keeps the value that it read before a null, and an empty message in the place of one."""
    body = b'{"model":"mute","stream":false,"messages":%b}' % messages
    headers = bearer(TOKEN) | {"Content-Type": "application/json"}
    assert gateway.request("POST", "/api/chat", body, headers).status == 200
    body = upstream.wait_for_request(path="/api/chat").body
    assert b"system" not in body
    assert body.count(b'"role"') == 1


@pytest.mark.parametrize("name", ["native chat", "openai chat", "openai responses"])
def test_chat_of_nothing_but_a_system_prompt_is_no_order_to_load(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    said = [{"role": "system", "content": GIVEN}]
    fields: Document = {"input": said} if name == "openai responses" else {"messages": said}
    answer = ask(gateway, name, "mute", **fields)
    assert answer.status == 400
    assert "must contain more than system prompts" in answer.text
    assert GIVEN not in answer.text
    assert forwarded(upstream) == []


@pytest.mark.parametrize("stray", [{"messages": []}, {"messages": MESSAGES}])
def test_field_of_another_request_does_not_get_around_the_rules(
    stray: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    ask(gateway, "native generate", "mute", system=GIVEN, **stray)
    assert sent(upstream, "native generate")["system"] == ""


#: Fields of a completion with which the model would not get to read a system prompt.
UNREAD: dict[str, list[Document]] = {
    "native generate": [
        {"raw": True},
        {"raw": True, "prompt": ""},
        {"template": "{{ .Prompt }}"},
        {"template": " "},
        {"suffix": "end"},
        {"raw": True, "template": "{{ .Prompt }}", "system": "mine"},
        {"context": [1, 2], "suffix": " "},
        {"messages": MESSAGES, "raw": True},
    ],
    "openai completions": [{"suffix": "end"}, {"suffix": " ", "stream": True}],
}


def test_field_that_would_drop_the_system_rule_is_refused(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(model: str, request: tuple[str, Document]) -> None:
        before = len(forwarded(upstream))
        name, fields = request
        assert_error(ask(gateway, name, model, **fields), EVERY[name].dialect, 400)
        assert forwarded(upstream)[before:] == []

    requests = [(name, fields) for name, many in UNREAD.items() for fields in many]
    models = ("spoken", "mute", "SPOKEN:latest", "spoken:local")
    check_rows(product(models, requests), check)


@pytest.mark.parametrize(
    "said",
    [
        *(
            '"Template": "x"',
            '"TEMPLATE": "x"',
            '"\\u0054emplate": "x"',
            '"template": "x", "template": ""',
        ),
        *(
            '"Suffix": "x"',
            '"suffi\\u0058": "x"',
            '"\u017fuffix": "x"',
            '"suffix": "x", "suffix": null',
        ),
        *(
            '"RAW": true',
            '"\\u0072AW": true',
            '"raw": true, "raw": false',
            '"raw": true, "\\u0072aw": false',
        ),
    ],
)
def test_field_that_would_drop_the_system_rule_has_one_spelling(
    said: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    body = f'{{"model": "spoken", "prompt": "hi", {said}}}'
    answer = gateway.request("POST", "/api/generate", body.encode(), bearer(TOKEN))
    assert_error(answer, NATIVE, 400)
    assert forwarded(upstream) == []


@pytest.mark.parametrize(
    "fields", [{"raw": True}, {"template": "{{ .Prompt }}"}, {"suffix": "end"}]
)
@pytest.mark.parametrize("model", ["limited", "plainly", "free"])
def test_model_without_a_system_rule_takes_them(
    model: str, fields: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, "native generate", model, **fields).status == 200
    assert sent(upstream, "native generate").items() >= fields.items()


@pytest.mark.parametrize(
    "fields", [{"raw": False}, {"template": ""}, {"suffix": None}, {"context": [1, 2]}]
)
def test_field_that_asks_for_nothing_of_the_kind_is_no_reason_to_refuse(
    fields: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, "native generate", "spoken", **fields).status == 200
    assert sent(upstream, "native generate")["system"] == "Rules."


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("native chat", {"messages": []}),
        ("native generate", {"prompt": ""}),
        ("native chat", {"messages": [{"role": "user", "content": ["not text"]}]}),
        ("native chat", {"messages": ["not a message"]}),
    ],
)
def test_request_that_has_no_place_for_a_system_prompt_stays_as_it_is(
    name: str, body: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, name, "spoken", **body).status == 200
    assert sent(upstream, name) == {**EVERY[name].body, "model": "spoken", "stream": False, **body}
