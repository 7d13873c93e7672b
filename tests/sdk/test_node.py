"""The official JavaScript clients against real gunicorn: one run per client, one test per
feature that it declares."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.golden.face import TOKEN
from tests.rig.gateway import Gateway
from tests.rig.programs import require_program
from tests.sdk.scripted_models import ScriptedModels

NODE = Path(__file__).parents[1] / "node"
CLIENTS = sorted(
    path.stem for path in NODE.glob("*.mjs") if path.stem not in ("features", "samples")
)
RUN_S = 120

_DECLARED = re.compile(r'^feature\("([a-z]+)", "([a-z0-9_]+)", "([^"\n]+)", async ', re.MULTILINE)

Rows = dict[str, dict[str, Any]]


def declared(client: str) -> list[str]:
    """The features of a client, as its file has them."""
    text = (NODE / f"{client}.mjs").read_text(encoding="utf-8")
    return [f"{dialect}/{name}" for dialect, name, _ in _DECLARED.findall(text)]


FEATURES = [
    pytest.param(client, feature, id=f"{client}-{feature}")
    for client in CLIENTS
    for feature in declared(client)
]


def node(client: str, *arguments: str, **environment: str) -> tuple[Rows, str]:
    """What a client's file prints, by feature, and what it complains of."""
    program = require_program("node")
    if not (NODE / "node_modules").is_dir():
        reason = "tests/node/node_modules is missing: run `npm ci` in tests/node"
        pytest.fail(reason) if os.environ.get("CI", "").lower() == "true" else pytest.skip(reason)
    ours = {
        name: value
        for name, value in os.environ.items()
        if not re.fullmatch(r".*_API_KEY|.*_proxy", name, re.I)
    }
    run = subprocess.run(
        [program, f"{client}.mjs", *arguments],
        cwd=NODE,
        env=ours | environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    # not splitlines(): a text may hold other line ends
    rows = [json.loads(line) for line in run.stdout.split("\n") if line]
    return {row["feature"]: row for row in rows}, run.stderr


@pytest.fixture(scope="module")
def outcomes(
    shared_upstream: ScriptedModels, shared_gateway: Gateway, demo_gateway: Gateway
) -> Callable[[str], tuple[Rows, str]]:
    """``outcomes(client)`` runs all features of a client, once."""
    places = {
        "DEMO_URL": demo_gateway.url,
        "GATEWAY_URL": shared_gateway.url,
        "UPSTREAM_URL": shared_upstream.url,
        "GATEWAY_TOKEN": TOKEN,
    }

    @cache
    def run(client: str) -> tuple[Rows, str]:
        shared_upstream.clear()
        return node(client, "all", **places)

    return run


@pytest.mark.parametrize("client", CLIENTS)
def test_every_feature_is_declared_where_the_tests_look_for_it(
    client: str, outcomes: Callable[[str], tuple[Rows, str]]
) -> None:
    rows, complaints = outcomes(client)
    assert sorted(rows) == sorted(declared(client)) != [], complaints


@pytest.mark.parametrize(("client", "feature"), FEATURES)
def test_node(client: str, feature: str, outcomes: Callable[[str], tuple[Rows, str]]) -> None:
    rows, complaints = outcomes(client)
    assert feature in rows, f"nothing was reported; {complaints}"
    assert rows[feature]["ok"], rows[feature]["error"]
