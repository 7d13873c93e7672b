"""Every dialect with every kind of upstream: the same wish reaches the upstream and the same answer
the client, as a stream or whole, whatever words the two have for it.

A case is what a client wants and what the upstream says; a dialect is how its clients say and read
that; a kind of upstream is how it says a case and how its requests are read. A new dialect or a new
kind is a line in its table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

import pytest

from ollama_proxy.gateway.passthrough.openai import OURS
from tests.golden import face
from tests.golden.cases import GOLDEN, added_up
from tests.golden.face import forwarded, post
from tests.rig import NDJSON, SeenRequest, messages_provider, pieces, provider
from tests.rig.dialects import (
    ARGUMENTS,
    DIALECTS,
    FUNCTION,
    IMAGE,
    MODEL,
    RESULT,
    SCHEMA,
    VECTOR,
    Dialect,
    Document,
    Told,
    Wanted,
    ask_for_chat,
    read_no_stream,
    told_by_ollama,
)
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import Chunk, Cut, FaultUpstream, Head, Json, Script, ScriptedServer
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.tables import each_row


class Failure(NamedTuple):
    """What went wrong: the status where there still is one to give, and a part of the text."""

    status: int
    text: str
    is_early: bool = False


class Case(NamedTuple):
    """A wish and what comes of it."""

    wanted: Wanted = Wanted()
    #: A golden case with Ollama's own lines.
    lines: str = "plain"
    #: Bytes in which the upstream's answer is cut.
    edges: int | None = None
    #: The upstream refuses before it says anything, the first time that it is asked.
    refusal: Failure | None = None
    #: The connection ends before the answer does.
    is_cut: bool = False

    @property
    def said(self) -> list[Document]:
        """The upstream's answer, line by line."""
        lines = (GOLDEN / "openai" / self.lines / "upstream.ndjson").read_bytes().split(b"\n")
        return [json.loads(line) for line in lines if line]

    @property
    def fails(self) -> bool:
        """Whether no good answer comes of it."""
        return (
            self.is_cut
            or "error" in self.said[-1]
            or bool(self.refusal and not self.wanted.truncate)
        )

    @property
    def failure(self) -> Failure:
        """What the client is told."""
        return self.refusal or (
            Failure(502, "") if self.is_cut else Failure(500, self.said[-1]["error"])
        )


TOO_LONG = "the input length exceeds the context length"
NOT_FOUND = f"model '{MODEL}' not found"
CASES = {
    "text": Case(),
    "unicode in pieces of 1": Case(Wanted("你好 🌍 \u2028 é"), "chinese", 1),
    "thinking": Case(Wanted(thinking=True), "thinking"),
    "one tool": Case(Wanted(tool=True), "tool"),
    "parallel tools": Case(Wanted(tool=True), "tools-parallel"),
    "tool behind text": Case(Wanted(tool=True), "tool-after-content"),
    "tool round trip": Case(Wanted(tool=True, called=True), "history-with-tools"),
    "image": Case(Wanted(image=True), "image-parts"),
    "json_schema": Case(Wanted(schema=True), "json-schema"),
    "length": Case(Wanted(limit=5), "length"),
    "stop": Case(Wanted(stop="you"), "stop"),
    "error before": Case(refusal=Failure(404, NOT_FOUND, is_early=True)),
    "error in the middle": Case(lines="error-in-stream"),
    "cut": Case(is_cut=True),
    "too long": Case(refusal=Failure(400, TOO_LONG, is_early=True)),
    "truncation": Case(Wanted(truncate=True), refusal=Failure(400, TOO_LONG, is_early=True)),
}


# --- Kinds of upstreams ---------------------------------------------------------------------------


def play_ollama(case: Case, path: str, *, stream: bool) -> list[Script]:
    """How Ollama answers the requests of a case, one after the other."""
    answer = _answer_of_ollama(case, path, stream)
    if case.refusal is None:
        return [answer]
    refused: Script = [Json({"error": case.refusal.text}, case.refusal.status)]
    return [refused, answer] if case.wanted.truncate else [refused]


def _answer_of_ollama(case: Case, path: str, stream: bool) -> Script:
    lines = [_on(path, line) for line in case.said]
    if not stream and "error" in lines[-1]:
        return [Json(lines[-1], 500)]
    said = [_dumped(line) for line in (lines if stream else [added_up(lines)])]
    if case.is_cut:
        said = said[: len(said) // 2] if stream else [said[0][: len(said[0]) // 2]]
    body = b"".join(said)
    head = Head(200, NDJSON if stream else {"Content-Type": "application/json"})
    return [
        head,
        *(Chunk(piece) for piece in pieces(body, case.edges)),
        *([Cut()] if case.is_cut else []),
    ]


def _on(path: str, line: Document) -> Document:
    """A line of a chat as it would be on another path."""
    if path == "/api/chat" or "message" not in line:
        return line
    message = line["message"]
    if path == "/api/embed":
        return {
            "model": MODEL,
            "embeddings": [VECTOR],
            "prompt_eval_count": line.get("prompt_eval_count", 0),
        }
    said = {"response": message["content"]} | (
        {"thinking": message["thinking"]} if message.get("thinking") else {}
    )
    return {name: value for name, value in line.items() if name != "message"} | said


def _dumped(document: Document) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def asked_of_ollama(seen: SeenRequest) -> Wanted:
    """What a request to Ollama wants; fails for one that wants it wrongly."""
    body = seen.json()
    assert body["model"] == MODEL
    options, messages = body.get("options") or {}, body.get("messages") or []
    functions = [tool["function"] for tool in body.get("tools") or ()]
    assert [json.dumps(one) for one in functions] in ([], [json.dumps(FUNCTION)])
    assert json.dumps(body.get("format")) in ("null", json.dumps(SCHEMA))
    images = body.get("images") or [
        image for message in messages for image in message.get("images") or ()
    ]
    assert images in ([], [IMAGE])
    text = messages[0]["content"] if messages else body.get("prompt") or "".join(body["input"])
    stop = options.get("stop")
    return Wanted(
        text,
        body.get("think") is True,
        bool(functions),
        len(messages) > 1 and _has_called(messages),
        bool(images),
        "format" in body,
        options.get("num_predict"),
        stop[0] if isinstance(stop, list) else stop,
        body.get("truncate") is not False,
    )


def _has_called(messages: list[Document]) -> bool:
    asked, called, result = messages
    [call] = called["tool_calls"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert (call["function"]["name"], json.dumps(call["function"]["arguments"])) == (
        FUNCTION["name"],
        json.dumps(ARGUMENTS),
    )
    assert (result["content"], result["tool_name"]) == (RESULT, FUNCTION["name"])
    return True


def play_messages(case: Case, path: str, *, stream: bool) -> list[Script]:
    """How a provider of the Messages API answers the requests of a case."""
    if case.refusal:
        status, kind, text = messages_provider.refusal(
            case.refusal.status, case.refusal.text, MODEL
        )
        return [messages_provider.refused(status, kind, text)]
    return [
        messages_provider.played(case.said, stream=stream, edges=case.edges, is_cut=case.is_cut)
    ]


def play_openai(case: Case, path: str, *, stream: bool) -> list[Script]:
    """How a provider of OpenAI's API answers the requests of a case."""
    if case.refusal:
        return [provider.refused(case.refusal.status, case.refusal.text)]
    return [provider.played(case.said, path, stream=stream, edges=case.edges, is_cut=case.is_cut)]


class Kind(NamedTuple):
    """A kind of upstream: how it plays a case on a path, and what its requests want."""

    play: Callable[..., list[Script]]
    asked: Callable[[SeenRequest], Wanted]
    #: Where all its answers are asked for; empty: where a dialect asks Ollama.
    path: str = ""
    #: Where vectors are asked for; empty: there as well.
    vectors: str = ""
    #: One of its kind; None: the module's own upstream, as which Ollama's bytes may pass.
    server: Callable[[], ScriptedServer] | None = None
    #: Dialects that it has no answers for, and wishes that it can't be told.
    lacks: frozenset[str] = frozenset()
    unsaid: frozenset[str] = frozenset()
    #: Dialects whose requests go on as they came, but for what only the gateway understands.
    forwards: frozenset[str] = frozenset()
    #: What its configuration says beside the address.
    settings: Mapping[str, Any] = {}
    #: The status of a failure of its own.
    broken: int = 500

    @property
    def passes(self) -> bool:
        """What a native client sends goes on as it came."""
        return self.server is None

    def place(self, dialect: Dialect) -> str:
        """The path that is asked."""
        vectors = self.vectors if dialect.upstream_path == "/api/embed" else ""
        return vectors or self.path or dialect.upstream_path


KINDS = {
    "ollama": Kind(play_ollama, asked_of_ollama),
    "anthropic": Kind(
        play_messages,
        lambda seen: Wanted(**messages_provider.wanted(seen, MODEL)),
        path=messages_provider.MESSAGES,
        server=lambda: messages_provider.MessagesProvider(messages_provider.row(MODEL)),
        lacks=frozenset({"embeddings"}),
        unsaid=frozenset({"truncate"}),
    ),
    "openai": Kind(
        play_openai,
        lambda seen: Wanted(**provider.wanted(seen, MODEL)),
        path=provider.CHAT,
        vectors=provider.EMBEDDINGS,
        server=lambda: provider.Provider(provider.row(MODEL)),
        unsaid=frozenset({"truncate"}),
        forwards=frozenset({"chat", "embeddings"}),
        settings={"profile": {"thinking": "enable_thinking"}},
        broken=502,
    ),
}


# --- Gaps -----------------------------------------------------------------------------------------

#: What comes of a wish that a dialect has no word for. IGNORED: a header names it, and it does not
#: go on; PASSED: it goes on as it came, and the upstream decides.
IGNORED, PASSED = "ignored", "passed on"


class Gap(NamedTuple):
    """A wish that a dialect has no word for: why, what a client may send all the same,
    and what comes of it."""

    why: str
    fields: Document
    effect: str


TOOLS = {"tools": [{"type": "function", "function": FUNCTION}]}
HISTORY = {"messages": ask_for_chat(Wanted(called=True))["messages"]}
FORMAT = {"response_format": ask_for_chat(Wanted(schema=True))["response_format"]}
NO_CHAT = "Ollama's completions know neither tools nor messages, and ignore them"
SILENT_CUT = (
    "Ollama cuts by itself where a native client asks for it, and does not say whether it did"
)
ONE_TEXT = "a completion goes on from one text"
ONE_VECTOR = "an embedding is a vector, and nothing is written"
GAPS = {
    ("native chat", "truncate"): Gap(SILENT_CUT, {"truncate": True}, PASSED),
    ("native generate", "truncate"): Gap(SILENT_CUT, {"truncate": True}, PASSED),
    ("native generate", "tool"): Gap(NO_CHAT, TOOLS, PASSED),
    ("native generate", "called"): Gap(NO_CHAT, HISTORY, PASSED),
    ("completions", "tool"): Gap(ONE_TEXT, TOOLS, IGNORED),
    ("completions", "called"): Gap(ONE_TEXT, HISTORY, IGNORED),
    ("completions", "image"): Gap(ONE_TEXT, {"images": [IMAGE]}, IGNORED),
    ("completions", "schema"): Gap(ONE_TEXT, FORMAT, IGNORED),
    ("embeddings", "thinking"): Gap(ONE_VECTOR, {"think": True}, IGNORED),
    ("embeddings", "tool"): Gap(ONE_VECTOR, TOOLS, IGNORED),
    ("embeddings", "called"): Gap(ONE_VECTOR, HISTORY, IGNORED),
    ("embeddings", "image"): Gap(ONE_VECTOR, {"images": [IMAGE]}, IGNORED),
    ("embeddings", "schema"): Gap(ONE_VECTOR, FORMAT, IGNORED),
    ("embeddings", "limit"): Gap(ONE_VECTOR, {"max_tokens": 5}, IGNORED),
    ("embeddings", "stop"): Gap(ONE_VECTOR, {"stop": "you"}, IGNORED),
    ("embeddings", "stream"): Gap(ONE_VECTOR, {"stream": True}, IGNORED),
}
WISHES = {
    name: getattr(wanted, name)
    for wanted in (case.wanted for case in CASES.values())
    for name in Wanted._fields
    if getattr(wanted, name) != getattr(Wanted(), name)
}
STREAM, SINGLE = "stream", "single"


def has_gap(kind: str, dialect: str, case: str, mode: str) -> bool:
    """Whether the dialect lacks a word for what the cell wants, or the upstream can't have it."""
    if (kind, dialect, case) == ("ollama", "embeddings", "too long"):
        return True  # their input is cut by default: test_truncation.py
    wanted = CASES[case].wanted._asdict() | {"stream": mode == STREAM}
    unsaid = Wanted()._asdict() | {"stream": False}
    wishes = [name for name in wanted if wanted[name] != unsaid[name]]
    lacks, unknown = KINDS[kind].lacks, KINDS[kind].unsaid
    return dialect in lacks or any((dialect, name) in GAPS or name in unknown for name in wishes)


def cells(fails: bool) -> list[tuple[str, str, str, str]]:
    """The cells without a gap: those whose upstream fails, or the others."""
    every = product(KINDS, DIALECTS, CASES, (STREAM, SINGLE))
    return [
        (kind, dialect, case, mode)
        for kind, dialect, case, mode in every
        if CASES[case].fails is fails and not has_gap(kind, dialect, case, mode)
    ]


# --- Cells ----------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a client got, and what the upstream saw of it."""

    answer: Answer
    seen: list[SeenRequest]


Ask = Callable[..., Asked]


class Pair(NamedTuple):
    """A gateway, and the one upstream that it has."""

    gateway: LocalGateway
    upstream: ScriptedServer


@pytest.fixture(scope="module")
def pairs(
    shared_gateway: LocalGateway, shared_upstream: FaultUpstream
) -> Iterator[Mapping[str, Pair]]:
    """One for each kind of upstream."""
    with ExitStack() as running:
        pairs = {}
        for name, kind in KINDS.items():
            if kind.server is None:
                pairs[name] = Pair(shared_gateway, shared_upstream)
                continue
            upstream = running.enter_context(kind.server())
            base_url = getattr(upstream, "base_url", upstream.url)
            declared = {"name": "other", "kind": name, "base_url": base_url, **kind.settings}
            pairs[name] = Pair(
                running.enter_context(face.local_gateway(upstreams=[declared])), upstream
            )
        yield pairs


@pytest.fixture
def ask(pairs: Mapping[str, Pair]) -> Ask:
    """Asks in a dialect, and has an upstream of a kind play a case."""

    def run(kind: str, dialect: Dialect, case: Case, mode: str, **fields: Any) -> Asked:
        gateway, upstream = pairs[kind]
        upstream.clear()
        # Messages ask for thinking only where there is some.
        upstream.script(
            "/api/show", [Json({"capabilities": ["completion", "tools", "thinking", "vision"]})]
        )
        path = KINDS[kind].place(dialect)
        upstream.script(path, *KINDS[kind].play(case, path, stream=mode == STREAM))
        # Embeddings are not asked to stream, and Ollama streams where nothing is said.
        body = dialect.ask(case.wanted) | (
            {} if dialect.read_stream is read_no_stream else {"stream": mode == STREAM}
        )
        answer = post(gateway, dialect.path, body | fields)
        return Asked(answer, [seen for seen in forwarded(upstream) if seen.path == path])

    return run


def read(dialect: Dialect, answer: Answer, mode: str) -> Told:
    """What the client of an answer reads."""
    assert answer.status == 200, answer.text
    return (
        dialect.read_stream(answer.body) if mode == STREAM else dialect.read_single(answer.json())
    )


def sent_on(kind: str, dialect: Dialect, wanted: Wanted) -> Wanted:
    """What the upstream is asked for."""
    sent = wanted._replace(
        limit=wanted.limit or dialect.limit, truncate=wanted.truncate or dialect.truncate
    )
    unsaid = {
        name: value for name, value in Wanted()._asdict().items() if name in KINDS[kind].unsaid
    }
    return sent._replace(**unsaid)


@each_row(("kind", "name", "case", "mode"), cells(fails=False))
def test_wish_reaches_the_upstream_and_its_answer_the_client(
    ask: Ask, kind: str, name: str, case: str, mode: str
) -> None:
    dialect, wanted, truth = DIALECTS[name], CASES[case].wanted, told_by_ollama(CASES[case].said)
    answer, seen = ask(kind, dialect, CASES[case], mode)
    assert KINDS[kind].asked(seen[-1]) == sent_on(kind, dialect, wanted)
    assert read(dialect, answer, mode) == dialect.shown(truth)
    is_limited = truth.reason == "length" and mode == SINGLE
    cut = ["prompt"] * wanted.truncate + ["answer"] * is_limited
    assert (answer.headers.get("X-Ollama-Proxy-Truncated") or "") == ", ".join(cut)
    assert answer.headers.get("X-Ollama-Proxy-Ignored") is None


@each_row(("kind", "name", "case", "mode"), cells(fails=True))
def test_failure_of_the_upstream_is_never_a_good_answer(
    ask: Ask, kind: str, name: str, case: str, mode: str
) -> None:
    dialect, failure = DIALECTS[name], CASES[case].failure
    answer, seen = ask(kind, dialect, CASES[case], mode)
    assert len(seen) == 1
    if mode == SINGLE or failure.is_early:
        status = KINDS[kind].broken if failure.status == 500 else failure.status
        assert failure.text in assert_error(answer, dialect_of(dialect.path), status)
        return
    told, truth = read(dialect, answer, mode), told_by_ollama(CASES[case].said)
    assert truth.text.startswith(told.text) and told.text
    assert failure.text in told.error and told.error
    assert (told.reason, told.usage) == ("", None)


# What the dialects have no words for.


def has_words(name: str, wish: str) -> bool:
    """Whether a dialect can say a wish."""
    wanted = Wanted()._replace(**{wish: WISHES[wish]})
    try:
        return DIALECTS[name].ask(wanted) != DIALECTS[name].ask(Wanted())
    except AssertionError:
        return False


def test_every_dialect_has_words_for_a_wish_or_a_gap_with_a_reason() -> None:
    pairs = product(DIALECTS, WISHES)
    assert [pair for pair in pairs if not has_words(*pair) and pair not in GAPS] == []


GAPPY = [
    (kind, *where, mode)
    for kind, where, mode in product(KINDS, GAPS, (STREAM, SINGLE))
    if (where[0] != "embeddings" or mode == SINGLE)
    and where[0] not in KINDS[kind].lacks
    and (KINDS[kind].passes or GAPS[where].effect != PASSED)
]


def effect_of(kind: str, name: str, gap: Gap) -> str:
    """What comes of a wish without a word: of a request that goes on as it came,
    it is the upstream's."""
    return PASSED if name in KINDS[kind].forwards and OURS.isdisjoint(gap.fields) else gap.effect


@each_row(("kind", "name", "wish", "mode"), GAPPY)
def test_wish_without_a_word_changes_nothing_and_is_not_hidden(
    ask: Ask, kind: str, name: str, wish: str, mode: str
) -> None:
    dialect, gap, plain = DIALECTS[name], GAPS[name, wish], CASES["text"]
    answer, [seen] = ask(kind, dialect, plain, mode, **gap.fields)
    assert read(dialect, answer, mode) == dialect.shown(told_by_ollama(plain.said))
    if effect_of(kind, name, gap) == PASSED:
        streams = {"stream": mode == STREAM} if dialect.read_stream is not read_no_stream else {}
        assert seen.json() == dialect.ask(plain.wanted) | streams | gap.fields
    else:
        assert KINDS[kind].asked(seen) == sent_on(kind, dialect, plain.wanted)
        assert (answer.headers.get("X-Ollama-Proxy-Ignored") or "").split(", ") == [*gap.fields]


@each_row(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind].lacks])
def test_dialect_that_an_upstream_has_no_answers_for_is_refused(
    ask: Ask, kind: str, name: str
) -> None:
    dialect = DIALECTS[name]
    answer, seen = ask(kind, dialect, CASES["text"], SINGLE)
    assert "does not support" in assert_error(answer, dialect_of(dialect.path), 400) and seen == []
