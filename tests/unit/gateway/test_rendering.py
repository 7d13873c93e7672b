"""What the gateway needs of a dialect, and that every dialect has it."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.anthropic import render as anthropic
from ollama_proxy.dialects.native import render as native
from ollama_proxy.dialects.openai import render as openai
from ollama_proxy.dialects.responses import render as responses
from ollama_proxy.gateway.rendering import Renderer

NEEDED = {name for name in dir(Renderer) if name.startswith("render_")}


@pytest.mark.parametrize("module", [anthropic, native, openai, responses])
def test_every_renderer_draws_everything(module: object) -> None:
    kinds = [
        kind
        for name, kind in vars(module).items()
        if name.endswith("Renderer") and name != "Renderer"
    ]
    complete = [kind for kind in kinds if isinstance(kind, type) and NEEDED <= set(dir(kind))]
    assert NEEDED == {"render_single", "render_stream", "render_heartbeat", "render_failure"}
    assert complete
