"""What the gateway knows of Ollama's versions: the tables against what real servers said."""

from __future__ import annotations

import re

import orjson
import pytest

from ollama_proxy.errors import (
    BadRequest,
    PromptTooLong,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams.ollama.versions import (
    MISTAKES,
    RECOMMENDED,
    REMEDY,
    REMEDY_WITH_CUT,
    SHIFT_PER_REQUEST,
    TOO_LONG,
    UPGRADE,
    decode_refusal,
    error_text,
    list_faults,
    unreadable_images,
)
from tests.rig.replay_upstream import Recording, recorded_at, recordings
from tests.rig.tables import check_rows, each_row

GIF, WEBP = "image/gif", "image/webp"


@each_row(
    ("version", "unreadable"),
    [
        ("0.24.0", {GIF}),
        ("0.29.9", {GIF}),
        ("0.30.0", {GIF, WEBP}),
        ("0.31.7", {GIF, WEBP}),
        ("0.32.13", {GIF, WEBP}),
        ("0.32.14", {GIF}),
        ("0.32.15", {GIF}),
        ("1.0.0", {GIF}),
        # Not releases, so they count as new.
        ("", {GIF}),
        ("0.0.0", {GIF}),
        ("0.31.0-rc1", {GIF}),
        ("0.31.0 with more", {GIF}),
    ],
)
def test_formats_by_version(version: str, unreadable: set[str]) -> None:
    assert unreadable_images(version) == unreadable


@each_row("version", ["0.1.0", "0.9.6", "0.12.11", "0.24.0", "0.29.9", "0.29.100"])
def test_older_releases_take_shift_with_each_request(version: str) -> None:
    assert version in SHIFT_PER_REQUEST


@each_row(
    "version",
    [
        "0.30.0",
        "0.30.0-rc1",
        "0.32.15",
        "0.100.0",
        "1.0.0",
        "1.24.0",
        "0.0.0",
        "0.0.12",
        "",
        "0.24",
        "v0.24.0",
        "0.24.0-rc2",
    ]
    + [
        "0.24.0-5-gabcdef",
        "0.24.0+cuda",
        "0.24.0.1",
        "0.24.0\n",
        " 0.24.0",
        "0.٢4.0",
        "unknown",
        "00.24.0",
        "0.024.0",
    ],
)
def test_everything_else_counts_as_new(version: str) -> None:
    assert version not in SHIFT_PER_REQUEST


@each_row(
    ("version", "is_faulty"),
    [
        ("0.24.0", True),
        ("0.32.14", True),
        (RECOMMENDED, False),
        ("1.0.0", False),
        ("0.32.14-rc1", False),
        ("", False),
    ],
)
def test_operators_are_told_of_releases_with_known_faults(version: str, is_faulty: bool) -> None:
    faults = list(list_faults(version))
    assert bool(faults) is is_faulty
    assert all(version in fault and isinstance(fault, Translatable) for fault in faults)


def test_the_remedy_is_translatable() -> None:
    assert isinstance(UPGRADE, Translatable) and RECOMMENDED in UPGRADE


# --- Errors ---------------------------------------------------------------------------------------

REFUSALS = [
    (version, row)
    for version in ("0.24", "0.32")
    for row in recordings(version)
    if row.status >= 400 and row.path.startswith("/api/") and row.response
]
#: What the server itself failed with: it could not start an engine, or reach a
#: registry or an account.
FAILURES = {"chat-engine-cannot-start": 500, "pull-unreachable-single": 500, "me": 503}


def is_long(row: Recording) -> bool:
    """Whether it is a refusal of a prompt that does not fit."""
    return any(part in row.name for part in ("-long-", "overflow", "too-long", "answer-beyond"))


def test_recorded_refusals_of_both_versions_blame_who_is_to_blame() -> None:
    check_rows(((row.name, version, row) for version, row in REFUSALS), check_blame)


def check_blame(_name: str, _version: str, row: Recording) -> None:
    """Raise AssertionError if a recorded refusal is not decoded as whose mistake it is."""
    error = decode_refusal(row.status, row.response)
    if row.path == "/api/nope" or row.status == 405:
        assert type(error) is UpstreamError  # not JSON
        return
    assert isinstance(error, UpstreamRefused)
    assert isinstance(error, PromptTooLong) is is_long(row)
    if row.name in FAILURES:
        assert (error.status, error.slug) == (FAILURES[row.name], UpstreamRefused.slug)
    elif row.status >= 500:
        assert (error.status, error.slug, error.state) == (400, BadRequest.slug, BadRequest.state)
    else:
        assert error.status == row.status


@each_row(("pattern", "name"), [row for row in (*MISTAKES, *TOO_LONG) if row[1]])
def test_each_row_of_the_tables_is_what_its_recording_shows(pattern: str, name: str) -> None:
    row = recorded_at(name)
    assert row.status >= 400
    document = orjson.loads(row.response)
    shown = f"{error_text(document)} {row.response.decode()}"
    assert re.search(pattern, shown, re.IGNORECASE | re.DOTALL)
    # Older engines report with 500 what newer ones refuse with 400.
    assert decode_refusal(500, row.response).status == 400


@each_row("status", [502, 503, 504])
@each_row(("pattern", "name"), MISTAKES)
def test_another_servers_status_stays_its_own(pattern: str, name: str, status: int) -> None:
    assert decode_refusal(status, recorded_at(name).response).status == status


def test_both_numbers_of_a_prompt_that_is_too_long_are_told() -> None:
    error = decode_refusal(400, recorded_at("0.32/chat-context-overflow").response)
    assert isinstance(error, PromptTooLong)
    assert (error.tokens, error.context) == (910, 256)
    assert (
        str(error)
        == f"the prompt has 910 tokens and exceeds the available context size of 256: {REMEDY}"
    )


def test_cutting_is_recommended_only_if_it_can_help() -> None:
    overflow = recorded_at("0.24/chat-context-overflow").response
    said = "the input length exceeds the context length"
    assert str(decode_refusal(400, overflow, can_cut=lambda: True)) == f"{said}: {REMEDY_WITH_CUT}"
    assert str(decode_refusal(400, overflow, can_cut=lambda: False)) == f"{said}: {REMEDY}"
    # Nobody is asked whether a prompt could be cut that fits.
    assert decode_refusal(400, b'{"error": "no"}', can_cut=lambda: 1 // 0 == 0).status == 400


@pytest.mark.parametrize("status", [400, 500])
def test_too_long_for_the_engine_of_apples_machines(status: int) -> None:
    data = b'{"error": "prompt of 910 tokens exceeds the model\'s maximum context length of 512"}'
    assert isinstance(decode_refusal(status, data), PromptTooLong)


def test_doubtful_words_are_about_the_context_only_if_the_request_is_to_blame() -> None:
    data = b'{"error": "failed to allocate the context window"}'
    assert isinstance(decode_refusal(400, data), PromptTooLong)
    assert decode_refusal(500, data).slug == UpstreamRefused.slug


def test_a_refusal_of_the_gateways_own_credentials_is_no_refusal_of_the_request() -> None:
    assert isinstance(decode_refusal(401, b"{}"), UpstreamAuthError)
