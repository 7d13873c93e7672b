"""docs/clients.md: the time limits and retries of SDKs are those of the versions
that the tests install."""

from __future__ import annotations

from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.unit.test_documents import read, table_with

ROWS = {row[0]: row[1] for row in table_with("docs/clients.md", "openai, anthropic (Python)")}


@pytest.mark.parametrize("sdk", [openai, anthropic])
def test_time_limit_of_an_sdk_is_the_one_in_the_table(sdk: Any) -> None:
    assert ROWS["openai, anthropic (Python)"] == f"{sdk.DEFAULT_TIMEOUT.read:g} s without a byte"


@pytest.mark.parametrize("sdk", [openai, anthropic])
def test_number_of_retries_is_the_one_in_the_text(sdk: Any) -> None:
    assert f"(`max_retries`, by default {sdk.DEFAULT_MAX_RETRIES})" in read("docs/clients.md")


def test_client_of_ollama_has_no_time_limit() -> None:
    with ollama.Client()._client as client:
        assert client.timeout.read is None
    assert ROWS["ollama (Python), curl"] == "never"
