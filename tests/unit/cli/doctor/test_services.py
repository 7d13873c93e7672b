"""Redis, and what the gateway reports of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.cli.doctor.door import Door
from ollama_proxy.cli.doctor.finding import Level
from ollama_proxy.cli.doctor.services import check_records, check_redis, check_reported
from ollama_proxy.records.database import open_database, upgrade
from ollama_proxy.settings import Settings, settings_from
from tests.rig.plain_ollama import nobody, plain_ollama
from tests.rig.redis_server import RedisServer


def with_redis(url: str) -> Settings:
    return settings_from(f"state: {{url: '{url}'}}".encode(), Path("c.yaml"), {})


def test_redis_that_answers_and_one_that_does_not() -> None:
    with RedisServer() as server:
        assert list(check_redis(with_redis(server.url))) == []
    with nobody() as port:
        (found,) = check_redis(with_redis(f"redis://:secret-word@127.0.0.1:{port}/0"))
    assert "does not answer" in found.what
    assert "secret-word" not in found.what
    assert list(check_redis(Settings())) == []


@pytest.mark.parametrize(
    ("problem", "part"),
    [
        ({"what": "w", "mend": "m"}, "gateway"),
        ({"upstream": "box1", "what": "w", "mend": "m"}, "upstream box1"),
    ],
)
def test_problems_that_the_gateway_reports(problem: dict[str, Any], part: str) -> None:
    with plain_ollama(**{"/health": {"problems": [problem]}}) as port:
        (found,) = check_reported(Door(f"http://127.0.0.1:{port}"))
    assert (found.part, found.what, found.mend) == (part, "w", "m")


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": str(tmp_path)}
    assert list(check_records(Settings(), environ)) == []
    (tmp_path / "records.db").write_bytes(b"no database at all" * 100)
    (found,) = check_records(Settings(), environ)
    assert (found.level, found.part) == (Level.FAULT, "records")
    (tmp_path / "records.db").unlink()
    upgrade(open_database("sqlite:state/records.db", tmp_path))
    assert list(check_records(Settings(), environ)) == []
