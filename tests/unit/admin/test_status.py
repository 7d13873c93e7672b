"""What the status says of boxes and problems; tests/integration/test_admin_api.py asks a
gateway that is busy."""

from __future__ import annotations

from pathlib import Path

from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import settings_from
from tests.rig.boxes import Box
from tests.rig.in_process import InProcess, in_process


def test_every_upstream_is_a_box_and_faults_are_problems() -> None:
    with Box("old", ["a"], version="0.32.14") as old:
        gone = {"name": "gone", "base_url": "http://127.0.0.1:1"}
        keyless = {"name": "keyless", "kind": "openai", "api_key_env": "NO_SUCH_KEY"}
        idle = {"name": "idle", "kind": "demo", "drain": True}
        with in_process(upstreams=[old.declared, gone, keyless, idle]) as app:
            app.app.extensions["ollama_proxy"]["health"].check()
            document = app.ask("GET", "/admin/api/status").json
    boxes = {box["name"]: box for box in document["boxes"]}
    assert boxes["old"] == {
        "name": "old",
        "up": True,
        "concurrency": None,
        "running": 0,
        "waiting": 0,
        "loaded": [],
    }
    assert (boxes["gone"]["up"], boxes.keys()) == (False, {"old", "gone", "idle"})
    assert [problem["what"].split(" ")[0] for problem in document["problems"]] == [
        "gone",
        "keyless",
        "old:",
    ]
    assert (document["waiting"], document["running"]) == ([], [])


def test_an_invalid_configuration_is_a_problem() -> None:
    app = create_app(
        settings_from(b"auth: {generate_tokens: [unit-token]}", Path("c.yaml"), {}),
        problem=lambda: "c:1",
    )
    [problem] = InProcess(app).ask("GET", "/admin/api/status").json["problems"]
    assert problem["what"].endswith("c:1") and problem["mend"]
    app.extensions["ollama_proxy"]["gateway"].fleet.close()
