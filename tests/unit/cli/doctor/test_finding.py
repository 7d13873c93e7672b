"""Findings as text and as JSON."""

from __future__ import annotations

from ollama_proxy.cli.doctor.finding import Finding, Level


def test_a_finding_says_what_to_do() -> None:
    found = Finding(Level.WARNING, "disk", "it is full", "delete something")
    assert found.as_text == "warning  disk: it is full\n         fix: delete something"
    assert found.as_json == {
        "level": "warning",
        "part": "disk",
        "what": "it is full",
        "mend": "delete something",
    }


def test_without_a_remedy_it_is_one_line() -> None:
    assert Finding(Level.NOTE, "TLS", "not encrypted").as_text == "note     TLS: not encrypted"
