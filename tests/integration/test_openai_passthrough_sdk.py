"""A gateway whose provider is another gateway, as OpenAI's own client sees it."""

from __future__ import annotations

import openai

from tests.app.passing import ASKED
from tests.golden.face import TOKEN
from tests.rig.gateway import Gateway
from tests.rig.provider import upstream_entry


def test_gateway_is_a_provider_for_another(demo_gateway: Gateway) -> None:
    back = upstream_entry(f"{demo_gateway.url}/v1", name="back", api_key_env="BACK_KEY")
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [back],
        "stream": {"always_include_usage": True},
    }
    with (
        Gateway(config, env={"BACK_KEY": TOKEN}) as front,
        openai.OpenAI(base_url=f"{front.url}/v1", api_key=TOKEN, max_retries=0) as client,
    ):
        [model, *_] = [one.id for one in client.models.list() if "embed" not in one.id]
        single = client.chat.completions.create(model=f"back:{model}", messages=ASKED)
        chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True))
    assert single.choices[0].message.content
    assert (single.model, {one.model for one in chunks}) == (f"back:{model}", {model})
    # It has not been asked for, and is there all the same.
    assert chunks[-1].usage == single.usage
