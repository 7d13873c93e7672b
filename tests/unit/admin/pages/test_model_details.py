"""What a box says of a model."""

from __future__ import annotations

import pytest

from ollama_proxy.admin.pages.model_details import MAX_CHARS, describe
from ollama_proxy.hub import Json


def test_a_model_is_described() -> None:
    details = describe(
        {
            "details": {
                "family": "qwen3",
                "parameter_size": "8.2B",
                "quantization_level": "Q4_K_M",
            },
            "model_info": {
                "qwen3.context_length": 40960,
                "qwen3.embedding_length": 4096,
                "general.type": "model",
            },
            "capabilities": ["completion", "tools"],
            "parameters": "num_ctx 512",
            "template": "\n{{ .Prompt }}\n",
            "license": ["MIT", "Apache"],
        }
    )
    assert (details.family, details.parameter_size, details.quantization) == (
        "qwen3",
        "8.2B",
        "Q4_K_M",
    )
    assert (details.context_length, details.embedding_length) == (40960, 4096)
    assert details.capabilities == ("completion", "tools")
    assert (details.parameters, details.template, details.system) == (
        "num_ctx 512",
        "{{ .Prompt }}",
        "",
    )
    assert details.licence == "MIT\n\nApache"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"details": [], "model_info": 3, "capabilities": "x"},
        {"model_info": {"a.context_length": "x"}},
    ],
)
def test_nothing_of_it_is_trusted(document: dict[str, Json]) -> None:
    details = describe(document)
    assert (details.family, details.context_length, details.capabilities) == ("", None, ())


def test_a_text_without_end_is_cut() -> None:
    assert len(describe({"license": "x" * (MAX_CHARS + 9)}).licence) == MAX_CHARS
