"""PDF documents, through a real gateway: the shapes that coding assistants send, over both
turns of a tool loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from tests.app.passing import OWN
from tests.golden.face import TOKEN, local_gateway, named_frames
from tests.rig.calls import KEEP_ALIVE
from tests.rig.errors import OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream, Lines
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.messages_provider import MESSAGES, MODEL, MessagesProvider
from tests.rig.pdf import encrypted, in_base64, pdf, slow_pdf
from tests.rig.provider import CHAT, Provider, row, upstream_entry

WORDS = "The answer is forty-two."
DATA = in_base64(pdf(WORDS))
URI = f"data:application/pdf;base64,{DATA}"
READ = f"[PDF, 1 page]\n[Page 1]\n{WORDS}\n[End of PDF]"
NAMED = READ.replace("PDF", 'PDF "doc.pdf"')

READ_TOOL = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}},
        "required": ["file_path"],
    },
}


def anthropic_pdf(data: str = DATA, **more: Any) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    return {"type": "document", "source": source, **more}


def claude_code(messages: list[Any], **fields: Any) -> dict[str, Any]:
    """A request as Claude Code makes it."""
    system = [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}]
    return {
        "model": "m",
        "messages": messages,
        "system": system,
        "tools": [READ_TOOL],
        "metadata": {"user_id": "user"},
        "max_tokens": 64000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    } | fields


ASKED: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "A reminder."},
            {"type": "text", "text": "Read doc.pdf"},
        ],
    },
    {"role": "system", "content": "The skills are these."},
]


def called(call: dict[str, Any]) -> dict[str, Any]:
    thinking = {
        "type": "thinking",
        "thinking": "Let me think.",
        "signature": "gw1.295aed2085ff3481",
    }
    return {
        "role": "assistant",
        "content": [thinking, {"type": "text", "text": "I will read it."}, call],
    }


def beside(call_id: str, block: dict[str, Any]) -> dict[str, Any]:
    """The document behind the result, as Claude Code sends it."""
    result = {
        "tool_use_id": call_id,
        "type": "tool_result",
        "content": "PDF file read: doc.pdf (544 bytes)",
    }
    return {"role": "user", "content": [result, block | {"cache_control": {"type": "ephemeral"}}]}


def inside(call_id: str, block: dict[str, Any]) -> dict[str, Any]:
    """The document inside the result."""
    content = [{"type": "text", "text": "PDF file read"}, block]
    return {
        "role": "user",
        "content": [{"tool_use_id": call_id, "type": "tool_result", "content": content}],
    }


def post(gateway: LocalGateway, path: str, body: dict[str, Any]) -> Answer:
    return gateway.request("POST", path, body, bearer(TOKEN))


def prompts(upstream: FaultUpstream) -> list[list[dict[str, Any]]]:
    return [seen.json()["messages"] for seen in upstream.requests if seen.path == "/api/chat"]


CALLS = Lines(
    [
        {"message": {"role": "assistant", "content": "I will read it."}, "done": False},
        {
            "message": {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "function": {"name": "Read", "arguments": {"file_path": "doc.pdf"}},
                    }
                ],
            },
            "done": False,
        },
        {
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "eval_count": 3,
        },
    ]
)


@pytest.mark.parametrize(
    ("answer_with", "expected"),
    [
        (beside, [("tool", "PDF file read: doc.pdf (544 bytes)"), ("user", READ)]),
        (inside, [("tool", f"PDF file read\n{READ}")]),
    ],
)
def test_claude_code_reads_a_pdf_in_both_turns_of_its_loop(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    answer_with: Callable[[str, dict[str, Any]], dict[str, Any]],
    expected: list[tuple[str, str]],
) -> None:
    upstream.script("/api/chat", [CALLS])
    first = post(gateway, "/v1/messages?beta=true", claude_code(ASKED))
    events = [event for event in named_frames(first.body) if event["type"] == "content_block_start"]
    (call,) = (
        event["content_block"] for event in events if event["content_block"]["type"] == "tool_use"
    )
    use = {
        "type": "tool_use",
        "id": call["id"],
        "name": call["name"],
        "input": {"file_path": "doc.pdf"},
    }
    upstream.clear()
    history = [*ASKED, called(use), answer_with(call["id"], anthropic_pdf())]
    second = post(gateway, "/v1/messages?beta=true", claude_code(history))
    assert (second.status, b"message_stop" in second.body) == (200, True)
    (sent,) = prompts(upstream)
    assert [(each["role"], each["content"]) for each in sent[-len(expected) :]] == expected
    assert not [each for each in sent if each.get("images")]


def as_chat(data: str, name: str) -> tuple[str, dict[str, Any]]:
    content = [
        {"type": "text", "text": "Called the Read tool"},
        {"type": "text", "text": "PDF read successfully"},
        {"type": "file", "file": {"filename": name, "file_data": data}},
        {"type": "text", "text": "describe"},
    ]
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return "/v1/chat/completions", {
        "model": "m",
        "max_tokens": 99,
        "messages": history,
        "stream": True,
    }


def as_responses(data: str, name: str) -> tuple[str, dict[str, Any]]:
    content = [
        {"type": "input_text", "text": "Called the Read tool"},
        {"type": "input_text", "text": "PDF read successfully"},
        {"type": "input_file", "filename": name, "file_data": data},
        {"type": "input_text", "text": "describe"},
    ]
    history = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": content}]
    include = ["reasoning.encrypted_content"]
    return "/v1/responses", {
        "model": "m",
        "input": history,
        "store": False,
        "include": include,
        "stream": True,
    }


def as_messages(data: str, name: str) -> tuple[str, dict[str, Any]]:
    content = [
        {"type": "text", "text": "Called the Read tool"},
        {"type": "text", "text": "PDF read successfully"},
        anthropic_pdf(data.rpartition(",")[2], title=name),
        {"type": "text", "text": "describe", "cache_control": {"type": "ephemeral"}},
    ]
    return "/v1/messages", {
        "model": "m",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": content}],
        "stream": True,
    }


#: The shapes of opencode.
SHAPES = {"chat completions": as_chat, "responses": as_responses, "messages": as_messages}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
Shape = Callable[[str, str], tuple[str, dict[str, Any]]]


@each_shape
def test_opencode_reads_a_pdf_in_its_place(
    gateway: LocalGateway, upstream: FaultUpstream, shape: Shape
) -> None:
    answer = post(gateway, *shape(URI, "doc.pdf"))
    assert (answer.status, answer.complete) == (200, True)
    (sent,) = prompts(upstream)
    assert sent[-1]["content"] == f"Called the Read tool\nPDF read successfully\n{NAMED}\ndescribe"


@pytest.mark.parametrize("shape", [as_chat, as_responses])
def test_base64_without_the_head_of_a_data_uri_is_read_as_well(
    gateway: LocalGateway, upstream: FaultUpstream, shape: Shape
) -> None:
    assert post(gateway, *shape(DATA, "doc.pdf")).status == 200
    assert NAMED in prompts(upstream)[0][-1]["content"]


@each_shape
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (in_base64(encrypted("password")), "it is encrypted"),
        (in_base64(pdf("")), "it has no text, only images, like the pages of a scanner"),
        (DATA[:200], "it is damaged, or not a PDF"),
        ("no base64!", "it is damaged, or not a PDF"),
        (in_base64(pdf("x" * 40_000)), "it is larger than 32768 bytes"),
    ],
    ids=["encrypted", "scanned", "cut", "no base64", "too large"],
)
def test_a_pdf_that_cannot_be_read_does_not_end_the_session(
    limited: LocalGateway, upstream: FaultUpstream, shape: Shape, data: str, reason: str
) -> None:
    answer = post(limited, *shape(f"data:application/pdf;base64,{data}", "doc.pdf"))
    assert (answer.status, answer.complete) == (200, True)
    note = f'[PDF "doc.pdf": its text can\'t be shown, because {reason}.]'
    assert (
        prompts(upstream)[0][-1]["content"]
        == f"Called the Read tool\nPDF read successfully\n{note}\ndescribe"
    )


@pytest.fixture(scope="module")
def limited_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    limits = {"max_bytes": "32KiB", "max_pages": 2, "max_chars": 30}
    with local_gateway(shared_upstream, documents=limits) as running:
        yield running


@pytest.fixture
def limited(limited_gateway: LocalGateway, upstream: FaultUpstream) -> LocalGateway:
    """A gateway with low limits for documents."""
    return limited_gateway


@pytest.mark.parametrize(
    ("pages", "shown", "reason"),
    [
        (["a", "b", "c"], "[Page 1]\na\n[Page 2]\nb", "it has more than 2 pages"),
        (
            ["a" * 20, "b" * 20],
            f"[Page 1]\n{'a' * 20}\n[Page 2]\n{'b' * 10}",
            "it has more than 30 characters",
        ),
    ],
)
def test_a_long_document_is_cut_and_says_so(
    limited: LocalGateway, upstream: FaultUpstream, pages: list[str], shown: str, reason: str
) -> None:
    assert (
        post(
            limited,
            "/v1/messages",
            claude_code([{"role": "user", "content": [anthropic_pdf(in_base64(pdf(*pages)))]}]),
        ).status
        == 200
    )
    rest = f"[The rest of the document is left out, because {reason}.]"
    assert (
        prompts(upstream)[0][-1]["content"]
        == f"[PDF, {len(pages)} pages]\n{shown}\n{rest}\n[End of PDF]"
    )


def test_other_files_are_still_refused_by_name(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    for file, where in (
        ({"file_id": "file_1"}, "file_id"),
        ({"file_data": "data:application/zip;base64,UEs="}, "file_data"),
        ({}, "file_data"),
    ):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "file", "file": file}]}],
        }
        answer = post(gateway, "/v1/chat/completions", body)
        assert f"messages[0].content[0].file.{where}" in assert_error(answer, OPENAI, 400)
    assert prompts(upstream) == []


def test_heartbeats_come_and_others_are_served_while_a_document_is_read(
    upstream: FaultUpstream,
) -> None:
    slow = in_base64(slow_pdf())
    path, body = as_chat(f"data:application/pdf;base64,{slow}", "slow.pdf")
    options = {"documents": {"timeout_s": 2}, "stream": {"heartbeat_s": 0.5}}
    with local_gateway(upstream, **options) as gateway:
        reading = gevent.spawn(post, gateway, path, body)
        answered = 0
        while not reading.ready():
            gevent.sleep(0.01)
            assert gateway.request("GET", "/livez").status == 200
            answered += 1
        answer = reading.get()
    assert KEEP_ALIVE in answer.body
    assert answered > 5
    assert "took longer than 2 s" in prompts(upstream)[0][-1]["content"]


# Providers that read documents themselves.


claude = module_fixture(MessagesProvider)


lab = module_fixture(lambda: Provider(row(OWN)))


@pytest.fixture(scope="module")
def providers(claude: MessagesProvider, lab: Provider) -> Iterator[LocalGateway]:
    """One provider of Anthropic's API, and one of OpenAI's under two names: one that
    says it reads documents."""
    declared = {"kind": "openai", "base_url": lab.base_url}
    upstreams = [
        upstream_entry(claude.url, name="claude", kind="anthropic", api_key_env="CLAUDE_KEY"),
        {"name": "plain", **declared},
        {"name": "reader", **declared, "profile": {"documents": True}},
    ]
    environ = {"CLAUDE_KEY": "sk-ant-test-key"}
    with local_gateway(upstreams=upstreams, environ=environ) as running:
        yield running


@pytest.mark.parametrize("shape", [*SHAPES.values(), None], ids=[*SHAPES, "inside a result"])
def test_anthropic_gets_the_document_itself(
    providers: LocalGateway, claude: MessagesProvider, shape: Shape | None
) -> None:
    claude.clear()
    use = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "doc.pdf"}}
    history = [*ASKED, called(use), inside("toolu_1", anthropic_pdf(title="doc.pdf"))]
    path, body = shape(URI, "doc.pdf") if shape else ("/v1/messages", claude_code(history))
    answer = post(providers, path, body | {"model": f"claude:{MODEL}"})
    assert answer.status == 200, answer.text
    sent = [seen.json() for seen in claude.requests if seen.path == MESSAGES][-1]["messages"][-1][
        "content"
    ]
    block = next(
        each
        for each in (sent[0]["content"] if shape is None else sent)
        if each["type"] == "document"
    )
    assert block == anthropic_pdf(title="doc.pdf")


def test_a_provider_of_openais_api_gets_the_bytes_of_its_own_api(
    providers: LocalGateway, lab: Provider
) -> None:
    lab.clear()
    path, body = as_chat(URI, "doc.pdf")
    assert post(providers, path, body | {"model": f"plain:{OWN}"}).status == 200
    sent = [seen.json() for seen in lab.requests if seen.path == CHAT][-1]
    assert sent["messages"] == body["messages"]


@pytest.mark.parametrize("shape", [as_responses, as_messages], ids=["responses", "messages"])
@pytest.mark.parametrize("name", ["plain", "reader"])
def test_a_translated_document_is_a_file_only_for_those_who_read_it(
    providers: LocalGateway, lab: Provider, shape: Shape, name: str
) -> None:
    lab.clear()
    path, body = shape(URI, "doc.pdf")
    assert post(providers, path, body | {"model": f"{name}:{OWN}"}).status == 200
    content = [seen.json() for seen in lab.requests if seen.path == CHAT][-1]["messages"][-1][
        "content"
    ]
    if name == "plain":
        assert content == f"Called the Read tool\nPDF read successfully\n{NAMED}\ndescribe"
    else:
        assert content[1:] == [{"type": "file", "file": {"filename": "doc.pdf", "file_data": URI}}]
