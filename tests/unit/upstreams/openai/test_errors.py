"""What providers say when they say no, and what becomes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ollama_proxy.errors import (
    PromptTooLong,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.upstreams.openai.errors import decode_error, decode_refusal, text_of
from tests.rig.tables import each_row

HTML = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def openai(message: str, code: Any = None, kind: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


TEXTS = {
    "an object": (openai("no"), "no"),
    "an object goes before a message": ({"error": {"message": "no"}, "message": "yes"}, "no"),
    "a text": ({"error": "no"}, "no"),
    "a message": ({"code": 20012, "message": "no", "data": None}, "no"),
    "a detail": ({"detail": "no"}, "no"),
    "a list of details": (
        {"detail": [{"loc": ["body"], "msg": "no"}, {"msg": "nor that"}]},
        "no; nor that",
    ),
    "a list of errors": ({"errors": [{"message": "no"}]}, "no"),
    "an object inside another": ({"error": {"error": {"message": "no"}}}, "no"),
    "JSON inside a text": (openai('{"error":{"message":"no"}}'), "no"),
    "something like JSON inside a text": (openai("{no}"), "{no}"),
    "vLLM's older form": (
        {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},
        "no",
    ),
    "a bare text": ("no", "no"),
    "no text": ({"error": {"code": 1}}, ""),
    "a list": ([1], ""),
    "null": (None, ""),
}


@each_row(("document", "text"), TEXTS.values())
def test_the_sentence_of_an_error(document: Any, text: str) -> None:
    assert text_of(document) == text


def test_of_a_body_that_is_no_json_the_beginning_is_shown() -> None:
    assert (
        str(decode_refusal(400, b"no such thing" + b"x" * 1000))
        == ("no such thing" + "x" * 1000)[:200]
    )


#: Status and document of the answer; status of ours, and what it is.
STATUSES: dict[str, tuple[int, Any, int, type[UpstreamError]]] = {
    "bad request": (400, openai("bad"), 400, UpstreamRefused),
    "unprocessable": (422, {"detail": [{"msg": "bad"}]}, 400, UpstreamRefused),
    "too large": (413, openai("bad"), 400, UpstreamRefused),
    "anything else of the client": (409, openai("bad"), 400, UpstreamRefused),
    "wrong key": (401, openai("Incorrect API key provided: sk-abc"), 502, UpstreamAuthError),
    "no balance": (402, openai("Insufficient Balance"), 502, UpstreamAuthError),
    "forbidden": (403, openai("real-name verification needed"), 502, UpstreamAuthError),
    "overdue": (403, openai("overdue", "AccountOverdueError"), 502, UpstreamAuthError),
    "arrears with 400": (400, openai("Access denied", "Arrearage"), 502, UpstreamAuthError),
    "wrong key with 400": (400, openai("bad key", "invalid_api_key"), 502, UpstreamAuthError),
    "content policy": (403, openai("Your input was flagged", "moderation"), 400, UpstreamRefused),
    "content policy with 400": (400, openai("bad", "data_inspection_failed"), 400, UpstreamRefused),
    "no such model": (
        404,
        openai("The model `x` does not exist", "model_not_found"),
        404,
        UpstreamRefused,
    ),
    "no such endpoint": (
        404,
        openai("gone", "InvalidEndpointOrModel.NotFound"),
        404,
        UpstreamRefused,
    ),
    "no such model with 400": (
        400,
        {"code": 20012, "message": "Model does not exist"},
        404,
        UpstreamRefused,
    ),
    "no such model, shortly": (400, openai("Model Not Exist"), 404, UpstreamRefused),
    "no access to a model": (
        403,
        openai("no access to model", "model_not_found"),
        404,
        UpstreamRefused,
    ),
    "no such address": (404, {"detail": "Not Found"}, 502, UpstreamError),
    "too slow": (408, openai("timeout"), 504, UpstreamTimeout),
    "too slow behind a gateway": (504, openai("timeout"), 504, UpstreamTimeout),
    "too many": (429, openai("slow down"), 429, UpstreamRefused),
    "a fault": (500, openai("oops"), 502, UpstreamRefused),
    "a bad gateway": (502, openai("oops"), 502, UpstreamRefused),
    "overload": (503, openai("busy"), 503, UpstreamRefused),
    "another overload": (529, openai("busy"), 503, UpstreamRefused),
    "too long a prompt": (
        400,
        openai("maximum context length is 8", "context_length_exceeded"),
        400,
        PromptTooLong,
    ),
    "too long, with 413": (413, openai("input must have less than 512 tokens"), 400, PromptTooLong),
    "too long, in Chinese clouds": (
        400,
        openai("Range of input length should be [1, 30720]"),
        400,
        PromptTooLong,
    ),
}


@each_row(("status", "document", "ours", "kind"), STATUSES.values())
def test_statuses(status: int, document: Any, ours: int, kind: type[UpstreamError]) -> None:
    error = decode_refusal(status, body(document))
    assert (error.status, type(error)) == (ours, kind)


@each_row(
    ("status", "ours", "kind"),
    [
        (400, 502, UpstreamError),
        (401, 502, UpstreamAuthError),
        (403, 502, UpstreamAuthError),
        (404, 502, UpstreamError),
        (408, 504, UpstreamTimeout),
        (429, 429, UpstreamRefused),
        (500, 502, UpstreamRefused),
        (502, 502, UpstreamRefused),
        (503, 503, UpstreamRefused),
        (504, 504, UpstreamTimeout),
        (520, 502, UpstreamRefused),
    ],
)
@each_row("data", [HTML, b"", b" \n"])
def test_statuses_without_an_error_that_can_be_read(
    status: int, ours: int, kind: type[UpstreamError], data: bytes
) -> None:
    error = decode_refusal(status, data)
    assert (error.status, type(error)) == (ours, kind)
    assert "html" not in str(error).lower()


def test_a_model_that_is_not_there_is_named_as_ollama_does() -> None:
    assert (
        str(decode_refusal(404, body(openai("The model does not exist")), model="org/m"))
        == "model 'org/m' not found"
    )


IN_200 = {
    "a code": (openai("busy", 502), 502),
    "a code as a text": (openai("slow down", "429"), 429),
    "a limit by its name": (openai("slow down", "rate_limit_exceeded"), 429),
    "a request by its type": (openai("bad", kind="invalid_request_error"), 400),
    "a prompt that is too long": (openai("This model's maximum context length is 8"), 400),
    "a key by its name": (openai("no", "invalid_api_key"), 502),
    "a model by its text": ({"code": 20012, "message": "Model does not exist."}, 404),
    "a code of its own": ({"code": 60000, "message": "System is really busy"}, 502),
    "a text": ({"error": "oops"}, 502),
    "a number beyond all statuses": (openai("oops", 1302), 502),
}


@each_row(("document", "status"), IN_200.values())
def test_an_error_in_an_answer_goes_by_its_own_code(document: Any, status: int) -> None:
    assert decode_error(document).status == status


QUOTAS = {
    "quota": (openai("You exceeded your current quota", "insufficient_quota"), True),
    "arrears": (openai("no", "Arrearage"), True),
    "free tier": (openai("free quota used up", "AllocationQuota.FreeTierOnly"), True),
    "a rate": (openai("slow down", "rate_limit_exceeded"), False),
}


@pytest.mark.parametrize(("document", "final"), QUOTAS.values(), ids=QUOTAS)
def test_a_quota_that_is_used_up_is_not_asked_again(document: Any, final: bool) -> None:
    error = decode_refusal(429, body(document))
    assert isinstance(error, UpstreamRefused)
    assert error.final is final


def at(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@each_row(
    ("headers", "wait_s"),
    [
        ([("retry-after", "7")], 7),
        ([("retry-after", "0.4")], 1),
        ([("retry-after", "0")], 0),
        ([("retry-after-ms", "1500")], 2),
        ([("retry-after", "soon")], None),
        ([("retry-after", "-3")], None),
        ([("retry-after", "99999999")], 999_999),
        ([("retry-after", at(-60))], 0),
        ([("x-other", "7")], None),
        ([], None),
    ],
)
def test_how_long_to_wait(headers: list[tuple[str, str]], wait_s: int | None) -> None:
    assert decode_refusal(429, body(openai("slow down")), headers).retry_after_s == wait_s


def test_how_long_to_wait_as_a_date() -> None:
    wait_s = decode_refusal(429, body(openai("slow down")), [("retry-after", at(30))]).retry_after_s
    assert wait_s is not None and 25 <= wait_s <= 31


@pytest.mark.parametrize("status", [503, 529])
@pytest.mark.parametrize(("headers", "wait_s"), [([], None), ([("retry-after", "9")], 9)])
def test_only_a_busy_provider_knows_how_long_it_is(
    status: int, headers: list[tuple[str, str]], wait_s: int | None
) -> None:
    assert decode_refusal(status, body(openai("busy")), headers).retry_after_s == wait_s


LONG = {
    "a message": openai("x" * 5000),
    "a detail": {"detail": "x" * 5000},
    "a list of details": {"detail": [{"msg": "x" * 100}] * 100},
    "a message in a text": openai(json.dumps(openai("x" * 5000))),
    "something like JSON inside a text": openai("{" + "x" * 5000),
}


@each_row("document", LONG.values())
def test_a_long_text_is_cut(document: Any) -> None:
    assert (
        len(str(decode_refusal(400, body(document))))
        == len(str(decode_error({"error": document, "code": 400})))
        == 2000
    )


def test_a_secret_where_a_text_is_cut_is_none_of_it() -> None:
    text = str(
        decode_refusal(
            400,
            body(openai("x" * 1990 + " my-odd-secret " + "y" * 5000)),
            secrets=("my-odd-secret",),
        )
    )
    assert text == "x" * 1990 + " ... yyyyy"


@each_row(
    "secret",
    [
        "sk-proj-abcdef0123",
        "sk-abc***xyz",
        "Bearer abc.def",
        "https://10.0.0.9:8000/v1/chat",
        "my-odd-secret",
    ],
)
def test_no_text_shows_keys_or_addresses(secret: str) -> None:
    error = decode_refusal(400, body(openai(f"Bad: {secret} is wrong")), secrets=("my-odd-secret",))
    assert str(error) == "Bad: ... is wrong"
    assert secret not in error.detail


def test_no_log_shows_a_key_that_is_quoted_as_a_code() -> None:
    document = {"error": {"message": "No", "code": "my-odd-secret"}}
    assert (
        "my-odd-secret"
        not in decode_refusal(401, body(document), secrets=("my-odd-secret",)).detail
    )
