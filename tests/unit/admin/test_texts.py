"""Texts in English, and marked for translation."""

from __future__ import annotations

from ollama_proxy.admin.texts import N_, english, fill_in


def test_marking_a_text_does_not_change_it() -> None:
    assert N_("Sign out") == "Sign out"


def test_values_are_filled_in_if_there_are_any() -> None:
    assert english("%(name)s must be a number", name="seed") == "seed must be a number"
    assert fill_in("100 % of %(name)s", {}) == "100 % of %(name)s"
