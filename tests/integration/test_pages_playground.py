"""What Connect and the playground show, outside of the gateway: programs that run, and the address
of a proxy. The pages themselves are in tests/app/test_pages_playground.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.gateway import Gateway
from tests.rig.nginx import Nginx
from tests.rig.pages import PageClient
from tests.rig.programs import require_program

MEMBER = "member-token-1"
NODE = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway with the demo model."""
    config = {"auth": {"generate_tokens": [MEMBER]}, "service": {"base_url": "demo:"}}
    with Gateway(config, workers=1) as running:
        yield running


def test_connect_has_the_address_of_a_proxy(gateway: Gateway, tmp_path: Path) -> None:
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}") as nginx:
        browser = PageClient(nginx.url)
        browser.get("/admin")
        assert browser.sign_in(MEMBER).status == 303
        page = browser.get("/admin/connect").text
        assert f"{nginx.url}/v1" in page
        assert gateway.url not in page


@pytest.fixture(scope="module")
def samples(gateway: Gateway) -> dict[str, dict[str, str]]:
    """The programs by API and language; the gateway's address is in them."""
    command = [require_program("node"), NODE / "playground/write_samples.mjs", gateway.url]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
@pytest.mark.parametrize(
    "dialect",
    ["ollama-chat", "ollama-generate", "openai-chat", "openai-responses", "anthropic-messages"],
)
def test_the_same_call_runs_as_a_program(
    dialect: str, language: str, samples: dict[str, dict[str, str]]
) -> None:
    if language == "javascript" and not (NODE / "node_modules").is_dir():
        pytest.skip("tests/node/node_modules is missing: run `npm ci` in tests/node")
    text = samples[dialect][language]
    # as a module in the directory that has the packages, but not as a file there
    javascript = [require_program("node"), "--input-type=module", "--eval", text]
    commands = {
        "curl": ["sh", "-ec", text],
        "python": [sys.executable, "-c", text],
        "javascript": javascript,
    }
    environment = {"PATH": os.environ["PATH"], "TOKEN": MEMBER, "LANG": "C.UTF-8"}
    run = subprocess.run(
        commands[language],
        cwd=NODE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(run.stdout) > 10
    assert not re.search(r'"error": ?[{"]', run.stdout), run.stdout
