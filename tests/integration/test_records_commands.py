"""Commands that use the records of a running gateway: tokens of another one are imported,
used and accounted for."""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import FACES, TOKEN
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.keys import run_command, wait_for_records
from tests.rig.workers import ask_each_worker
from tests.unit.records.test_foreign_tokens import KEY, write_one_api

CHAT = FACES["openai chat"]


def test_imported_tokens_are_accepted_and_their_usage_is_reported(
    records_url: str, tmp_path: Path
) -> None:
    write_one_api(tmp_path / "one-api.db", "one-api", {"name": "moved", "models": "m"})
    with WorkBox("box1", ["m", "other"], slots=4) as box:
        box.go.set()
        config = fleet_config(TOKEN, [box], records={"url": records_url})
        with Gateway(config, records=True) as gateway:
            wait_for_records(gateway)
            assert gateway.ask("/api/tags", token=f"sk-{KEY}").status == 401
            done = run_command(gateway, "import", str(tmp_path / "one-api.db"), "--apply")
            assert done.stdout.splitlines()[-1] == "1 created, 0 disabled, 0 skipped", done.stderr
            # test_keys.py has the promise of two seconds.
            wait_until(
                lambda: (
                    {
                        answer.status
                        for answer in ask_each_worker(
                            gateway, "/api/tags", token=f"sk-{KEY}"
                        ).values()
                    }
                    == {200}
                ),
                10,
                "a worker does not know the token",
            )
            statuses = [
                gateway.ask(
                    CHAT.path, {**CHAT.body, "model": model, "stream": False}, token=f"sk-{KEY}"
                ).status
                for model in ("m", "m", "other")
            ]
            assert (statuses[:2], statuses[2] in (403, 404)) == ([200, 200], True)

            def read_usage() -> dict[str, int]:
                done = run_command(
                    gateway, "usage", "--by", "token,model", "--token", "moved", "--json"
                )
                assert done.returncode == 0, done.stderr
                return {row["model"]: row["requests"] for row in json.loads(done.stdout)["rows"]}

            wait_until(
                lambda: read_usage().get("m") == 2, 20, lambda: f"the report has {read_usage()}"
            )
            assert KEY not in gateway.output() + done.stdout
            assert KEY.encode() not in b"".join(
                path.read_bytes() for path in gateway.state_directory.rglob("*") if path.is_file()
            )
