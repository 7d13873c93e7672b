"""The fields that every translated dialect takes beside its own."""

from __future__ import annotations

from ollama_proxy.dialects.schema_fields import Extensions
from ollama_proxy.gateway.passthrough.openai import OURS

#: Extensions that many providers have as well, so that these may go there as they are.
OF_PROVIDERS = set(
    (
        "top_k min_p typical_p repeat_last_n repeat_penalty mirostat mirostat_tau "
        "mirostat_eta seed stop"
    ).split()
)


def test_bodies_with_an_extension_are_not_passed_on_unless_providers_have_it_too() -> None:
    assert Extensions().fields.keys() - OF_PROVIDERS == OURS - {"format"}
