"""docs/sharing.md: its recipes are accepted, their settings have an effect, and its numbers
are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.cli.commands import main
from ollama_proxy.coordination import client, service
from ollama_proxy.settings import Settings
from ollama_proxy.upstreams.ollama.versions import UPGRADE
from tests.unit.test_documents import blocks, codes, prose, read, table_with

PAGE = "docs/sharing.md"

#: Warnings of `config check` that are no fault of an example: it shows its tokens, and its
#: servers do not exist.
EXPECTED = ("plain token(s) in the file", UPGRADE)


def warnings(
    text: str, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `config check` warns of; it has to accept the configuration."""
    path = directory / "config.yaml"
    path.touch(mode=0o600)
    # Refuses connections at once.
    path.write_text(text.replace("10.0.0.", "127.0.0."), encoding="utf-8")
    monkeypatch.setenv("OLLAMA_PROXY_CONFIG", str(path))
    monkeypatch.setenv("STATE_DIRECTORY", str(directory / "state"))
    for name in ("DEEPSEEK_API_KEY", "DEEPSEEK_KEY_B"):
        monkeypatch.setenv(name, "sk-1")
    assert main(["config", "check"]) == 0
    first, *found = capsys.readouterr().out.splitlines()
    assert first.startswith("OK: ")
    return "\n".join(line for line in found if not any(text in line for text in EXPECTED))


def test_recipes_are_accepted_and_every_setting_has_an_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        example.text: warnings(example.text, tmp_path, monkeypatch, capsys)
        for example in blocks(PAGE, "yaml")
    }
    wrong = [f"{text}\n{warning}" for text, warning in found.items() if warning]
    assert not wrong, "\n".join(wrong)


def test_setting_without_effect_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = blocks(PAGE, "yaml")[1].text.replace(", concurrency: 2", "")
    assert "no upstream has a concurrency" in warnings(text, tmp_path, monkeypatch, capsys)


def test_defaults_of_the_queue_are_those_of_the_settings() -> None:
    rows = {codes(row[0])[0]: row[1] for row in table_with(PAGE, "`queue.max_waiting`")}
    queue = Settings().queue
    names = ("max_waiting", "max_wait_s", "swap_patience_s")
    assert {name: float(rows[f"queue.{name}"]) for name in names} == {
        name: getattr(queue, name) for name in names
    }


def test_numbers_of_the_coordinator_are_those_of_the_code() -> None:
    sharing, operations = (" ".join(read(page).split()) for page in (PAGE, "docs/operations.md"))
    patience = f"for {client.PATIENCE_S:g} s ({client.START_PATIENCE_S:g} s while"
    assert f"If there is no coordinator {patience}" in sharing
    assert f"reached {patience}" in operations
    assert f"it exits {service.IDLE_S:g} s after the last one has ended" in operations


def test_every_recipe_has_its_configuration() -> None:
    recipes = prose(PAGE).partition("\n## Recipes\n")[2].partition("\n## ")[0]
    assert recipes.count("\n### ") == len(blocks(PAGE, "yaml")) - 1
