"""One server of the soak: the scripted Ollama and, under `/v1`, the scripted provider,
with words to recognise.

    python -m benchmarks.soak.upstream --port 11500

The tag of a model is the pause before each of its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from benchmarks import fake_ollama
from benchmarks.fake_ollama import Answer, Script, Shape, chat_shape, generate_shape
from benchmarks.soak.words import asked, words_of

#: Two to four words a second.
PACES = ("250ms", "330ms", "500ms")
#: Those of the boxes, and those of the provider.
MODELS, LAB_MODELS = tuple(f"soak:{pace}" for pace in PACES), tuple(f"lab:{pace}" for pace in PACES)


def words_for(request: dict[str, Any]) -> list[str]:
    """The words that a request asks for, wherever the prompt is; raises ValueError for
    one that asks for none."""
    wanted = asked(orjson.dumps([request.get("messages"), request.get("prompt")]))
    if wanted is None:
        raise ValueError("a request that is not the soak's")
    return words_of(*wanted)


def complete(request: dict[str, Any], script: Script, shape: Shape) -> Answer:
    """The answer of Ollama."""
    return fake_ollama.make_completion(request, script, shape, words_for(request))


def provide(request: dict[str, Any], script: Script) -> Answer:
    """The answer of the provider."""
    return fake_ollama.make_provider_chat(request, script, words_for(request))


def list_provided(request: dict[str, Any], script: Script) -> Answer:
    """The provider's models."""
    facts = {"object": "model", "created": 1767348000, "owned_by": "soak"}
    return fake_ollama.make_single(
        {"object": "list", "data": [{"id": name, **facts} for name in LAB_MODELS]}
    )


ROUTES: Mapping[bytes, Callable[[dict[str, Any], Script], Answer]] = {
    b"/api/chat": lambda request, script: complete(request, script, chat_shape),
    b"/api/generate": lambda request, script: complete(request, script, generate_shape),
    b"/api/tags": lambda request, script: fake_ollama.make_model_list(MODELS),
    b"/api/ps": lambda request, script: fake_ollama.make_model_list(MODELS),
    b"/v1/chat/completions": provide,
    b"/v1/models": list_provided,
}

if __name__ == "__main__":
    fake_ollama.ROUTES |= ROUTES
    fake_ollama.main()
