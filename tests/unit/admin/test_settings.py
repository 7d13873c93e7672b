"""The settings in effect, and the check of a configuration file, through the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.admin.settings import list_problems, split_complaint
from ollama_proxy.settings.schema import Settings, settings_from
from tests.rig.in_process import TOKEN
from tests.unit.admin.conftest import MEMBER, Api


def test_every_setting_has_its_value_and_source(api: Api) -> None:
    rows = {row["name"]: row for row in api.ask("GET", "settings")["settings"]}
    assert rows["server.port"] == {
        "name": "server.port",
        "value": 8080,
        "source": "default",
        "where": None,
    }
    assert (rows["auth.generate_tokens"]["source"], rows["auth.generate_tokens"]["where"]) == (
        "file",
        "config.yaml:1",
    )
    assert [token["sha256"] for token in rows["auth.generate_tokens"]["value"]] == [
        "********",
        "********",
    ]
    assert (rows["models.Coder"]["source"], rows["models.Coder"]["value"]["target"]) == (
        "file",
        "demo",
    )
    assert rows["upstreams.demo"]["value"]["kind"] == "demo"
    assert not [name for name in rows if name in ("models", "upstreams")]
    assert not [secret for secret in (TOKEN, MEMBER) if secret in str(rows)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auth: {generate_tokens: [a-new-token-1]}", []),
        (
            "server:\n  port: x\nfoo: 1\nauth: {generate_tokens: [a-new-token-1]}",
            [
                (2, "server.port must be a whole number from 0 to 65535, without quotes"),
                (3, 'unknown setting "foo"'),
            ],
        ),
        ("a: [", [(1, "is not valid YAML: expected the node content, but found '<stream end>'")]),
        ("", [(1, "the file is empty; write at least one setting or remove it")]),
        ("server: {port: 80}", [(None, "the list of tokens is missing")]),
    ],
)
def test_a_file_is_checked_with_its_lines(
    api: Api, text: str, expected: list[tuple[int | None, str]]
) -> None:
    problems = api.ask("POST", "settings/check", {"yaml": text})["problems"]
    assert [
        (problem["line"], problem["message"][: len(message)])
        for problem, (_, message) in zip(problems, expected, strict=True)
    ] == expected


def test_a_check_takes_text_only(api: Api) -> None:
    assert api.ask("POST", "settings/check", {"yaml": 1}, status=400)["error"]["param"] == "yaml"
    assert api.ask("POST", "settings/check", {}, status=400)["error"]["param"] == "yaml"
    assert list_problems("\ud800: 1", Settings()) != []


def test_errors_about_a_variable_have_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    before = settings_from(b"auth: {generate_tokens: [a-new-token-1]}", Path("config.yaml"), {})
    [problem] = list_problems("auth: {generate_tokens: [a-new-token-1]}", before)
    assert problem["line"] is None and problem["message"].startswith("environment variable PORT: ")
    assert split_complaint("dir/config.yaml:12: x: 7", "dir/config.yaml") == {
        "line": 12,
        "message": "x: 7",
    }
