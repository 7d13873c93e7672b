"""How an answer ends when something goes wrong in its middle, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson
import pytest

from ollama_proxy.dialects.anthropic.blueprint import ANTHROPIC
from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.errors import GatewayError, UpstreamConnect, UpstreamCut, UpstreamRefused
from ollama_proxy.gateway.delivery import (
    deliver,
    native_stream,
    note_reports,
    record_failure,
    render_frames,
)
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.hub import Approximated, Choice, Content, Event, Truncated
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call


def exchange(**fields: str) -> Exchange:
    return Exchange("id", "POST", "/v1/messages", "1.2.3.4", ANTHROPIC, Call(Timeouts()), **fields)  # type: ignore[arg-type]


def pieces(error: Exception) -> Iterator[bytes]:
    yield b"first"
    raise error


class EndedReply:
    """A reply of which everything was read; `failure`: its connection has broken."""

    status, headers = 200, ()

    def __init__(self, failure: UpstreamCut | None = None) -> None:
        self._failure = failure

    def wait_head(self, wait_s: float | None = None) -> bool:
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        if self._failure is not None:
            raise self._failure
        return b""

    def close(self) -> None:
        pass


def last_words(error: GatewayError) -> bytes:
    return f"{type(error).__name__}: {error}".encode()


@pytest.mark.parametrize(
    ("error", "words", "state"),
    [
        (
            UpstreamCut(),
            b"UpstreamCut: The model server stopped in the middle of its answer.",
            "upstream_error",
        ),
        (
            TypeError("secret"),
            b"InternalError: The gateway failed to handle this request; its id is id.",
            "aborted",
        ),
    ],
)
def test_failure_in_the_middle_has_last_words_whosever_fault_it_was(
    error: Exception, words: bytes, state: str
) -> None:
    one = exchange()
    assert list(deliver(one, pieces(error), last_words)) == [b"first", words]
    assert one.state == state


@pytest.mark.parametrize(("is_read", "state"), [(True, "ok"), (False, "client_gone")])
def test_answer_that_is_not_read_to_its_end_is_recorded_as_client_gone(
    is_read: bool, state: str
) -> None:
    one = exchange()
    answer = deliver(one, iter([b"first", b"second"]), last_words)
    assert next(answer) == b"first"
    if is_read:
        assert list(answer) == [b"second"]
    answer.close()  # type: ignore[attr-defined]  # of a generator
    assert one.state == state


def test_fault_of_our_own_cuts_the_connection_where_there_is_no_frame() -> None:
    one = exchange()
    with pytest.raises(BrokenPipeError):
        list(deliver(one, pieces(TypeError("secret")), None))
    assert (one.state, one.error) == ("aborted", "internal_error")


@pytest.mark.parametrize("failure", [UpstreamCut(), None])
@pytest.mark.parametrize("rest", [b"", b'{"mess'])
def test_native_stream_that_stops_ends_with_an_error_on_a_line_of_its_own(
    rest: bytes, failure: UpstreamCut | None
) -> None:
    said = b'{"message":{"content":"Hi"},"done":false}'
    one = Exchange("id", "POST", "/api/chat", "1.2.3.4", NATIVE, Call(Timeouts()))
    lines = b"".join(native_stream(one, EndedReply(failure), said + b"\n" + rest)).splitlines()
    assert lines[:-1] == [said, rest][: 1 + bool(rest)]
    assert orjson.loads(lines[-1]) == {"error": str(UpstreamCut())}


def test_tokens_that_were_sent_before_a_cut_are_counted() -> None:
    def batches() -> Iterator[Sequence[Event]]:
        yield [Content(" there"), Content("!")]
        raise UpstreamCut

    one = exchange()
    with pytest.raises(UpstreamCut):
        list(render_frames(one, [Content("Hi")], batches(), MessageRenderer("m")))
    assert (one.usage.completion, one.estimated) == (3, True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UpstreamRefused(404, "model 'llama' not found"), "model 'coder' not found"),
        (UpstreamRefused(404, 'model "llama:latest" not found'), 'model "coder:latest" not found'),
        (UpstreamRefused(400, "ollama and codellama say no"), "ollama and codellama say no"),
        (UpstreamConnect("Failed to connect to llama"), "Failed to connect to llama"),
    ],
)
def test_only_what_the_upstream_said_of_the_model_is_renamed(
    error: GatewayError, said: str
) -> None:
    one = exchange(model="coder", target="llama")
    record_failure(one, error)
    record_failure(one, error)
    assert str(error) == said


def test_report_that_comes_too_late_for_a_header_is_a_comment() -> None:
    running = exchange(approximated=("tools",))  # type: ignore[arg-type]
    reports = [Approximated("response_format"), Approximated("tool_choice"), Truncated()]
    batch = [Choice(1), *reports, Content("Hi")]
    assert note_reports(running, batch) == b""
    assert running.approximated == ("tools", "response_format", "tool_choice")
    assert running.truncated == ("prompt",)
    running.count_sent(1)
    comments = note_reports(running, batch)
    assert comments.splitlines()[0] == b": the answer does not follow response_format strictly"
    assert comments.count(b"\n\n") == len(reports)
