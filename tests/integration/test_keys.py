"""Keys that are made while the gateway runs: known to every worker within 2 seconds, and
gone within 2 seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rig.boxes import WorkBox
from tests.rig.calls import FACES, TOKEN
from tests.rig.coordinator import kill_coordinator
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.edits import wait_until_known
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.keys import (
    FOLLOWED_S,
    OPERATOR,
    assert_ended,
    change_key,
    create_key,
    open_streams,
    run_token_command,
    wait_for_followers,
)
from tests.rig.postgres import PostgresServer

CHAT = FACES["openai chat"]
SQLITE = "sqlite:state/records.db"


def configured(box: WorkBox, url: str, **sections: Any) -> dict[str, Any]:
    auth = sections.pop("auth", {"generate_tokens": [TOKEN]})
    stream = {"heartbeat_s": 0.2}
    return {
        "auth": auth,
        "upstreams": [box.declared],
        "records": {"url": url},
        "stream": stream,
        **sections,
    }


module_box = module_fixture(lambda: WorkBox("box1", ["m", "other"], slots=200))


@pytest.fixture
def box(module_box: WorkBox) -> WorkBox:
    module_box.go.set()
    module_box.clear()
    return module_box


@pytest.fixture(scope="module")
def shared(module_box: WorkBox) -> Iterator[Gateway]:
    with Gateway(configured(module_box, SQLITE), records=True) as running:
        wait_for_followers(running)
        yield running
        assert "Traceback" not in running.output()


def status(gateway: Gateway, token: str, model: str = "m") -> int:
    return gateway.ask(CHAT.path, CHAT.body | {"model": model, "stream": False}, token=token).status


def refused_everywhere(gateway: Gateway, token: str) -> bool:
    return {gateway.ask("/api/tags", token=token).status for _ in range(8)} == {401}


def test_a_key_works_in_every_worker_and_its_streams_end_when_it_is_withdrawn(
    shared: Gateway, box: WorkBox
) -> None:
    token = create_key(shared, "web", *OPERATOR)
    wait_until_known(shared, token, FOLLOWED_S)
    box.go.clear()
    with ExitStack() as streams:
        found = open_streams(shared, streams, token)
        change_key(shared, "revoke", "web")
        assert_ended(found)
        assert refused_everywhere(shared, token)
        box.go.set()
        assert status(shared, TOKEN) == 200


WAYS = {
    "disabled": ("disable",),
    "expired": ("change", "--expires", (datetime.now(UTC).date() - timedelta(days=1)).isoformat()),
    "replaced": ("rotate",),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_is_not_valid_any_more_ends_its_streams(
    shared: Gateway, box: WorkBox, way: str
) -> None:
    token = create_key(shared, way, *OPERATOR)
    wait_until_known(shared, token, FOLLOWED_S)
    box.go.clear()
    with ExitStack() as streams:
        found = open_streams(shared, streams, token)
        command, *options = WAYS[way]
        change_key(shared, command, way, *options)
        assert_ended(found)
    assert refused_everywhere(shared, token)
    if way != "replaced":
        change_key(
            shared, *(("enable", way) if way == "disabled" else ("change", way, "--expires", ""))
        )
        wait_until_known(shared, token, FOLLOWED_S)


def test_the_limits_and_models_of_a_key_hold_in_all_workers(shared: Gateway, box: WorkBox) -> None:
    token = create_key(
        shared, "small", *OPERATOR, "--models", "m", "--limit", "requests_per_minute=3"
    )
    wait_until_known(shared, token, FOLLOWED_S)
    assert status(shared, token, "other") == 404
    wait_for_minute(5)
    assert [status(shared, token) for _ in range(6)] == [200] * 3 + [429] * 3
    change_key(shared, "change", "small", "--limit", "requests_per_minute=100", "--models", "")
    wait_until(lambda: status(shared, token, "other") == 200, FOLLOWED_S)


def test_the_file_takes_precedence(shared: Gateway, box: WorkBox) -> None:
    """A token of the same name in the file replaces the key, until it is removed there."""
    key = create_key(shared, "late", *OPERATOR)
    wait_until_known(shared, key, FOLLOWED_S)
    tokens = [TOKEN, {"name": "late", "token": "late-token-of-the-file"}]
    shared.write_config(configured(box, SQLITE, auth={"generate_tokens": tokens}))
    wait_until_known(shared, "late-token-of-the-file")
    assert refused_everywhere(shared, key)
    done = run_token_command(shared, "revoke", "late")
    assert (done.returncode, "late is defined in " in done.stderr) == (2, True)
    shared.write_config(configured(box, SQLITE))
    wait_until_known(shared, key)
    skipped = shared.events("managed_entry_skipped")
    assert {(line["kind"], line["name"]) for line in skipped} == {("tokens", "late")}


def test_keys_work_while_database_and_coordinator_are_away(
    box: WorkBox, postgres_server: PostgresServer
) -> None:
    """Also in workers that start meanwhile, after a restart of the whole gateway too."""
    url = postgres_server.new_database()
    with Gateway(configured(box, url), records=True) as gateway:
        wait_for_followers(gateway)
        token = create_key(gateway, "web", *OPERATOR)
        wait_until_known(gateway, token, FOLLOWED_S)
        postgres_server.kill()
        try:
            kill_coordinator(gateway)
            before = gateway.worker_pids()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(gateway.worker_pids() - before) == gateway.workers, 20)
            wait_until_known(gateway, token, 10)
            gateway.kill()
            gateway.start()
            assert status(gateway, token) == 200
            wait_until_known(gateway, token, 10)
        finally:
            postgres_server.start()
        other = create_key(gateway, "other", *OPERATOR)
        # The coordinator tries an absent database again within 10 seconds.
        wait_until_known(gateway, other, 15)
        assert status(gateway, token) == 200
    postgres_server.drop_database(url)


def test_no_token_is_kept_or_shown_anywhere(shared: Gateway, box: WorkBox) -> None:
    """Neither of two tokens is in a file of the installation, its database included, nor
    in a list of processes."""
    first = create_key(shared, "canary", *OPERATOR, "--note", "for the canary")
    wait_until_known(shared, first, FOLLOWED_S)
    assert status(shared, first) == 200
    assert shared.ask(f"/k/{first}/api/tags", token=None).status == 200
    shared.ask(CHAT.path, {"model": first, "messages": []}, token=first)
    second = change_key(shared, "rotate", "canary", "--json").split('"token": "')[1].split('"')[0]
    wait_until_known(shared, second, FOLLOWED_S)
    shared.ask(f"/api/{second}", token=second)
    processes = b"".join(
        read(path / name)
        for path in Path("/proc").glob("[0-9]*")
        for name in ("cmdline", "environ")
    )
    files = {path: read(path) for path in shared.directory.rglob("*")}
    assert any(
        path.name.startswith("records.db") and b"canary" in data for path, data in files.items()
    )
    assert any(path.name == "managed.json" and b"canary" in data for path, data in files.items())
    for token in (first.encode(), second.encode()):
        assert token not in processes
        assert [
            line for data in files.values() for line in data.splitlines() if token in line
        ] == []


def read(path: Path) -> bytes:
    """A file's content; nothing for what is none, or has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
