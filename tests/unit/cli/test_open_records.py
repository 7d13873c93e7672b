"""What a command says if it can't use the records."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ollama_proxy.cli.open_records import open_records
from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.records import DatabaseUrl, Records
from ollama_proxy.settings.schema import Settings
from tests.rig.gateway import free_port


def settings_with(url: str | None) -> Settings:
    return replace(Settings(), records=Records(url=DatabaseUrl(url) if url else None))


def try_to_open(url: str | None, directory: Path) -> str:
    with (
        pytest.raises(ConfigError) as caught,
        open_records(settings_with(url), {"STATE_DIRECTORY": str(directory)}),
    ):
        pytest.fail("it was opened")
    return str(caught.value)


def test_records_that_are_switched_off(tmp_path: Path) -> None:
    assert try_to_open(None, tmp_path) == "records.url is null, so nothing is recorded"


def test_a_file_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    assert try_to_open("sqlite:state/records.db", tmp_path) == (
        f"{tmp_path}/records.db: there is no database yet; start the gateway, or run "
        "`ollama-proxy records upgrade`"
    )
    assert os.listdir(tmp_path) == []


def test_a_database_without_tables(tmp_path: Path) -> None:
    (tmp_path / "records.db").touch()
    assert "run `ollama-proxy records upgrade`" in try_to_open("sqlite:state/records.db", tmp_path)


def test_a_server_that_does_not_answer_and_no_password(tmp_path: Path) -> None:
    complaint = try_to_open(f"postgresql://gw:CANARY@127.0.0.1:{free_port()}/records", tmp_path)
    assert "is not available: " in complaint
    assert "CANARY" not in complaint
