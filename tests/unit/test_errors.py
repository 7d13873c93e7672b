"""Errors as clients and the log get them."""

from __future__ import annotations

import re

from ollama_proxy import errors
from ollama_proxy.errors import (
    BadRequest,
    ConfigError,
    GatewayError,
    PromptTooLong,
    RateLimited,
    UpstreamRefused,
)
from tests.rig.tables import each_row


def every_error() -> list[type[GatewayError]]:
    found: list[type[GatewayError]] = [GatewayError]
    for each in found:
        found += each.__subclasses__()
    return [each for each in found if each.__module__ == errors.__name__]


def test_every_class_has_a_status_a_slug_and_a_text() -> None:
    wrong = [
        f"{kind.__name__}: {kind.status} {kind.slug!r} {kind.text!r}"
        for kind in every_error()
        if not 400 <= kind.status < 600
        or not re.fullmatch("[a-z]+(_[a-z]+)*", kind.slug)
        or not kind.text.endswith((".", "…", "。"))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_detail_is_not_in_the_public_text() -> None:
    error = BadRequest("model: is required", param="model", detail="seen by the log only")
    assert (str(error), error.param) == ("model: is required", "model")
    assert str(BadRequest(detail="x")) == BadRequest.text


@each_row(
    ("status", "given", "slug", "state", "param"),
    [
        (404, 404, "model_not_found", "refused", "model"),
        (400, 400, "invalid_request", "refused", None),
        (500, 500, "upstream_refused", "upstream_error", None),
        (302, 502, "upstream_refused", "upstream_error", None),
        (999, 502, "upstream_refused", "upstream_error", None),
    ],
)
def test_what_an_upstream_refuses_keeps_its_status_if_that_is_one_of_an_error(
    status: int, given: int, slug: str, state: str, param: str | None
) -> None:
    error = UpstreamRefused(status, "no")
    assert (error.status, error.slug, error.state, error.param) == (given, slug, state, param)


def test_a_prompt_that_is_too_long_says_what_to_do() -> None:
    error = PromptTooLong("9 tokens")
    assert (error.status, error.slug, str(error)) == (
        400,
        "context_length_exceeded",
        "9 tokens: shorten it",
    )


def test_configuration_errors_are_one_line_each() -> None:
    assert ConfigError("one").complaints == ["one"]
    assert str(ConfigError(["one", "two"])) == "one\ntwo"


@each_row(
    ("limit", "key", "retry_after_s", "text"),
    [
        ("requests_per_minute", "token:team", 1, "requests per minute of this token; 1 second"),
        ("concurrent", "user:team/a", 119, "concurrent requests of this user; 119 seconds"),
        (
            "gpu_seconds_per_day",
            "token:a",
            7100,
            "GPU seconds per day of this token; 119 minutes",
        ),
        ("cost_per_day", "token:team", 7200, "cost per day of this token; 2 hours"),
        ("cost_per_month", "token:team", 172_801, "cost per month of this token; 3 days"),
    ],
)
def test_a_limit_is_named_with_when_to_try_again(
    limit: str, key: str, retry_after_s: int, text: str
) -> None:
    error = RateLimited(limit, key, retry_after_s=retry_after_s)
    what, when = text.split("; ")
    assert str(error) == f"The limit of {what} is reached; try again in {when}."
    assert error.retry_after_s == retry_after_s
