"""POST /v1/audio/transcriptions: the form that an upstream gets, the answers of clients,
and what may be asked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ollama_proxy.upstreams.forms import Part, read_form, write_form
from tests.golden.face import TOKEN, frames, local_gateway
from tests.rig import SSE, SeenRequest
from tests.rig.boxes import Box
from tests.rig.calls import KEEP_ALIVE, access_line
from tests.rig.deadline import wait_until
from tests.rig.errors import OPENAI, assert_error
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    Head,
    Json,
    NoReadBody,
    Sse,
    Wait,
    WaitForPeerClose,
    Whole,
)
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import Provider, row, upstream_entry

PATH = "/v1/audio/transcriptions"
HEARING, OTHER, SILENT = "org/whisper", "org/large", "messages-model"
LISTED, READER = "token-with-a-list", "token-that-reads"
#: Bytes that look like the end of a form to careless readers, and stand in no log.
SOUND = b"RIFF\x00\r\n--boundary--\r\nSECRET-SOUND\xff" * 20
ANSWER = {
    "text": "Hello.",
    "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17},
}
EVENTS = [
    {"type": "transcript.text.delta", "delta": "Hel"},
    {"type": "transcript.text.delta", "delta": "lo."},
    {"type": "transcript.text.done", **ANSWER},
]
MAX_BODY = 1 << 20


shared_provider = module_fixture(lambda: Provider(row(HEARING), row(OTHER)))


shared_box = module_fixture(lambda: Box("box", ["gemma"]))


@pytest.fixture(scope="module")
def shared_gateway_(shared_provider: Provider, shared_box: Box) -> Iterator[LocalGateway]:
    tokens = [
        TOKEN,
        {"name": "listed", "token": LISTED, "models": [HEARING]},
        {"name": "reader", "token": READER, "scopes": ["read"]},
    ]
    upstreams: list[dict[str, Any]] = [
        upstream_entry(shared_provider.base_url),
        {"name": "box", "base_url": shared_box.url},
        upstream_entry("http://127.0.0.1:9", name="words", kind="anthropic", models=[SILENT]),
    ]
    with local_gateway(
        upstreams=upstreams,
        auth={"generate_tokens": tokens},
        models={"ears": {"target": f"lab/{HEARING}"}},
        default_model="ears",
        server={"max_body": MAX_BODY},
        stream={"heartbeat_s": 0.1},
        timeouts={"first_byte_s": 0.6, "idle_s": 5},
    ) as running:
        yield running


@pytest.fixture
def box(shared_box: Box) -> Box:
    shared_box.clear()
    return shared_box


@pytest.fixture
def provider(shared_provider: Provider) -> Provider:
    shared_provider.clear()
    return shared_provider


@pytest.fixture
def gateway(shared_gateway_: LocalGateway, provider: Provider, box: Box) -> LocalGateway:
    return shared_gateway_


def form(**fields: str) -> tuple[str, bytes]:
    """A form with the recording, as the official client writes it."""
    parts = [Part(name, value.encode()) for name, value in fields.items()]
    return write_form([*parts, Part("file", SOUND, 'a "b".wav', "audio/wav")])


def send(
    gateway: LocalGateway, content_type: str, body: bytes, token: str = TOKEN, **headers: str
) -> Answer:
    return gateway.request(
        "POST", PATH, body, bearer(token) | {"Content-Type": content_type} | headers
    )


def ask(gateway: LocalGateway, token: str = TOKEN, **fields: str) -> Answer:
    return send(gateway, *form(**{"model": HEARING} | fields), token)


def got(server: Provider | Box) -> list[list[Part]]:
    """The forms that reached a server."""
    seen: list[SeenRequest] = [each for each in server.requests if each.path == PATH]
    return [read_form(each.header("content-type") or "", each.body) for each in seen]


# --- The form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HEARING, "ears", f"lab/{HEARING}", None])
def test_provider_gets_the_recording_and_its_own_name_of_the_model(
    name: str | None, gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(PATH, [Json(ANSWER)])
    others = {"language": "en", "timestamp_granularities[]": "word", "brand_new": "1"}
    answer = send(gateway, *form(**({"model": name} if name else {}), **others))
    assert (answer.status, answer.json()) == (200, ANSWER)
    [parts] = got(provider)
    fields = {part.name: part.data.decode() for part in parts if part.filename is None}
    assert fields == {"model": HEARING, **others}
    assert [part for part in parts if part.filename] == [
        Part("file", SOUND, 'a "b".wav', "audio/wav")
    ]


def test_ollama_server_gets_the_same_form(gateway: LocalGateway, box: Box) -> None:
    box.script(PATH, [Json({"text": "Hello."})])
    assert ask(gateway, model="gemma").json() == {"text": "Hello."}
    assert [part.data for part in got(box)[0] if part.name == "model"] == [b"gemma"]


def test_compressed_form_is_read(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(PATH, [Json(ANSWER)])
    content_type, body = form(model=HEARING)
    assert (
        send(gateway, content_type, gzip.compress(body), **{"Content-Encoding": "gzip"}).status
        == 200
    )
    assert len(got(provider)[0]) == 2


# --- The answer -----------------------------------------------------------------------------------

SUBTITLES = b"1\n00:00:00,000 --> 00:00:01,000\nHello.\n"


@pytest.mark.parametrize(
    ("answer", "content_type"),
    [
        (Json({"text": "x", "segments": [{"id": 0}]}), "application/json; charset=utf-8"),
        (Whole(SUBTITLES), "text/plain; charset=utf-8"),
        (Whole(b"WEBVTT", 200, {"Content-Type": "text/vtt"}), "text/vtt"),
    ],
    ids=["verbose_json", "srt", "vtt"],
)
def test_answer_passes_in_each_format(
    answer: Any, content_type: str, gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(PATH, [answer])
    heard = ask(gateway)
    expected = (
        answer.body
        if isinstance(answer, Whole)
        else json.dumps(answer.value, separators=(",", ":")).encode()
    )
    assert (heard.status, heard.body, heard.headers.get("content-type")) == (
        200,
        expected,
        content_type,
    )


@pytest.mark.parametrize("done", [True, False], ids=["DONE", "last event"])
def test_stream_passes_with_heartbeats(
    done: bool, gateway: LocalGateway, provider: Provider, request_id: str
) -> None:
    frame = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in EVENTS)
    rest = frame + (b"data: [DONE]\n\n" if done else b"")
    provider.script(PATH, [Head(200, SSE), Chunk(rest[:30]), Wait(0.35), Chunk(rest[30:])])
    answer = send(gateway, *form(model=HEARING, stream="true"), **{"X-Request-Id": request_id})
    assert answer.body.replace(KEEP_ALIVE, b"") == rest and answer.body.count(KEEP_ALIVE) >= 1
    line = access_line(gateway, request_id)
    assert (line["stream"], line["prompt_eval_count"], line["eval_count"]) == (True, 14, 3)


def test_client_that_streams_gets_events_of_a_server_that_does_not(
    gateway: LocalGateway, box: Box
) -> None:
    box.script(PATH, [Json({"text": "Hello."})])
    answer = ask(gateway, model="gemma", stream="true")
    assert (answer.headers.get("content-type") or "").startswith("text/event-stream")
    assert frames(answer.body) == [
        {"type": "transcript.text.delta", "delta": "Hello."},
        {"type": "transcript.text.done", "text": "Hello."},
        "[DONE]",
    ]


def test_alias_is_not_answered_with_the_providers_name(
    gateway: LocalGateway, provider: Provider
) -> None:
    chunk = {
        "object": "transcription.chunk",
        "model": HEARING,
        "choices": [{"delta": {"content": "Hi"}}],
    }
    provider.script(PATH, [Sse([chunk])])
    assert frames(ask(gateway, model="ears", stream="true").body) == [
        chunk | {"model": "ears"},
        "[DONE]",
    ]


# --- What goes wrong ------------------------------------------------------------------------------


def multipart(*parts: Part) -> tuple[str, bytes]:
    return write_form(parts)


RECORDING = Part("file", SOUND, "a.wav", "audio/wav")
CONTENT_TYPE, WHOLE = form(model=HEARING)


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        (*multipart(Part("model", HEARING.encode())), "file"),
        (
            *multipart(RECORDING, Part("model", HEARING.encode()), Part("model", OTHER.encode())),
            "model",
        ),
        (*multipart(RECORDING, Part("model", HEARING.encode(), "model.txt")), "file"),
        (*multipart(Part("file", SOUND[:4]), Part("model", HEARING.encode())), "file"),
        (*multipart(Part("file", b"", "a.wav"), Part("model", HEARING.encode())), "file"),
        (*multipart(RECORDING, Part("model", b"\xff")), "model"),
        (CONTENT_TYPE, WHOLE[:-20], None),
        (CONTENT_TYPE, b"no form at all", None),
        (CONTENT_TYPE, b"", None),
        ("multipart/form-data", WHOLE, None),
        ("application/json", b'{"model": "x"}', None),
    ],
    ids=(
        "no-file two-models model-file text-file empty-file not-text cut no-form "
        "nothing no-boundary json"
    ).split(),
)
def test_malformed_request_is_refused(
    content_type: str, body: bytes, param: str | None, gateway: LocalGateway, provider: Provider
) -> None:
    answer = send(gateway, content_type, body)
    assert_error(answer, OPENAI, 400)
    assert answer.json()["error"]["param"] == param
    assert not got(provider)


@pytest.mark.parametrize(("size", "count"), [(MAX_BODY, 1), (1, 100)], ids=["bytes", "parts"])
def test_large_form_is_413(size: int, count: int, gateway: LocalGateway) -> None:
    assert_error(
        send(gateway, *write_form([Part("file", bytes(size), "a.wav")] * count)), OPENAI, 413
    )


def test_model_that_hears_nothing_is_400(
    gateway: LocalGateway, provider: Provider, box: Box
) -> None:
    box.script(PATH, [Whole(b"404 page not found", 404)])
    # A kind without the path, and servers that do not have it.
    for model in (SILENT, HEARING, "gemma"):
        text = assert_error(ask(gateway, model=model), OPENAI, 400)
        assert text == f"{model} does not support audio transcriptions"


CUT = [Head(200, SSE), Chunk(b'data: {"type":"transcript.text.delta","delta":"Hel"}\n\n')]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ([NoReadBody(), Cut()], 502),
        ([Json({"error": {"message": "bad audio"}}, 400)], 400),
        ([Json({"error": {"message": "no model"}}, 404)], 404),
        ([Whole(b"<html>", 200, {"Content-Type": "text/html"})], 502),
        ([Json({"choices": []})], 502),
        ([Sse([{"type": "error", "error": {"message": "out of memory", "code": "500"}}])], 502),
        ([WaitForPeerClose(5)], 504),
    ],
    ids="cut-in-the-upload refused unknown html another-answer error-event silence".split(),
)
def test_failure_has_its_status_and_is_tried_once(
    script: list[Action], status: int, gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(PATH, script)
    stream = "true" if any(isinstance(step, Sse) for step in script) else "false"
    assert_error(ask(gateway, stream=stream), OPENAI, status)
    assert len([seen for seen in provider.requests if seen.path == PATH]) == 1


@pytest.mark.parametrize("end", [[Cut()], []], ids=["cut", "no last event"])
def test_stream_that_is_cut_ends_with_an_error(
    end: list[Action], gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(PATH, [*CUT, *end])
    first, last = frames(ask(gateway, stream="true").body)
    assert (first["delta"], last["error"]["type"]) == ("Hel", "server_error")


def test_busy_provider_is_asked_again(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(
        PATH, [Json({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"})], [Json(ANSWER)]
    )
    assert ask(gateway).status == 200
    first, second = got(provider)
    assert first == second


# --- Rights and logs ------------------------------------------------------------------------------


def test_token_reaches_only_its_models_and_no_other_field_chooses_one(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(PATH, [Json(ANSWER)])
    assert_error(ask(gateway, READER), OPENAI, 403)
    assert_error(ask(gateway, LISTED, model=OTHER), OPENAI, 404)
    assert_error(ask(gateway, LISTED, fallbacks=OTHER), OPENAI, 404)
    assert_error(ask(gateway, LISTED, api_base="http://127.0.0.1:1/"), OPENAI, 403)
    answer = ask(gateway, LISTED, **{"model[]": OTHER, "brand_new": OTHER, "include[]": "logprobs"})
    assert (answer.status, answer.headers.get("x-ollama-proxy-ignored")) == (
        200,
        "brand_new, model??",
    )
    [parts] = got(provider)
    assert {part.name for part in parts} == {"model", "include[]", "file"}


def test_address_in_place_of_a_recording_is_refused(
    gateway: LocalGateway, provider: Provider
) -> None:
    answer = ask(gateway, url="http://127.0.0.1:1/a.wav")
    assert_error(answer, OPENAI, 400)
    assert (answer.json()["error"]["param"], got(provider)) == ("url", [])


def test_access_log_has_the_line_of_any_call(
    gateway: LocalGateway, provider: Provider, request_id: str
) -> None:
    provider.script(PATH, [Json(ANSWER)])
    send(gateway, *form(model="ears"), **{"X-Request-Id": request_id})
    line = access_line(gateway, request_id)
    facts = {
        "model": "ears",
        "upstream": "lab",
        "status": 200,
        "stream": False,
        "eval_count": 3,
        "state": "ok",
    }
    assert {name: line[name] for name in facts} == facts


def test_recording_is_in_no_log() -> None:
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": "demo:"},
        "logging": {"chat_logs": True},
    }
    with LocalGateway(config) as gateway:
        text = send(gateway, *form(model="demo", prompt="Names: Ada")).json()["text"]
        chats = gateway.logs_directory / "chat"
        [written] = wait_until(
            lambda: [json.loads(file.read_bytes()) for file in chats.glob("*.jsonl")], 5, "no log"
        )
        logs = b"".join(
            file.read_bytes() for file in gateway.logs_directory.rglob("*") if file.is_file()
        )
    assert written["request"] == {"prompt": "Names: Ada", "model": "demo"}
    assert written["answers"][0]["text"] == text
    assert b"SECRET-SOUND" not in logs
