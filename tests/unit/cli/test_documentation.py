"""The commented config.yaml says everything that is declared, and can be used as it is."""

from __future__ import annotations

from pathlib import Path

from ollama_proxy.cli.documentation import EXAMPLES, documentation
from ollama_proxy.settings import show_value
from ollama_proxy.settings.schema import Settings, load_settings, setting_names


def test_the_documentation_can_be_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(documentation())
    assert load_settings(tmp_path / "c.yaml", {}).origins == {}


def test_the_documentation_holds_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = [
        line[1:] for line in documentation().splitlines() if line.startswith("#") and line[1] != "#"
    ]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    settings = load_settings(tmp_path / "c.yaml", {})
    lists = {"auth.generate_tokens", "auth.manage_tokens", "auth.admin_tokens"}
    assert set(setting_names()) - set(settings.origins) == lists
    assert settings.server == Settings().server
    assert show_value(settings) == show_value(Settings())
    assert "Not set: manage_tokens" in documentation()


def test_the_examples_of_the_documentation_work(tmp_path: Path) -> None:
    lines = [line for _, sample in EXAMPLES.values() for line in sample]
    text = "auth:\n" + "\n".join(lines).replace("<64 hex digits>", "a" * 64)
    (tmp_path / "c.yaml").write_text(text)
    settings = load_settings(tmp_path / "c.yaml", {})
    assert (len(settings.auth.tokens()), len(settings.upstreams), len(settings.models)) == (2, 3, 1)


def test_the_documentation_fits_a_terminal() -> None:
    assert max(map(len, documentation().splitlines())) <= 120
