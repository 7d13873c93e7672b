"""Nothing is cut in silence: a prompt that is too long is refused, or its cut is told; so is
the end of an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.face import TOKEN, forwarded, local_gateway
from tests.rig import NDJSON, SeenRequest, Turn
from tests.rig.calls import EMBEDDINGS, FACES, Face
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import (
    FaultUpstream,
    Head,
    Json,
    Lines,
    Script,
    WaitFor,
)
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Replay, recording

Document = dict[str, Any]

MODELS = {
    "lenient": {"target": "m", "truncate": True},
    "strict": {"target": "m", "truncate": False},
}
#: Tokens whose prompts are cut, or refused, if neither the request nor the model's rules say it.
CUTTING, REFUSING = "cutting-token-1", "refusing-token-1"
TOKENS = [TOKEN, {"token": CUTTING, "truncate": True}, {"token": REFUSING, "truncate": False}]
TRANSLATED = {name: face for name, face in FACES.items() if not name.startswith("native")}
NATIVE = {name: face for name, face in FACES.items() if name.startswith("native")}

TOO_LONG: Script = [Replay(recording("chat-context-overflow"))]
SENTENCE = "the input length exceeds the context length"
#: What Ollama before 0.30 is asked, so that it refuses instead of cutting; and what stays
#: if a prompt may be cut.
UNCUT = {"truncate": False, "shift": False}
CUT = {"shift": False}

#: What the request and the rules of its model say: the prompt may not be cut, or it may.
FORBIDDEN = [
    ("m", {}),
    ("m", {"truncate": False}),
    ("strict", {}),
    ("lenient", {"truncate": False}),
]
ALLOWED = [
    ("lenient", {}),
    ("m", {"truncate": True}),
    ("strict", {"truncate": True}),
    ("lenient", {"truncate": None}),
]


def cases(decisions: list[tuple[str, Document]]) -> list[tuple[str, bool, str, Document]]:
    """Each decision in each API, and one of them as a stream."""
    single = [(name, False, *each) for name in TRANSLATED for each in decisions]
    return single + [(name, True, *decisions[0]) for name in TRANSLATED]


each_translated = pytest.mark.parametrize("name", TRANSLATED)
each_native = pytest.mark.parametrize("name", NATIVE)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    auth = {"generate_tokens": TOKENS}
    with local_gateway(
        shared_upstream, models=MODELS, auth=auth, stream={"heartbeat_s": 0.1}
    ) as running:
        yield running


def body_of(face: Face, model: str, **fields: Any) -> Document:
    return {**face.body, "model": model, **fields}


def ask(
    gateway: LocalGateway, name: str, model: str = "m", *, token: str = TOKEN, **fields: Any
) -> Answer:
    face = {**FACES, **EMBEDDINGS}[name]
    return gateway.request("POST", face.path, body_of(face, model, **fields), bearer(token))


def truncated(answer: Answer) -> str | None:
    return answer.headers.get("X-Ollama-Proxy-Truncated")


def asked(upstream: FaultUpstream) -> list[SeenRequest]:
    return [seen for seen in forwarded(upstream) if seen.path != "/api/show"]


def cuts(upstream: FaultUpstream) -> list[Document]:
    """What each request to the upstream said about cutting."""
    return [
        {key: seen.json()[key] for key in UNCUT if key in seen.json()} for seen in asked(upstream)
    ]


def spoken(name: str, *, stream: bool, reason: str = "stop") -> Script:
    """A short answer of the upstream."""
    is_chat = FACES[name].upstream_path == "/api/chat"
    text: Document = (
        {"message": {"role": "assistant", "content": "Yes."}} if is_chat else {"response": "Yes."}
    )
    end = {"done": True, "done_reason": reason, "prompt_eval_count": 3, "eval_count": 5}
    if not stream:
        return [Json({"model": "m", **text, **end})]
    empty: Document = (
        {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    )
    return [Lines([{"model": "m", **text, "done": False}, {"model": "m", **empty, **end}])]


def script(upstream: FaultUpstream, name: str, *scripts: Script) -> None:
    upstream.script(FACES[name].upstream_path, scripts[0], *scripts[1:])


# --- A prompt that is too long --------------------------------------------------------------------


def assert_too_long(answer: Answer, path: str) -> None:
    assert_error(answer, dialect_of(path), 400)
    assert SENTENCE in answer.text
    if dialect_of(path) == "openai":
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert truncated(answer) is None


@pytest.mark.parametrize(("name", "stream", "model", "fields"), cases(FORBIDDEN))
def test_prompt_that_is_too_long_is_refused(
    name: str,
    stream: bool,
    model: str,
    fields: Document,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    script(upstream, name, TOO_LONG)
    assert_too_long(ask(gateway, name, model, stream=stream, **fields), FACES[name].path)
    assert cuts(upstream) == [UNCUT]


@pytest.mark.parametrize(("name", "stream", "model", "fields"), cases(ALLOWED))
def test_prompt_that_may_be_cut_is_cut_and_the_answer_says_so(
    name: str,
    stream: bool,
    model: str,
    fields: Document,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    script(upstream, name, TOO_LONG, spoken(name, stream=stream))
    answer = ask(gateway, name, model, stream=stream, **fields)
    assert (answer.status, answer.complete, truncated(answer)) == (200, True, "prompt")
    assert "Yes." in answer.text
    assert cuts(upstream) == [UNCUT, CUT]
    first, second = (seen.json() for seen in asked(upstream))
    assert first == second | UNCUT


@pytest.mark.parametrize(("name", "stream", "model", "fields"), cases(ALLOWED[:1]))
def test_prompt_that_fits_is_asked_once_and_nothing_is_said(
    name: str,
    stream: bool,
    model: str,
    fields: Document,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    script(upstream, name, spoken(name, stream=stream))
    answer = ask(gateway, name, model, stream=stream, **fields)
    assert (answer.status, truncated(answer), cuts(upstream)) == (200, None, [UNCUT])


#: What holds for each token, model and request: the request's word before the model's, and
#: that before the token's.
DECIDED = [
    *[(CUTTING, "m", {}, True), (CUTTING, "lenient", {}, True), (REFUSING, "lenient", {}, True)],
    *[(CUTTING, "strict", {}, False), (REFUSING, "m", {}, False), (REFUSING, "strict", {}, False)],
    *[(CUTTING, "m", {"truncate": False}, False), (REFUSING, "strict", {"truncate": True}, True)],
]


@pytest.mark.parametrize(
    ("name", "token", "model", "fields", "is_cut"),
    [(name, *each) for name in ("openai chat", "openai embeddings") for each in DECIDED]
    + [(name, *each) for name in TRANSLATED for each in (DECIDED[0], DECIDED[4])],
)
def test_token_decides_what_neither_request_nor_model_does(
    name: str,
    token: str,
    model: str,
    fields: Document,
    is_cut: bool,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    if name == "openai embeddings":
        upstream.script("/api/embed", EMBED_TOO_LONG, VECTORS)
    else:
        script(upstream, name, TOO_LONG, spoken(name, stream=False))
    answer = ask(gateway, name, model, token=token, **fields)
    assert (answer.status, truncated(answer)) == ((200, "prompt") if is_cut else (400, None))
    assert len(asked(upstream)) == 1 + is_cut


@each_way
def test_truncation_of_responses_is_openais_word_for_it(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, "openai responses", TOO_LONG, spoken("openai responses", stream=stream))
    answer = ask(gateway, "openai responses", stream=stream, truncation="auto")
    assert (answer.status, truncated(answer), cuts(upstream)) == (200, "prompt", [UNCUT, CUT])


@each_way
@each_translated
def test_prompt_that_is_too_long_even_when_cut_is_refused(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, TOO_LONG)
    assert_too_long(ask(gateway, name, "lenient", stream=stream), FACES[name].path)
    assert cuts(upstream) == [UNCUT, CUT]


@pytest.mark.parametrize(
    ("name", "stream", "status"),
    [(name, stream, 400) for name in TRANSLATED for stream in (False, True)]
    + [("openai chat", False, 404), ("openai chat", False, 500)],
)
def test_other_refusals_are_not_asked_again(
    name: str, stream: bool, status: int, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, [Json({"error": "no such thing"}, status)])
    answer = ask(gateway, name, "lenient", stream=stream)
    assert (answer.status, len(asked(upstream))) == (status, 1)
    assert "no such thing" in answer.text


@pytest.mark.parametrize(
    "text", ["request (9 tokens) exceeds the available context size, try increasing it"]
)
@each_translated
def test_words_of_other_servers_for_it_are_known(
    name: str, text: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, [Json({"error": text}, 400)], spoken(name, stream=False))
    assert truncated(ask(gateway, name, "lenient", stream=False)) == "prompt"


ADVICE = "send truncate: true"
LONG_CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


@each_way
@each_translated
def test_both_numbers_are_told_in_the_words_of_each_api(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, [Replay(recording("chat-context-overflow", "0.32"))])
    answer = ask(gateway, name, stream=stream)
    assert answer.status == 400
    message = answer.json()["error"]["message"]
    assert (
        "the prompt has 910 tokens and exceeds the available context size of 256: shorten it"
        in message
    )
    if dialect_of(FACES[name].path) == "anthropic":
        assert message.startswith("prompt is too long: 910 tokens > 256 maximum: ")


@pytest.mark.parametrize(
    ("template", "fields", "is_advised"),
    [
        ("jinja", {}, False),
        ("jinja", {"truncate": True}, False),
        ("jinja", {"messages": LONG_CHAT}, True),
        ("go", {}, True),
        ("go", {"truncate": True}, False),
        ("unknown", {}, False),
    ],
)
def test_cutting_is_recommended_only_if_it_can_help(
    template: str,
    fields: Document,
    is_advised: bool,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    """A server that does not render the prompt itself can only drop whole messages."""
    shown: dict[str, Script] = {
        "jinja": [Replay(recording("show-jinja", "0.32"))],
        "go": [Replay(recording("show", "0.32"))],
        "unknown": [Json({"error": "no"}, 500)],
    }
    upstream.script("/api/show", shown[template])
    script(upstream, "openai chat", TOO_LONG)
    answer = ask(gateway, "openai chat", template, **fields)
    assert answer.status == 400
    assert (ADVICE in answer.text) is is_advised
    assert "shorten it" in answer.text


class OnlyWhenCut:
    """Refuses what may not be cut, answers what may, in whatever order they come."""

    def __init__(self, answer: Script) -> None:
        self._answer = answer

    def play(self, turn: Turn) -> None:
        for action in TOO_LONG if "truncate" in turn.request.json() else self._answer:
            action.play(turn)


@each_way
def test_every_one_of_several_answers_is_cut(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [OnlyWhenCut(spoken("openai chat", stream=stream))])
    answer = ask(gateway, "openai chat", "lenient", stream=stream, n=2)
    assert (answer.status, truncated(answer)) == (200, "prompt")
    assert answer.text.count('"content":"Yes."') == 2
    assert len(asked(upstream)) == 4


@pytest.mark.parametrize("name", ["openai chat", "openai responses", "anthropic messages"])
def test_stream_that_was_cut_has_its_heartbeats_while_the_model_reads(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    has_read = threading.Event()
    script(
        upstream,
        name,
        TOO_LONG,
        [Head(200, NDJSON), WaitFor(has_read), *spoken(name, stream=True)],
    )
    face, heartbeat = FACES[name], FACES[name].stream.heartbeat
    with gateway.open(face.path, body_of(face, "lenient", stream=True)) as stream:
        begun = b""
        while begun.count(heartbeat) < 2:
            begun += stream.read_some()
        has_read.set()
        assert b"Yes." in stream.read_all()
        assert (stream.status, stream.complete) == (200, True)
        assert stream.headers.get("X-Ollama-Proxy-Truncated") == "prompt"


@each_translated
def test_late_refusal_is_asked_again_behind_the_heartbeats(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """The head has gone out by then, so the stream itself says it."""
    has_begun = threading.Event()
    script(upstream, name, [WaitFor(has_begun), *TOO_LONG], spoken(name, stream=True))
    face = FACES[name]
    with gateway.open(face.path, body_of(face, "lenient", stream=True)) as stream:
        assert face.stream.heartbeat in stream.read_some()
        has_begun.set()
        body = stream.read_all()
        assert (stream.status, stream.complete) == (200, True)
    assert b"Yes." in body
    assert b": the prompt was too long and has been cut\n\n" in body
    assert cuts(upstream) == [UNCUT, CUT]


# --- Embeddings -----------------------------------------------------------------------------------

EMBED_TOO_LONG: Script = [Replay(recording("embed-too-long"))]
VECTORS: Script = [Json({"model": "m", "embeddings": [[0.5, 0.25]], "prompt_eval_count": 4})]


@pytest.mark.parametrize(
    ("model", "fields"),
    [("m", {"truncate": False}), ("lenient", {"truncate": False}), ("strict", {})],
)
def test_text_that_is_too_long_to_embed_is_refused(
    model: str, fields: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/embed", EMBED_TOO_LONG)
    assert_too_long(ask(gateway, "openai embeddings", model, **fields), "/v1/embeddings")
    assert [seen.json()["truncate"] for seen in asked(upstream)] == [False]


@pytest.mark.parametrize(
    ("model", "fields"), [("m", {}), ("m", {"truncate": None}), ("strict", {"truncate": True})]
)
def test_text_that_may_be_cut_is_cut_and_the_answer_says_so(
    model: str, fields: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/embed", EMBED_TOO_LONG, VECTORS)
    answer = ask(gateway, "openai embeddings", model, **fields)
    assert (answer.status, truncated(answer)) == (200, "prompt")
    assert [seen.json()["truncate"] for seen in asked(upstream)] == [False, True]


def test_text_that_fits_is_embedded_at_once(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/embed", VECTORS)
    answer = ask(gateway, "openai embeddings", "lenient")
    assert (answer.status, truncated(answer), len(asked(upstream))) == (200, None, 1)


# --- An answer that reached its limit -------------------------------------------------------------

INCOMPLETE = {
    "native chat": '"done_reason":"length"',
    "native generate": '"done_reason":"length"',
    "openai chat": '"finish_reason":"length"',
    "openai completions": '"finish_reason":"length"',
    "openai responses": '"incomplete_details":{"reason":"max_output_tokens"}',
    "anthropic messages": '"stop_reason":"max_tokens"',
}


@pytest.mark.parametrize("reason", ["length", "stop"])
@each_way
@pytest.mark.parametrize("name", FACES)
def test_answer_that_was_cut_says_so_in_the_words_of_its_api(
    name: str, stream: bool, reason: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, spoken(name, stream=stream, reason=reason))
    answer = ask(gateway, name, stream=stream)
    assert (INCOMPLETE[name] in answer.text) is (reason == "length")
    # The head of a stream goes out before anybody knows.
    assert truncated(answer) == ("answer" if reason == "length" and not stream else None)


@each_native
def test_alias_of_a_native_client_is_told_too(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    script(upstream, name, spoken(name, stream=False, reason="length"))
    assert truncated(ask(gateway, name, "lenient", stream=False)) == "answer"


@each_native
def test_text_that_speaks_of_a_limit_is_no_limit(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    said = 'It says {"done_reason":"length"}.'
    text: Document = {"message": {"content": said}} if name == "native chat" else {"response": said}
    script(upstream, name, [Json({"model": "m", **text, "done": True, "done_reason": "stop"})])
    answer = ask(gateway, name, stream=False)
    assert (answer.status, truncated(answer)) == (200, None)


@each_translated
def test_both_cuts_are_told(name: str, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    script(upstream, name, TOO_LONG, spoken(name, stream=False, reason="length"))
    assert truncated(ask(gateway, name, "lenient", stream=False)) == "prompt, answer"


# --- Native clients decide for themselves ---------------------------------------------------------


@pytest.mark.parametrize(("model", "token"), [("m", TOKEN), ("lenient", TOKEN), ("m", REFUSING)])
@pytest.mark.parametrize("word", [{}, {"truncate": True}, {"truncate": False, "shift": False}])
@each_native
def test_native_request_says_itself_whether_it_may_be_cut(
    name: str,
    word: Document,
    model: str,
    token: str,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    script(upstream, name, TOO_LONG)
    answer = ask(gateway, name, model, token=token, stream=False, **word)
    assert (answer.status, answer.json()) == (400, {"error": SENTENCE})
    assert cuts(upstream) == [word]


@pytest.mark.parametrize("case", ["chat-context-overflow", "chat-context-truncated"])
def test_recorded_overflows_pass_as_they_are(
    case: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    recorded = recording(case)
    upstream.script("/api/chat", [Replay(recorded)])
    answer = gateway.request("POST", "/api/chat", json.loads(recorded.request), bearer(TOKEN))
    assert (answer.status, answer.body) == (recorded.status, recorded.response)
