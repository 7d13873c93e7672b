"""Commands that use the records of a running gateway: tokens of another one are imported,
used and accounted for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import FACES, TOKEN
from tests.rig.command_line import run_cli
from tests.rig.deadline import wait_until
from tests.rig.local import LocalGateway
from tests.unit.records.test_foreign_tokens import KEY, write_one_api

CHAT = FACES["openai chat"]


def test_imported_tokens_are_accepted_and_their_usage_is_reported(
    records_url: str, tmp_path: Path
) -> None:
    write_one_api(tmp_path / "one-api.db", "one-api", {"name": "moved", "models": "m"})
    with WorkBox("box1", ["m", "other"], slots=4) as box:
        config = fleet_config(TOKEN, [box], records={"url": records_url})
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        with LocalGateway(config, records=True) as gateway:
            token = f"sk-{KEY}"

            def run(*arguments: str) -> subprocess.CompletedProcess[str]:
                environ = {
                    "OLLAMA_PROXY_CONFIG": str(tmp_path / "config.yaml"),
                    "STATE_DIRECTORY": str(gateway.state_directory),
                }
                return run_cli(*arguments, env=environ)

            def ask(model: str) -> int:
                body = {**CHAT.body, "model": model, "stream": False}
                return gateway.ask(CHAT.path, body, token=token).status

            def is_recorded() -> bool:
                rows = gateway.ask("/admin/api/me/usage", token=token).json()["rows"]
                return sum(row["requests"] for row in rows if row["model"] == "m") == 2

            assert gateway.ask("/api/tags", token=token).status == 401
            done = run("import", str(tmp_path / "one-api.db"), "--apply")
            assert done.stdout.splitlines()[-1] == "1 created, 0 disabled, 0 skipped", done.stderr
            wait_until(lambda: gateway.ask("/api/tags", token=token).status == 200)
            assert [ask("m"), ask("m")] == [200, 200] and ask("other") in (403, 404)
            wait_until(is_recorded)
            done = run("usage", "--by", "token,model", "--token", "moved", "--json")
            assert done.returncode == 0, done.stderr
            rows = json.loads(done.stdout)["rows"]
            assert {row["model"]: row["requests"] for row in rows}["m"] == 2
            assert KEY not in done.stdout
            for directory in (gateway.state_directory, gateway.logs_directory):
                for path in directory.rglob("*"):
                    assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
