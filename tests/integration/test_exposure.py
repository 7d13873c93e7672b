"""`ollama-proxy check-exposure` as an operator, or a timer, calls it: its words and
its exit status. It is a process where the configuration is checked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rig.command_line import run_cli, run_cli_here
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.plain_ollama import network_address, nobody, plain_ollama

CLOSED, OPEN, WRONG_USE, UNKNOWN, UNCHECKED = 0, 1, 2, 3, 78


def check(
    directory: Path, *arguments: str, config: str | None = None, in_process: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs it in a directory of its own, where the configuration is `c.yaml`."""
    if config is not None:
        (directory / "c.yaml").write_text(config)
    environ = {"OLLAMA_PROXY_CONFIG": "c.yaml"}
    run = run_cli_here if in_process else run_cli
    return run("check-exposure", *arguments, env=environ, cwd=directory)


@pytest.fixture
def own() -> str:
    """An address by which others reach this machine."""
    return network_address()


@pytest.mark.parametrize(
    ("address", "status", "word"), [("127.0.0.1", CLOSED, "closed"), ("0.0.0.0", OPEN, "OPEN at")]
)
def test_configured_ollama_is_checked(
    tmp_path: Path, own: str, address: str, status: int, word: str
) -> None:
    with plain_ollama(address) as port:
        config = f"service: {{base_url: 'http://localhost:{port}'}}\n"
        done = check(tmp_path, config=config, in_process=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith(f"ollama (http://localhost:{port}): {word}")


def test_one_open_door_among_closed_ones_counts(tmp_path: Path, own: str) -> None:
    with plain_ollama("0.0.0.0") as opened, plain_ollama() as closed:
        boxes = [
            f"  - {{name: box{n}, base_url: 'http://127.0.0.1:{port}'}}\n"
            for n, port in enumerate((opened, closed))
        ]
        done = check(tmp_path, config="upstreams:\n" + "".join(boxes))
    assert (done.returncode, len(done.stdout.splitlines())) == (OPEN, 2)


def test_addresses_are_checked_without_a_configuration(tmp_path: Path, own: str) -> None:
    with plain_ollama("0.0.0.0") as opened, plain_ollama() as closed:
        assert check(tmp_path, f"http://127.0.0.1:{opened}").returncode == OPEN
        assert check(tmp_path, f"{own}:{opened}").returncode == OPEN
        assert check(tmp_path, f"127.0.0.1:{closed}").returncode == CLOSED
        both = check(tmp_path, f"127.0.0.1:{closed}", f"127.0.0.1:{opened}")
    assert (both.returncode, both.stdout.count("\n"), both.stderr) == (OPEN, 2, "")


def test_gateway_is_no_open_door(tmp_path: Path, own: str, upstream: FaultUpstream) -> None:
    config = {
        "auth": {"generate_tokens": ["sk-team-token-1"]},
        "service": {"base_url": upstream.url},
    }
    with Gateway(config, workers=1, env={"HOST": "0.0.0.0"}) as running:
        done = check(tmp_path, f"http://127.0.0.1:{running.port}", f"http://{own}:{running.port}")
    assert done.returncode == CLOSED
    assert done.stdout.count("closed, it requires a token") == 2


def test_gateway_without_tokens_is_one(tmp_path: Path, own: str, upstream: FaultUpstream) -> None:
    config = {
        "auth": {"enabled": False, "allow_open_network": True},
        "service": {"base_url": upstream.url},
    }
    with Gateway(config, workers=1, env={"HOST": "0.0.0.0"}) as running:
        assert check(tmp_path, f"127.0.0.1:{running.port}").returncode == OPEN


def test_silence_is_no_clean_bill(tmp_path: Path) -> None:
    with nobody() as port:
        of_configuration = check(
            tmp_path, config=f"service: {{base_url: 'http://127.0.0.1:{port}'}}\n"
        )
        of_address = check(
            tmp_path, f"http://127.0.0.1:{port}", "http://no-such-host.invalid:11434"
        )
    assert (of_configuration.returncode, of_address.returncode) == (UNKNOWN, UNKNOWN)
    assert (
        of_configuration.stdout.count("no answer ("),
        of_address.stdout.count("no answer ("),
    ) == (1, 2)


def test_one_silent_server_among_closed_ones_is_told_and_an_open_one_goes_before(
    tmp_path: Path, own: str
) -> None:
    with nobody() as silent, plain_ollama() as closed, plain_ollama("0.0.0.0") as opened:
        assert check(tmp_path, f"127.0.0.1:{closed}", f"127.0.0.1:{silent}").returncode == UNKNOWN
        for order in ((opened, silent), (silent, opened)):
            assert check(tmp_path, *(f"127.0.0.1:{port}" for port in order)).returncode == OPEN


def test_something_else_in_the_place_of_ollama_is_no_clean_bill(tmp_path: Path) -> None:
    with plain_ollama(version=b"<html>") as port:
        assert (
            check(tmp_path, config=f"service: {{base_url: 'http://127.0.0.1:{port}'}}\n").returncode
            == UNKNOWN
        )


def test_help_explains_the_exit_statuses(tmp_path: Path) -> None:
    told = " ".join(check(tmp_path, "--help").stdout.split())
    assert (
        "Exit status: 0 if no server is open, 1 if one is, 3 if none is but one did not answer"
        in told
    )


@pytest.mark.parametrize(
    "config", [None, "upstreams: [", "servce: {}"], ids=["missing", "no YAML", "unknown"]
)
def test_broken_configuration_is_no_clean_bill(tmp_path: Path, config: str | None) -> None:
    done = check(tmp_path, config=config)
    assert (done.returncode, done.stdout) == (UNCHECKED, "")
    assert done.stderr.startswith("c.yaml:")


def test_what_is_no_ownis_wrong_use(tmp_path: Path) -> None:
    done = check(tmp_path, "ftp://box1")
    assert (done.returncode, done.stdout) == (WRONG_USE, "")
    assert "ftp://box1: the address must be http://host" in done.stderr
