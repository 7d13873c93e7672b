"""Requests to the Responses face, and what the upstream got for them."""

from __future__ import annotations

from tests.golden.fates import Asked, asking
from tests.golden.responses.reading import Document

PATH = "/v1/responses"

ask = asking({PATH: {"model": "m", "input": "Hi"}})


def messages(asked: Asked) -> list[Document]:
    """The messages that the upstream got."""
    assert asked.answer.status == 200, asked.answer.text
    return list(asked.sent["messages"])
