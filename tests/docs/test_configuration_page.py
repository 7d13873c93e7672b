"""docs/configuration.md has the tables that the declarations of the settings give."""

from __future__ import annotations

import pytest

from ollama_proxy.settings.schema import ModelSettings, setting_names
from ollama_proxy.settings.tokens import TokenFields
from ollama_proxy.settings.upstreams import UpstreamSettings
from tests.configuration_page import PAGE, fill_tables, markdown_table, nested_settings
from tests.unit.test_documents import table_with


def test_tables_are_up_to_date() -> None:
    """After a change: `python -m tests.configuration_page --write`."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == fill_tables(page)


def test_every_setting_has_its_row_and_a_meaning() -> None:
    for first, names in (
        ("server.host", setting_names()),
        ("sha256", nested_settings(TokenFields)),
        ("clamp.num_ctx", nested_settings(ModelSettings)),
        ("drain", nested_settings(UpstreamSettings)),
    ):
        rows = table_with("docs/configuration.md", f"`{first}`")
        assert [row[0] for row in rows] == [f"`{name}`" for name in names]
        assert [row[0] for row in rows if not row[-1]] == []


def test_nested_settings_have_their_section_in_front() -> None:
    assert {"target", "clamp.num_ctx", "system.remove"} <= nested_settings(ModelSettings).keys()


def test_table_escapes_what_would_end_a_cell() -> None:
    assert markdown_table(["a", "b"], [["x|y", "z"]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x\\|y | z |",
    ]


def test_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="<!-- settings -->"):
        fill_tables("# Configuration")
