"""The official clients, before a gateway of the process."""

from __future__ import annotations

import httpx2 as httpx
import openai

from tests.golden.face import TOKEN
from tests.rig.local import LocalGateway, LocalTransport


def openai_client(gateway: LocalGateway) -> openai.OpenAI:
    """Return OpenAI's client. It does not try anything again."""
    transport = LocalTransport(gateway)
    return openai.OpenAI(
        base_url="http://gateway.test/v1",
        api_key=TOKEN,
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )
