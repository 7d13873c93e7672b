"""The demo upstream: the shapes of a recorded Ollama, the same words every time,
and nothing left open."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import ClientGone, UpstreamTimeout
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.answer_events import read_all
from ollama_proxy.upstreams.base import Connections, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.demo.answers import PAUSE_S, PROGRESS_PAUSE_S
from ollama_proxy.upstreams.demo.transport import DemoReply, DemoTransport
from tests.rig.clock import SkippingClock

RECORDINGS = Path(__file__).parents[3] / "recordings" / "0.24"
INDEX = {row["name"]: row for row in json.loads((RECORDINGS / "index.json").read_text())}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "place": {
                    "type": "object",
                    "properties": {"indoor": {"type": "boolean"}},
                    "required": ["indoor"],
                },
                "tags": {"type": "array", "items": {"type": "string"}},
                "note": {"type": "string"},
            },
            "required": ["city", "days", "unit", "place", "tags"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Got:
    """An answer read to its end."""

    status: int
    content_type: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        assert self.body.endswith(b"\n") and b"\n\n" not in self.body
        return [json.loads(line) for line in self.body.splitlines()]


Ask = Callable[..., Got]


@pytest.fixture
def transport() -> Iterator[DemoTransport]:
    """A demo that must have no answer open when the test is over."""
    demo = DemoTransport()
    yield demo
    demo.close()
    assert demo.connections == Connections(active=0, idle=0)


@pytest.fixture
def call() -> Call:
    return Call(Timeouts(), clock=SkippingClock())


@pytest.fixture
def ask(transport: DemoTransport, call: Call) -> Ask:
    """``ask(path, body)`` sends it and reads the whole answer; a body that is no
    bytes is sent as JSON."""

    def send(path: str, body: Any = b"", method: str = "") -> Got:
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        request = UpstreamRequest(method or ("POST" if data else "GET"), path, data)
        with closing(transport.open(request, call)) as reply:
            assert reply.wait_head(0.0)
            return Got(reply.status, dict(reply.headers).get("content-type"), read_all(reply))

    return send


@pytest.fixture
def chat(ask: Ask) -> Ask:
    """``chat("text", field=...)`` asks the demo, single unless ``stream=True``."""

    def send(said: str = "Hello!", **fields: Any) -> Got:
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": said}],
            "stream": False,
        } | fields
        return ask("/api/chat", body)

    return send


def open_stream(transport: DemoTransport, call: Call) -> DemoReply:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}
    return transport.open(UpstreamRequest("POST", "/api/chat", json.dumps(body).encode()), call)


def shape(value: Any) -> Any:
    """The keys of JSON with the types of what they hold; what a tool is called
    with is its own affair."""
    if isinstance(value, dict):
        return {
            key: "arguments" if key == "arguments" else shape(member)
            for key, member in value.items()
        }
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


# As the recorded Ollama.


@pytest.mark.parametrize(
    "name",
    """
    version status ps-loaded chat-load chat-unload chat-hello-stream chat-hello-single
    chat-length-stream chat-tool-stream chat-tool-single chat-logprobs-stream chat-logprobs-single
    chat-stream-null chat-unknown-role generate-load generate-unload
    generate-hello-stream generate-hello-single generate-raw-single generate-logprobs-single embed-one
    embed-many embed-empty-list embed-empty-string embed-legacy-one embed-legacy-empty copy
    """.split(),
)
def test_answers_have_the_shape_that_ollama_gives_them(ask: Ask, name: str) -> None:
    got, row = replay(ask, name)
    headers = dict(row["headers"])
    assert (got.status, got.content_type) == (row["status"], headers.get("Content-Type"))
    recorded = (RECORDINGS / row["response"]).read_bytes() if "response" in row else b""
    ours, theirs = got.body.splitlines(), recorded.splitlines()
    for line, other in zip(ours[:1] + ours[-1:], theirs[:1] + theirs[-1:], strict=True):
        assert shape(json.loads(line)) == shape(json.loads(other))


@pytest.mark.parametrize(
    "name",
    "chat-model-unknown generate-model-unknown show-missing delete-missing create-missing-from".split(),
)
def test_an_unknown_model_is_refused_in_ollamas_words(ask: Ask, name: str) -> None:
    got, row = replay(ask, name)
    assert (got.status, got.json) == (
        row["status"],
        json.loads((RECORDINGS / row["response"]).read_bytes()),
    )


@pytest.mark.parametrize("path", ["/api/copy", "/api/embed", "/api/embeddings"])
def test_a_model_that_does_not_exist_is_not_found(ask: Ask, path: str) -> None:
    got = ask(path, {"model": "other", "source": "other", "destination": "x", "input": "x"})
    assert (got.status, got.json) == (404, {"error": "model 'other' not found"})


@pytest.mark.parametrize("name", ["delete", "delete-name-field"])
def test_the_model_is_not_deleted(ask: Ask, name: str) -> None:
    got, _ = replay(ask, name)
    told = "The model 'demo:latest' is built into the gateway and can't be deleted."
    assert (got.status, got.json) == (403, {"error": told})


def replay(ask: Ask, name: str) -> tuple[Got, dict[str, Any]]:
    """The demo's answer to a recorded request for another model."""
    row = INDEX[name]
    request = (RECORDINGS / row["request"]).read_bytes() if "request" in row else b""
    for model in (b"tiny-test", b"tiny-plain", b"tiny-copy", b"tiny-copy2"):
        request = request.replace(b'"%s"' % model, b'"demo"')
    return ask(row["path"], request, row["method"]), row


@pytest.mark.parametrize("path", ["/api/nothing", "/", "/api/chat/"])
def test_an_unknown_path_is_not_found(ask: Ask, path: str) -> None:
    assert (ask(path).status, ask(path).json) == (404, {"error": "404 page not found"})


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/api/ps"), ("GET", "/api/chat"), ("POST", "/api/delete")]
)
def test_a_wrong_method_is_refused(ask: Ask, method: str, path: str) -> None:
    assert ask(path, b"", method).status == 405


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", []),
        ("/api/chat", {"model": 5}),
        ("/api/chat", {"model": "demo", "messages": {}}),
        ("/api/chat", {"model": "demo", "messages": ["x"]}),
        (
            "/api/chat",
            {"model": "demo", "messages": [{"role": "user", "content": [{"text": "x"}]}]},
        ),
        ("/api/chat", {"model": "demo", "messages": [{"role": "user", "images": [1]}]}),
        (
            "/api/chat",
            {
                "model": "demo",
                "messages": [{"role": "user", "images": ["data:image/png;base64,AAAA"]}],
            },
        ),
        ("/api/chat", {"model": "demo", "tools": [{"function": {"name": 5}}]}),
        ("/api/chat", {"model": "demo", "tools": [{"function": "f"}]}),
        ("/api/chat", {"model": "demo", "stream": "yes"}),
        ("/api/chat", {"model": "demo", "think": 3}),
        ("/api/chat", {"model": "demo", "think": "hard"}),
        ("/api/chat", {"model": "demo", "format": "xml"}),
        ("/api/chat", {"model": "demo", "top_logprobs": 21}),
        ("/api/chat", {"model": "demo", "options": {"num_predict": "5"}}),
        ("/api/chat", {"model": "demo", "options": {"temperature": True}}),
        ("/api/chat", {"model": "demo", "options": {"stop": "x"}}),
        ("/api/chat", {"model": "demo", "options": {"stop": [1]}}),
        ("/api/chat", {"model": ""}),
        ("/api/chat", {"model": "no name"}),
        ("/api/chat", b'{"model": "demo"'),
        ("/api/chat", b" "),
        ("/api/chat", {"model": "demo", "keep_alive": True}),
        ("/api/chat", {"model": "demo", "keep_alive": "abc"}),
        ("/api/chat", b'{"model": NaN}'),
        ("/api/chat", b"[" * 100_000),
        ("/api/generate", {"model": "demo", "prompt": "x", "raw": True, "system": "y"}),
        ("/api/generate", {"model": "demo", "prompt": "x", "suffix": "y"}),
        ("/api/embed", {"model": "demo", "input": 0}),
        ("/api/embed", {"model": "demo", "input": "x " * 40_000, "truncate": False}),
        ("/api/embeddings", {"model": ""}),
        ("/api/copy", {"source": "demo", "destination": "bad name"}),
        ("/api/blobs/md5:1", b"x"),
    ],
)
def test_a_request_that_can_not_be_read_is_refused_with_400_and_a_text(
    ask: Ask, path: str, body: Any
) -> None:
    got = ask(path, body)
    assert (got.status, list(got.json)) == (400, ["error"])
    assert isinstance(got.json["error"], str) and got.json["error"]


@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "Demo",
        " demo ",
        " demo:latest ",
        "library/demo",
        "registry.ollama.ai/library/demo:latest",
    ],
)
def test_every_spelling_of_the_name_is_taken_and_given_back_as_it_was(chat: Ask, name: str) -> None:
    got = chat(model=name)
    assert (got.status, got.json["model"]) == (200, name)


@pytest.mark.parametrize("name", ["demo:7b", "ns/demo", "demo2", "tiny"])
def test_other_models_do_not_exist(chat: Ask, name: str) -> None:
    assert (chat(model=name).status, chat(model=name).json) == (
        404,
        {"error": f"model '{name}' not found"},
    )


# What it says.


def test_the_answer_says_in_two_languages_that_it_is_the_demo_and_what_was_asked(
    chat: Ask,
) -> None:
    content = chat("How high is 泰山?").json["message"]["content"]
    assert (
        "built-in demo" in content and "演示" in content and content.endswith("How high is 泰山?")
    )


def test_a_long_question_comes_back_cut(chat: Ask) -> None:
    content = chat("长" * 100_000).json["message"]["content"]
    assert content.endswith("长…") and len(content) < 1000


@pytest.mark.parametrize(
    "fields", [{}, {"think": True}, {"tools": [WEATHER, CLOCK]}, {"logprobs": True}]
)
def test_the_same_request_gets_the_same_answer(chat: Ask, fields: dict[str, Any]) -> None:
    first, second = chat(**fields).json, chat(**fields).json
    assert first.pop("created_at") and second.pop("created_at") and first == second


def test_a_stream_joins_to_the_single_answer(chat: Ask) -> None:
    streamed = chat("Hi", think="high", stream=True).lines
    single = chat("Hi", think="high").json
    for kind in ("thinking", "content"):
        assert (
            "".join(line["message"].get(kind, "") for line in streamed) == single["message"][kind]
        )
    assert streamed[-1]["eval_count"] == single["eval_count"] == len(streamed)


def test_thinking_comes_first_and_only_when_asked_for(chat: Ask) -> None:
    messages = [line["message"] for line in chat(think=True, stream=True).lines[:-1]]
    thoughts = ["thinking" in message for message in messages]
    assert thoughts == sorted(thoughts, reverse=True) and True in thoughts and False in thoughts
    assert (
        "thinking" not in chat(think=False).json["message"]
        and "thinking" not in chat().json["message"]
    )


def test_generate_thinks_in_a_field_of_its_own(ask: Ask) -> None:
    got = ask(
        "/api/generate", {"model": "demo", "prompt": "Hi", "think": True, "stream": False}
    ).json
    assert "Hi" in got["thinking"] and got["response"].endswith("Hi")


def test_a_limit_as_long_as_the_answer_is_reached(chat: Ask) -> None:
    tokens = chat().json["eval_count"] - 1
    reasons = [
        chat(options={"num_predict": limit}).json["done_reason"] for limit in (tokens, tokens + 1)
    ]
    assert reasons == ["length", "stop"]


def test_num_predict_ends_the_answer_with_length(chat: Ask) -> None:
    *steps, last = chat(stream=True, options={"num_predict": 3}).lines
    assert (len(steps), last["done_reason"], last["eval_count"]) == (3, "length", 3)


@pytest.mark.parametrize("limit", [-1, 0, 10_000, None])
def test_no_limit_that_is_reached_ends_with_stop(chat: Ask, limit: int | None) -> None:
    assert chat(options={"num_predict": limit}).json["done_reason"] == "stop"


def test_a_stop_text_and_what_follows_is_left_out(chat: Ask) -> None:
    got = chat("one two three", options={"stop": ["nowhere", "two", ""]}).json
    assert (got["message"]["content"][-4:], got["done_reason"]) == ("one ", "stop")


def test_images_are_counted(chat: Ask) -> None:
    got = chat(messages=[{"role": "user", "content": "Look", "images": [PIXEL, PIXEL]}])
    assert "2 images (2 张图片)" in got.json["message"]["content"]


def test_logprobs_have_the_token_first_among_as_many_as_were_asked_for(
    chat: Ask,
) -> None:
    got = chat(logprobs=True, top_logprobs=3).json
    assert "".join(row["token"] for row in got["logprobs"]) == got["message"]["content"]
    for row in got["logprobs"]:
        assert bytes(row["bytes"]).decode() == row["token"] == row["top_logprobs"][0]["token"]
        likely = [other["logprob"] for other in row["top_logprobs"]]
        assert len(likely) == 3 and likely == sorted(likely, reverse=True)


def test_logprobs_without_alternatives_have_none(chat: Ask) -> None:
    assert all("top_logprobs" not in row for row in chat(logprobs=True).json["logprobs"])


# Tools.


def calls(got: Got) -> list[tuple[str, dict[str, Any]]]:
    return [
        (call["function"]["name"], call["function"]["arguments"])
        for call in got.json["message"]["tool_calls"]
    ]


def test_a_tool_is_called_with_its_required_properties_only(chat: Ask) -> None:
    arguments = {
        "city": "demo",
        "days": 1,
        "unit": "celsius",
        "place": {"indoor": True},
        "tags": [],
    }
    got = chat("Is it warm?", tools=[WEATHER, CLOCK])
    assert calls(got) == [("get_weather", arguments)]
    assert list(calls(got)[0][1]) == list(arguments) and got.json["done_reason"] == "stop"


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ("Use get_time, please", ["get_time"]),
        ("First GET_TIME, then get_weather!", ["get_time", "get_weather"]),
        ("forget_times", ["get_weather"]),
        ("用get_time查一下", ["get_time"]),
    ],
)
def test_tools_that_are_named_are_called_in_that_order(
    chat: Ask, said: str, called: list[str]
) -> None:
    assert [name for name, _ in calls(chat(said, tools=[WEATHER, CLOCK]))] == called


def test_two_calls_come_on_two_lines_with_two_ids(chat: Ask) -> None:
    *steps, _ = chat("get_time and get_weather", tools=[WEATHER, CLOCK], stream=True).lines
    made = [call for line in steps for call in line["message"]["tool_calls"]]
    assert len(steps) == 2 and [call["function"]["index"] for call in made] == [0, 1]
    assert len({call["id"] for call in made}) == 2


def test_the_result_of_a_tool_is_answered_in_words(chat: Ask) -> None:
    asked = chat("Warm?", tools=[WEATHER]).json["message"]
    result = {"role": "tool", "tool_name": "get_weather", "content": "22 degrees"}
    got = chat(
        messages=[{"role": "user", "content": "Warm?"}, asked, result], tools=[WEATHER]
    ).json["message"]
    assert (
        "get_weather" in got["content"]
        and "22 degrees" in got["content"]
        and "tool_calls" not in got
    )


def test_a_second_question_gets_a_call_with_another_id(chat: Ask) -> None:
    user = {"role": "user", "content": "Warm?"}
    first = chat(messages=[user], tools=[WEATHER]).json["message"]
    result = {"role": "tool", "tool_name": "get_weather", "content": "22"}
    second = chat(messages=[user, first, result, user], tools=[WEATHER]).json["message"]
    assert first["tool_calls"][0]["id"] != second["tool_calls"][0]["id"]


# JSON.


def test_json_without_a_schema_is_an_object(chat: Ask) -> None:
    got = json.loads(chat("Hi", format="json").json["message"]["content"])
    assert (got["demo"], got["you_said"]) == (True, "Hi")


def test_json_by_a_schema_keeps_the_order_of_its_properties(chat: Ask) -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
    assert chat("Hi", format=schema).json["message"]["content"] == '{"b":"demo","a":1}'
    described = [
        {"role": "system", "content": json.dumps(schema, indent=1)},
        {"role": "user", "content": "Hi"},
    ]
    assert (
        chat(messages=described, format="json").json["message"]["content"] == '{"b":"demo","a":1}'
    )


def test_tools_go_before_a_schema_until_they_have_answered(chat: Ask) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = chat(tools=[CLOCK], format=schema).json["message"]
    assert asked["tool_calls"]
    history = [{"role": "user", "content": "x"}, asked, {"role": "tool", "content": "12:00"}]
    assert (
        chat(messages=history, tools=[CLOCK], format=schema).json["message"]["content"] == '{"a":1}'
    )


# Vectors.


def test_vectors_have_length_one_and_belong_to_their_text(ask: Ask) -> None:
    got = ask("/api/embed", {"model": "demo", "input": ["a", "b", "a", ""]}).json["embeddings"]
    assert [len(vector) for vector in got] == [64] * 4 and got[0] == got[2] != got[1]
    assert [math.hypot(*vector) for vector in got] == pytest.approx([1.0] * 4)


def test_fewer_dimensions_are_the_first_ones_made_longer(ask: Ask) -> None:
    whole, cut, more = (
        ask("/api/embed", {"model": "demo", "input": "a", "dimensions": wanted}).json["embeddings"][
            0
        ]
        for wanted in (0, 8, 1000)
    )
    assert len(cut) == 8 and math.hypot(*cut) == pytest.approx(1.0) and more == whole
    assert [x / math.hypot(*whole[:8]) for x in whole[:8]] == pytest.approx(cut, abs=1e-6)


def test_the_older_route_does_not_normalise(ask: Ask) -> None:
    old = ask("/api/embeddings", {"model": "demo", "prompt": "a"}).json["embedding"]
    new = ask("/api/embed", {"model": "demo", "input": "a"}).json["embeddings"][0]
    assert math.hypot(*old) > 1.5 and [x / math.hypot(*old) for x in old] == pytest.approx(
        new, abs=1e-6
    )


# Models.


def test_the_list_shows_one_model_with_what_it_can_do(ask: Ask) -> None:
    (row,) = ask("/api/tags").json["models"]
    assert row["name"] == row["model"] == "demo:latest" and len(row["digest"]) == 64
    assert row["capabilities"] == ["completion", "tools", "thinking", "embedding", "vision"]
    assert row["details"]["families"] == ["demo"]


def test_head_has_the_headers_and_no_body(ask: Ask) -> None:
    assert ask("/api/version", b"", "HEAD") == Got(200, "application/json; charset=utf-8", b"")


def test_pulling_shows_growing_progress_and_success(ask: Ask, call: Call) -> None:
    started = call.clock.monotonic()
    lines = ask("/api/pull", {"model": "demo"}).lines
    layer = [line for line in lines if "digest" in line]
    assert layer[0]["status"] == f"pulling {layer[0]['digest'].removeprefix('sha256:')[:12]}"
    done = [line.get("completed", 0) for line in layer]
    assert (
        "completed" not in layer[0] and done == sorted(set(done)) and done[-1] == layer[0]["total"]
    )
    others = [line["status"] for line in lines if line not in layer]
    assert others == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    took_s = call.clock.monotonic() - started
    assert took_s >= PROGRESS_PAUSE_S * (len(lines) - 1)


def test_a_blob_is_taken_part_by_part_and_forgotten(
    transport: DemoTransport, call: Call, ask: Ask
) -> None:
    parts = [b"one", b"two"]
    path = f"/api/blobs/sha256:{sha256(b''.join(parts)).hexdigest()}"
    reply = transport.open(UpstreamRequest("POST", path, iter(parts)), call)
    assert (reply.status, read_all(reply)) == (201, b"")
    assert ask(path, b"", "HEAD") == Got(404, "application/json; charset=utf-8", b"")


def test_a_blob_stops_when_its_client_leaves(transport: DemoTransport, call: Call) -> None:
    taken: list[bytes] = []

    def parts() -> Iterable[bytes]:
        for part in (b"one", b"two", b"three"):
            taken.append(part)
            if part == b"two":
                call.leave()
            yield part

    with pytest.raises(ClientGone):
        transport.open(UpstreamRequest("POST", f"/api/blobs/sha256:{'0' * 64}", parts()), call)
    assert taken == [b"one", b"two"]


# As a transport.


def test_a_stream_takes_its_time_line_by_line(transport: DemoTransport, call: Call) -> None:
    started = call.clock.monotonic()
    with closing(open_stream(transport, call)) as reply:
        sizes = [data.count(b"\n") for data in iter(reply.read_some, b"") if data]
    assert call.clock.monotonic() - started >= PAUSE_S * (sum(sizes) - 1)
    assert len(sizes) > 10


def test_a_slow_reader_gets_all_that_fell_due(transport: DemoTransport, call: Call) -> None:
    with closing(open_stream(transport, call)) as reply:
        first = reply.read_some()
        call.clock.sleep(PAUSE_S * 5)
        second = reply.read_some()
    assert first and first.count(b"\n") == 1 and second and second.count(b"\n") >= 4


def test_silence_longer_than_the_reader_waits_is_none(transport: DemoTransport, call: Call) -> None:
    with closing(open_stream(transport, call)) as reply:
        assert reply.read_some(0.0)
        assert reply.read_some(0.0) is None
        assert reply.read_some(1.0)


def test_others_run_while_a_stream_pauses(transport: DemoTransport) -> None:
    call = Call(Timeouts())
    order: list[str] = []

    def read(name: str) -> None:
        with closing(open_stream(transport, call)) as reply:
            while reply.read_some():
                order.append(name)

    gevent.joinall([gevent.spawn(read, name) for name in "ab"], timeout=10, raise_error=True)
    assert "ab" in "".join(order) and "ba" in "".join(order)


def test_a_client_that_left_ends_the_stream(transport: DemoTransport) -> None:
    call = Call(Timeouts())
    with closing(open_stream(transport, call)) as reply:
        assert reply.read_some()
        gevent.spawn_later(PAUSE_S / 4, call.leave)
        with pytest.raises(ClientGone):
            reply.read_some()
    assert transport.connections.active == 0


def test_a_client_that_left_before_is_not_answered(transport: DemoTransport, call: Call) -> None:
    call.leave()
    with pytest.raises(ClientGone):
        open_stream(transport, call)


def test_the_total_limit_ends_the_stream(transport: DemoTransport) -> None:
    with (
        closing(
            open_stream(transport, Call(Timeouts(total_s=3 * PAUSE_S), clock=SkippingClock()))
        ) as reply,
        pytest.raises(UpstreamTimeout),
    ):
        while reply.read_some():
            pass


def test_an_answer_counts_until_its_end_or_its_close_and_once_only(
    transport: DemoTransport, call: Call
) -> None:
    replies = [open_stream(transport, call) for _ in range(3)]
    assert transport.connections == Connections(active=3, idle=0)
    read_all(replies[0])
    assert transport.connections.active == 2
    for reply in replies * 2:
        reply.close()
    assert replies[1].read_some() == b"" and transport.connections.active == 0
