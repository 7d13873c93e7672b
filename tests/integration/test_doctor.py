"""`ollama-proxy doctor` against a real gateway, a real nginx and servers that are broken on
purpose: as a process once, otherwise in the process of the test."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rig.authority import REFUSED, Authority
from tests.rig.command_line import run_cli, run_cli_here
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.nginx import Nginx
from tests.rig.plain_ollama import network_address, nobody, plain_ollama

TOKEN = "doctor-token-1"
FINE, WARNED, FAULTY, WRONG_USAGE = 0, 1, 2, 64
RECENT = {"version": {"version": "0.32.15"}}


def examine(
    gateway: Gateway | None,
    directory: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    in_process: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs it with the configuration and the state of a gateway, or of an empty directory."""
    environ = dict(env or {})
    if gateway is not None:
        environ |= {
            "OLLAMA_PROXY_CONFIG": str(gateway.config_path),
            "STATE_DIRECTORY": str(gateway.state_directory),
            "LOGS_DIRECTORY": str(gateway.logs_directory),
        }
    run = run_cli_here if in_process else run_cli
    return run("doctor", *arguments, env=environ, cwd=directory, stdin=stdin)


def examine_file(directory: Path, config: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Runs it with a configuration for which no gateway runs."""
    (directory / "config.yaml").write_text(json.dumps(config))
    arguments = ("--config", "config.yaml", "--json", "--token", TOKEN, "--silence", "0.1")
    return examine(None, directory, *arguments)


def find(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The findings that an operator has to act on."""
    assert done.stderr == ""
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return [each for each in found if each["level"] not in ("ok", "note")]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with plain_ollama(**RECENT) as port, Gateway(config_of(port), workers=1) as gateway:
        yield gateway


def config_of(port: int, **more: Any) -> dict[str, Any]:
    """A gateway on this machine alone, whose file contains only digests."""
    upstream = {"name": "box1", "base_url": f"http://127.0.0.1:{port}", **more}
    token = {"name": "team", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    server = {"trusted_proxies": ["127.0.0.1"]}
    return {"auth": {"generate_tokens": [token]}, "server": server, "upstreams": [upstream]}


def through(gateway: Gateway, nginx: Nginx, directory: Path, silence_s: str = "0.1") -> Any:
    """What it finds at the address of an nginx."""
    arguments = ("--url", nginx.url, "--token", "-", "--json", "--silence", silence_s)
    return examine(gateway, directory, *arguments, stdin=f"{TOKEN}\n")


def test_all_is_well_behind_the_shipped_site(gateway: Gateway, tmp_path: Path) -> None:
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}") as nginx:
        done = through(gateway, nginx, tmp_path)
    assert (find(done), done.returncode) == ([], FINE)
    assert TOKEN not in done.stdout


#: What is changed in the site, and a word of what is found.
SITES: dict[str, tuple[dict[str, str], str]] = {
    "buffering": (
        {
            "proxy_buffering off;": "proxy_buffering on;",
            # The chunks of HTTP/1.1 are passed on even then.
            "proxy_http_version 1.1;": "proxy_http_version 1.0;",
            "proxy_ignore_headers X-Accel-Redirect": "proxy_ignore_headers X-Accel-Buffering X-Accel-Redirect",
        },
        "arrive in one piece",
    ),
    "read timeout": (
        {"proxy_read_timeout 4260s;": "proxy_read_timeout 5s;"},
        "cut after 5 s of silence",
    ),
    "body limit": (
        {"client_max_body_size 64m;": "client_max_body_size 1m;"},
        "bodies of 64 MiB are refused",
    ),
    "HTTP/1.0": ({"proxy_http_version 1.1;": "proxy_http_version 1.0;"}, "HTTP/1.0"),
    "nobody says who the client is": (
        {"proxy_set_header X-Forwarded-For $remote_addr;": 'proxy_set_header X-Forwarded-For "";'},
        "does not say who the client is",
    ),
    "no header with the token": (
        {"proxy_set_header Host": 'proxy_set_header X-Api-Key "";\n    proxy_set_header Host'},
        "does not arrive as x-api-key",
    ),
    "a token for everybody": (
        {
            "proxy_set_header Host": f'proxy_set_header Authorization "Bearer {TOKEN}";\n    proxy_set_header Host'
        },
        "anyone can use the models",
    ),
    "not the gateway": (
        {"proxy_pass http://ollama_proxy;": "return 404;"},
        "something else answers",
    ),
}


@pytest.mark.parametrize("site", SITES)
def test_a_broken_site_is_found(gateway: Gateway, tmp_path: Path, site: str) -> None:
    changes, expected = SITES[site]
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}", changes) as nginx:
        done = through(gateway, nginx, tmp_path, "6.5" if site == "read timeout" else "0.1")
    matching = [each for each in find(done) if expected in each["what"]]
    assert len(matching) == 1, done.stdout
    assert matching[0]["mend"]


def test_a_proxy_that_is_not_trusted_is_found(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(plain_ollama(**RECENT))
        config = config_of(port) | {"server": {}}
        gateway = stack.enter_context(Gateway(config, workers=1))
        nginx = stack.enter_context(Nginx(tmp_path, f"127.0.0.1:{gateway.port}"))
        done = through(gateway, nginx, tmp_path)
    assert any("does not trust the proxy 127.0.0.1" in each["what"] for each in find(done)), (
        done.stdout
    )


def test_an_address_that_clients_choose_is_found(tmp_path: Path) -> None:
    """Seen from the network: this machine itself is a trusted proxy."""
    own = network_address()
    with plain_ollama(**RECENT) as port:
        config = config_of(port) | {"server": {"host": "0.0.0.0", "trusted_proxies": ["0.0.0.0/0"]}}
        with Gateway(config, workers=1, env={"HOST": "0.0.0.0"}) as gateway:
            url = f"http://{own}:{gateway.port}"
            done = examine(
                gateway, tmp_path, "--url", url, "--token", TOKEN, "--json", "--silence", "0.1"
            )
    assert any("claim any address" in each["what"] for each in find(done)), done.stdout


@pytest.mark.parametrize(
    ("certificate", "expected", "status"),
    [
        (
            {
                "names": "IP:127.0.0.1",
                "valid": {"not_after": datetime.now(UTC) + timedelta(days=3)},
            },
            "expires in 3",
            WARNED,
        ),
        (REFUSED["expired"], "clients refuse the certificate: certificate has expired", FAULTY),
        (REFUSED["another address"], "clients refuse the certificate", FAULTY),
    ],
    ids=["expires soon", "expired", "another name"],
)
def test_a_certificate_is_checked(
    gateway: Gateway, tmp_path: Path, certificate: dict[str, Any], expected: str, status: int
) -> None:
    authority = Authority(tmp_path)
    authority.server(**certificate)
    tls = (
        f"listen 80 ssl;\n    ssl_certificate {tmp_path}/server.crt;\n    ssl_certificate_key "
        f"{tmp_path}/server.key;\n#"
    )
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}", {"listen 80 default_server;": tls}) as nginx:
        url = nginx.url.replace("http:", "https:")
        arguments = ("--url", url, "--token", TOKEN, "--json", "--silence", "0.1")
        done = examine(
            gateway, tmp_path, *arguments, env={"SSL_CERT_FILE": str(authority.certificate)}
        )
    assert [each["part"] for each in find(done) if expected in each["what"]] == ["TLS"], done.stdout
    assert done.returncode == status


#: What a server answers, and a word of what is found.
BOXES: dict[str, tuple[dict[str, Any], str]] = {
    "old": ({"version": {"version": "0.12.0"}}, "known fault"),
    "not-ollama": ({"version": 404}, "it is not Ollama"),
    "small-context": (
        RECENT | {"ps": {"models": [{"name": "q:8b", "context_length": 4096}]}},
        "context of 4096 tokens",
    ),
}


def test_an_upstream_is_checked(tmp_path: Path) -> None:
    with ExitStack() as stack:
        config = config_of(0)
        config["upstreams"] = [
            {
                "name": name,
                "base_url": f"http://127.0.0.1:{stack.enter_context(plain_ollama(**pages))}",
            }
            for name, (pages, _) in BOXES.items()
        ]
        done = examine_file(tmp_path, config)
    found = {
        name: [each["part"] for each in find(done) if expected in each["what"]]
        for name, (_, expected) in BOXES.items()
    }
    assert found == {name: [f"upstream {name}"] for name in BOXES}, done.stdout


def test_an_upstream_that_is_away_or_open_to_others_is_found(tmp_path: Path) -> None:
    network_address()
    with nobody() as away, plain_ollama("0.0.0.0", **RECENT) as opened:
        config = config_of(opened)
        config["upstreams"].append({"name": "box2", "base_url": f"http://127.0.0.1:{away}"})
        done = examine_file(tmp_path, config)
    found = {each["part"]: each for each in find(done)}
    assert "no answer from" in found["upstream box2"]["what"]
    assert "OPEN at" in found["upstreams"]["what"]
    assert done.returncode == FAULTY


def test_slots_that_ollama_does_not_have_are_found(tmp_path: Path) -> None:
    program = (
        "from tests.rig.plain_ollama import plain_ollama\n"
        "with plain_ollama(version={'version': '0.32.15'}) as port:\n"
        "    print(port, flush=True)\n"
        "    input()\n"
    )
    servers: dict[str, dict[str, str]] = {
        "enough": {"OLLAMA_NUM_PARALLEL": "4"},
        "too-few": {"OLLAMA_NUM_PARALLEL": "2"},
        "unset": {},
    }
    config = config_of(0)
    config["upstreams"] = []
    with ExitStack() as stack:
        for name, parallel in servers.items():
            server = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)} | parallel,
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert server.stdout and server.stdin
            stack.callback(server.stdin.close)
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            config["upstreams"].append({"name": name, "base_url": url, "concurrency": 4})
        done = examine_file(tmp_path, config)
    found = {each["part"] for each in find(done) if "OLLAMA_NUM_PARALLEL" in each["what"]}
    assert found == {"upstream too-few", "upstream unset"}, done.stdout


def test_without_a_gateway_the_rest_is_checked(tmp_path: Path) -> None:
    with nobody() as port, plain_ollama(**RECENT) as box:
        (tmp_path / "config.yaml").write_text(
            f"server: {{port: {port}}}\nservice: {{base_url: 'http://127.0.0.1:{box}'}}\n"
        )
        done = examine(None, tmp_path, "--config", "config.yaml", "--json")
    assert [(each["level"], each["part"]) for each in find(done)] == [("fault", "address")]
    assert done.returncode == FAULTY


def test_an_invalid_configuration_is_a_fault_and_the_rest_is_checked(
    gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text("server: {prot: 1}\n")
    done = examine(
        None,
        tmp_path,
        "--config",
        "broken.yaml",
        "--url",
        gateway.url,
        "--json",
        "--silence",
        "0.1",
    )
    assert ("fault", "configuration") in [(each["level"], each["part"]) for each in find(done)]
    assert "token" in done.stdout


def test_people_get_lines_and_wrong_usage_has_a_status_of_its_own(
    gateway: Gateway, tmp_path: Path
) -> None:
    arguments = ("--token", TOKEN, "--silence", "0.1")
    done = examine(gateway, tmp_path, *arguments, in_process=False)
    assert "fix:" in done.stdout
    assert examine(None, tmp_path, "--url", "nonsense").returncode == WRONG_USAGE
    assert examine(None, tmp_path, "--silence", "1000").returncode == WRONG_USAGE
    assert (
        examine(gateway, tmp_path, "--token", "wrong-token", "--silence", "0.1").returncode
        == FAULTY
    )
