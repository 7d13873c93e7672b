"""Models and upstreams that are managed while the gateway runs, next to those of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection

from ollama_proxy.records import audit, database, tables
from ollama_proxy.records.managed_settings import delete_setting, put_setting
from tests.rig.boxes import Box, fleet_config, running
from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.local import LocalGateway

ACTOR = audit.Actor({"by": "admin", "from": "10.0.0.7"})
SQLITE = "sqlite:state/records.db"


boxes = function_fixture(lambda: running(Box("box1", ["m"]), Box("box2", ["n"])))


@pytest.fixture
def gateway(boxes: tuple[Box, Box]) -> Iterator[LocalGateway]:
    config: dict[str, Any] = fleet_config(
        TOKEN, [boxes[0]], models={"coder": {"target": "m"}}, records={"url": SQLITE}
    )
    with LocalGateway(config, records=True) as running:
        yield running
        assert not running.events("internal_error")


@pytest.fixture
def change(gateway: LocalGateway) -> Iterator[Callable[[Callable[[Connection], object]], None]]:
    engine = database.open_database(SQLITE, gateway.state_directory)

    def run(action: Callable[[Connection], object]) -> None:
        with database.write(engine) as connection:
            action(connection)

    yield run
    engine.dispose()


def models(gateway: LocalGateway) -> set[str]:
    """What is listed."""
    return {model["id"] for model in gateway.ask("/v1/models").json()["data"]}


def ask(gateway: LocalGateway, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    return gateway.ask("/api/chat", body).status


Change = Callable[[Callable[[Connection], object]], None]


def test_models_and_upstreams_come_and_go(
    gateway: LocalGateway, boxes: tuple[Box, Box], change: Change
) -> None:
    box = {name: value for name, value in boxes[1].declared.items() if name != "name"}

    def add(connection: Connection) -> None:
        put_setting(connection, kind="upstreams", name="box2", value=box, actor=ACTOR)
        put_setting(
            connection, kind="models", name="writer", value={"target": "box2:n"}, actor=ACTOR
        )

    change(add)
    wait_until(lambda: {"coder", "writer"} <= models(gateway), 30, lambda: str(models(gateway)))
    assert [ask(gateway, model) for model in ("coder", "writer", "n")] == [200, 200, 200]
    assert len(boxes[1].prompts) == 2
    change(
        lambda connection: delete_setting(connection, kind="upstreams", name="box2", actor=ACTOR)
    )
    wait_until(lambda: ask(gateway, "writer") == 404, 30)
    assert ask(gateway, "coder") == 200


def test_what_does_not_fit_is_reported_and_stops_nothing(
    gateway: LocalGateway, change: Change
) -> None:
    """Entries of a version that knew more, and those that the file has defined meanwhile."""

    def add(connection: Connection) -> None:
        entry = {"changed_at": 0, "changed_by": "admin"}
        for name, value in (("wrong", {"target": "m", "taste": 1}), ("Coder", {"target": "none"})):
            connection.execute(
                tables.managed_settings.insert().values(
                    kind="models", name=name, value=value, **entry
                )
            )
        put_setting(connection, kind="models", name="writer", value={"target": "m"}, actor=ACTOR)

    change(add)
    wait_until(lambda: {"coder", "writer"} <= models(gateway), 30)
    assert [ask(gateway, model) for model in ("coder", "writer")] == [200, 200]

    def find_reasons() -> dict[str, str]:
        skipped = gateway.events("managed_entry_skipped")
        return {line["name"]: line["reason"] for line in skipped}

    wait_until(
        lambda: find_reasons().keys() == {"Coder", "wrong"},
        30,
        lambda: f"the log has {find_reasons()}",
    )
    reasons = find_reasons()
    assert reasons["Coder"].startswith("Coder is defined in config.yaml:")
    assert reasons["wrong"].startswith('unknown setting "taste"')
