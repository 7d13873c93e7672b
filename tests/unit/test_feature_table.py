"""The table of features: what is read from the tests, what it looks like, and
that the page has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.feature_table import (
    PAGE,
    Feature,
    features,
    node_features,
    page,
    python_features,
    summary,
)

CHAT = Feature("openai", "chat", "one tool", "client.chat()")
SCRIPT = Feature("vercel (js)", "chat", "one tool", "generateText()")
NATIVE = Feature("ollama", "native", "streaming", "client.chat(stream=True)")


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_page_has_what_the_tests_say() -> None:
    """After a change: `python -m tests.feature_table --write`."""
    assert PAGE.read_text(encoding="utf-8") == page(features())


def test_every_client_has_its_features() -> None:
    sdks = {each.sdk for each in features()}
    assert {
        "openai",
        "anthropic",
        "ollama",
        "langchain openai",
        "langchain ollama",
        "litellm",
    } <= sdks
    assert {"openai (js)", "anthropic (js)", "ollama (js)", "vercel (js)"} <= sdks


@pytest.mark.parametrize(
    ("file", "name", "feature"),
    [
        ("test_openai_python.py", "test_chat__one_tool", CHAT),
        ("test_openai_python__more.py", "test_chat__one_tool", CHAT),
        ("test_openai_python.py", "test_chat__one_tool__as_a_stream", CHAT),
        ("test_langchain_openai.py", "test_chat__one_tool", CHAT._replace(sdk="langchain openai")),
    ],
)
def test_name_and_docstring_of_a_python_test_are_read(
    file: str, name: str, feature: Feature, tmp_path: Path
) -> None:
    text = (
        f'def {name}() -> None:\n    """client.chat()\n\n    More of it.\n    """\n\n\ndef '
        "helper() -> None: ...\n"
    )
    assert list(python_features(written(tmp_path, file, text))) == [feature]


@pytest.mark.parametrize(
    "text",
    [
        'def test_chat() -> None:\n    """client.chat()"""',
        'def test_chat_streaming() -> None:\n    """client.chat()"""',
        'def test_chat__streaming() -> None:\n    """Words only."""',
        "def test_chat__streaming() -> None: ...",
    ],
)
def test_python_test_that_does_not_say_what_it_stands_for_is_an_error(
    text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"test_chat\w* needs the name"):
        list(python_features(written(tmp_path, "test_openai_python.py", text)))


@pytest.mark.parametrize("name", ["one_tool", "one_tool__as_a_stream"])
def test_declaration_of_a_script_is_read(name: str, tmp_path: Path) -> None:
    comment = '// feature("chat", "no", "no()", async () => {});\n'
    text = f'{comment}feature("chat", "{name}", "generateText()", async () => {{\n'
    assert list(node_features(written(tmp_path, "vercel.mjs", text))) == [SCRIPT]


@pytest.mark.parametrize(
    "line", ['feature("chat", "one_tool",', "feature('chat', 'one_tool', 'call()', async () => {"]
)
def test_declaration_that_can_not_be_read_is_an_error(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on one line"):
        list(node_features(written(tmp_path, "vercel.mjs", line)))


def test_unknown_dialect_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests/sdk").mkdir(parents=True)
    written(
        tmp_path,
        "tests/sdk/test_openai_python.py",
        'def test_chats__n() -> None:\n    """call()"""',
    )
    with pytest.raises(ValueError, match="unknown dialects: chats"):
        features(tmp_path)


def test_table_has_a_row_for_each_feature_and_a_tick_for_each_client() -> None:
    assert summary([CHAT, SCRIPT, NATIVE, CHAT]).splitlines() == [
        "| API | feature | ollama | openai | vercel (js) |",
        "| --- | --- | :-: | :-: | :-: |",
        "| native | streaming | ✓ |  |  |",
        "| chat | one tool |  | ✓ | ✓ |",
    ]


def test_page_names_each_call_once() -> None:
    document = page([CHAT, CHAT, CHAT._replace(call="client.stream()"), SCRIPT])
    assert "| one tool | openai | `client.chat()`, `client.stream()` |\n" in document
    assert "| one tool | vercel (js) | `generateText()` |\n" in document
    assert "## native" not in document
