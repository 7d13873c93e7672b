"""docs/clients.md: the time limits and retries of SDKs are those of the versions
that the tests install."""

from __future__ import annotations

import anthropic
import ollama
import openai

from tests.unit.test_documents import read, table_with

ROWS = {row[0]: row[1] for row in table_with("docs/clients.md", "openai, anthropic (Python)")}


def test_time_limits_of_sdks_are_those_of_the_table() -> None:
    said = ROWS["openai, anthropic (Python)"]
    assert said == f"{openai.DEFAULT_TIMEOUT.read:g} s without a byte"
    assert said == f"{anthropic.DEFAULT_TIMEOUT.read:g} s without a byte"


def test_number_of_retries_is_the_one_in_the_text() -> None:
    assert openai.DEFAULT_MAX_RETRIES == anthropic.DEFAULT_MAX_RETRIES
    assert f"(`max_retries`, by default {openai.DEFAULT_MAX_RETRIES})" in read("docs/clients.md")


def test_client_of_ollama_has_no_time_limit() -> None:
    with ollama.Client()._client as client:
        assert client.timeout.read is None
    assert ROWS["ollama (Python), curl"] == "never"
