"""The command line, as people and scripts call it: real processes, real exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ollama_proxy.cli import commands
from ollama_proxy.cli.exposure import Probe
from ollama_proxy.settings.schema import Settings, load_settings
from ollama_proxy.settings.state_dir import FirstToken, is_own_token, new_token
from tests.rig import plain_ollama as rig
from tests.rig.command_line import run_cli
from tests.rig.deadline import wait_until
from tests.rig.tables import each_row

ROOT = Path(commands.__file__).resolve().parents[2]
TOKENS = "auth:\n  generate_tokens: [CANARY-1, {name: web, token: CANARY-2}]\n"


def ollama_proxy(
    *arguments: str, cwd: Path, environ: dict[str, str] | None = None, stdin: str = ""
):
    """Run `ollama-proxy` as a process of its own, with a clean environment."""
    return run_cli(*arguments, env=environ or {}, cwd=cwd, stdin=stdin)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(TOKENS)
    (tmp_path / "config" / "config.yaml").chmod(0o644)
    return tmp_path


def test_check_says_ok_and_lists_the_warnings(here: Path) -> None:
    done = ollama_proxy("config", "check", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    first, *warnings = done.stdout.splitlines()
    assert first == "OK: config/config.yaml"
    assert len(warnings) == 2
    assert all(line.startswith("warning: config/config.yaml: ") for line in warnings)
    assert "CANARY" not in done.stdout


def test_check_warns_of_servers_with_known_faults(here: Path) -> None:
    with (
        rig.plain_ollama() as old,
        rig.plain_ollama(version={"version": "0.32.15"}) as new,
        rig.nobody() as gone,
    ):
        upstreams = "".join(
            f'  - {{name: {name}, kind: ollama, base_url: "http://127.0.0.1:{port}"}}\n'
            for name, port in (("old", old), ("new", new), ("gone", gone))
        )
        (here / "config" / "config.yaml").write_text(f"upstreams:\n{upstreams}")
        done = ollama_proxy("config", "check", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    [warning] = done.stdout.splitlines()[1:]
    assert warning.startswith(
        f"warning: old (http://127.0.0.1:{old}): Ollama 0.12.0 has a known fault: "
    )
    assert warning.endswith("; upgrade to Ollama 0.32.15 or later")


def test_check_lists_every_complaint_and_fails(here: Path) -> None:
    (here / "config" / "config.yaml").write_text(
        "servce: {base_url: x}\nauth: {generate_tokens: [123]}\n"
    )
    done = ollama_proxy("config", "check", cwd=here, environ={"PORT": "x"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'config/config.yaml:1: unknown setting "servce.base_url", did you mean "service.base_url"?',
        "config/config.yaml:2: auth.generate_tokens[1] must be text: put quotes around it",
        (
            "environment variable PORT: server.port must be a whole number from 0 to "
            "65535, without quotes"
        ),
    ]


def test_check_without_a_file_says_that_there_is_none(tmp_path: Path) -> None:
    done = ollama_proxy("config", "check", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("OK: there is no config/config.yaml")


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_the_file_can_be_chosen_in_three_ways(here: Path, place: str) -> None:
    (here / "other.yaml").write_text("server: {port: 1}\n")
    command = {
        "before": ("--config", "other.yaml", "config", "check"),
        "after": ("config", "check", "--config", "other.yaml"),
        "environment": ("config", "check"),
    }[place]
    environ = {"OLLAMA_PROXY_CONFIG": "other.yaml"} if place == "environment" else {}
    assert ollama_proxy(*command, cwd=here, environ=environ).stdout == "OK: other.yaml\n"


def test_a_chosen_file_must_exist(here: Path) -> None:
    done = ollama_proxy("--config", "gone.yaml", "config", "check", cwd=here)
    assert (done.returncode, done.stderr) == (
        2,
        "gone.yaml: cannot be read: No such file or directory\n",
    )


def test_show_prints_what_is_in_effect_without_secrets(here: Path) -> None:
    done = ollama_proxy("config", "show", cwd=here, environ={"PORT": "9000"})
    shown = yaml.safe_load(done.stdout)
    assert shown["server"]["port"] == 9000
    assert [token["name"] for token in shown["auth"]["generate_tokens"]] == ["token-1", "web"]
    assert {token["sha256"] for token in shown["auth"]["generate_tokens"]} == {"********"}
    assert "# server.port: environment variable PORT" in done.stdout
    assert "# auth.generate_tokens: config/config.yaml:2" in done.stdout
    assert "CANARY" not in done.stdout
    assert hashlib.sha256(b"CANARY-1").hexdigest() not in done.stdout


def test_show_prints_what_tokens_may_use_and_no_password(here: Path) -> None:
    environ = {
        "OLLAMA_PROXY__STATE__URL": "redis://u:CANARY-3@redis1/0",
        "OLLAMA_PROXY__AUTH__GENERATE_TOKENS": "[{token: CANARY-4, weight: 2, limits: {concurrent: 3}}]",
    }
    done = ollama_proxy("config", "show", cwd=here, environ=environ)
    shown = yaml.safe_load(done.stdout)
    assert shown["state"] == {"url": "redis://********@redis1/0"}
    (token,) = shown["auth"]["generate_tokens"]
    assert (token["weight"], token["limits"], token["users"]["header"]) == (
        2,
        {"concurrent": 3},
        None,
    )
    assert shown["auth"]["defaults"] == {"weight": 1, "priority": "normal", "limits": {}}
    assert "CANARY" not in done.stdout + done.stderr


def test_the_shipped_file_is_the_documentation(tmp_path: Path) -> None:
    done = ollama_proxy("settings", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == (ROOT / "config" / "config.yaml").read_text("utf-8")


def test_a_new_token_comes_with_its_line_for_the_configuration(tmp_path: Path) -> None:
    done = ollama_proxy("token", "new", "--name", "web-team", cwd=tmp_path)
    first, _, line = done.stdout.splitlines()
    token = first.removeprefix("token: ")
    assert is_own_token(token)
    (tmp_path / "c.yaml").write_text(f"auth:\n  generate_tokens:\n{line}\n")
    (entry,) = load_settings(tmp_path / "c.yaml", {}).auth.generate_tokens
    assert (entry.name, entry.digest) == ("web-team", hashlib.sha256(token.encode()).digest())


def test_a_token_is_hashed_from_standard_input(tmp_path: Path) -> None:
    done = ollama_proxy("token", "hash", "--name", "a", cwd=tmp_path, stdin="team-token-1\n")
    assert yaml.safe_load(done.stdout) == [
        {"name": "a", "sha256": hashlib.sha256(b"team-token-1").hexdigest()}
    ]


def modules_loaded_by(program: str, *arguments: str) -> set[str]:
    """The modules that a program in a process of its own has loaded at its end."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; {program}; print(*sys.modules, file=sys.stderr)",
            *arguments,
        ],
        cwd=ROOT,
        input="team-token-1\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


@each_row("command", ["token hash", "token new", "settings", "config show", "config check"])
def test_small_commands_load_neither_the_server_nor_a_client(command: str) -> None:
    # Each of these takes longer to load than the command takes to run.
    heavy = {
        "flask",
        "gevent",
        "gunicorn",
        "marshmallow",
        "requests",
        "http.client",
        "ssl",
        "ollama_proxy.hub",
    }
    if command == "config check":
        heavy -= {"http.client", "ssl"}  # it asks the servers, of which none answers here
    program = "from ollama_proxy.cli import main; main(sys.argv[1:])"
    assert not modules_loaded_by(program, *command.split()) & heavy


@pytest.mark.parametrize(
    "module",
    [
        "ollama_proxy.cli.records",
        "ollama_proxy.coordination.service",
        "ollama_proxy.records.service",
    ],
)
def test_neither_the_coordinator_nor_the_commands_for_the_records_load_the_gateway(
    module: str,
) -> None:
    heavy = {
        "flask",
        "werkzeug",
        "requests",
        "marshmallow",
        "ollama_proxy.gateway",
        "ollama_proxy.upstreams",
    }
    assert not modules_loaded_by(f"import {module}") & heavy


def test_the_package_itself_loads_nothing_of_what_is_in_it() -> None:
    loaded = modules_loaded_by("import ollama_proxy")
    assert {name for name in loaded if name.startswith("ollama_proxy")} == {"ollama_proxy"}


@pytest.mark.parametrize(("stdin", "name"), [("", "a"), ("CANARY x\n", "a"), ("CANARY\n", "a b")])
def test_what_would_not_be_a_token_or_a_name_is_refused(
    tmp_path: Path, stdin: str, name: str
) -> None:
    done = ollama_proxy("token", "hash", "--name", name, cwd=tmp_path, stdin=stdin)
    assert done.returncode == 2
    assert "CANARY" not in done.stderr


def test_version_is_printed(tmp_path: Path) -> None:
    done = ollama_proxy("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "ollama-proxy")


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("config",), ("token", "steal")])
def test_a_wrong_command_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert ollama_proxy(*arguments, cwd=tmp_path).returncode == 2


@pytest.fixture
def ollama() -> Iterator[str]:
    with rig.plain_ollama() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def nobody() -> Iterator[str]:
    with rig.nobody() as port:
        yield f"http://127.0.0.1:{port}"


def first(created: bool) -> FirstToken:
    return FirstToken("op_CANARY", Path("/srv/my gateway/state/first-token"), created)


def banner(settings: Settings, token: FirstToken | None, probe: Probe | None) -> str:
    return "\n".join(commands.banner(settings, token, probe))


def test_the_token_is_shown_only_when_it_was_just_made() -> None:
    assert "op_CANARY" in banner(Settings(), first(created=True), Probe("", "m"))
    later = banner(Settings(), first(created=False), Probe("", "m"))
    assert "op_CANARY" not in later
    assert "$(cat '/srv/my gateway/state/first-token')" in later


def test_the_demo_is_announced_with_its_reason() -> None:
    text = banner(Settings(), first(created=True), Probe("no answer there (Connection refused)"))
    (line,) = [line for line in text.splitlines() if line.startswith("DEMO")]
    assert "http://localhost:11434" in line
    assert "Connection refused" in line
    assert '"model": "demo"' in text


def test_the_curl_line_asks_the_first_model_and_survives_its_name() -> None:
    command = commands.banner(Settings(), first(created=True), Probe("", "it's:8b"))[-1]
    words = shlex.split(command)
    assert json.loads(words[-1])["model"] == "it's:8b"
    assert "Authorization: Bearer op_CANARY" in words


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOST": "127.0.0.1", "OLLAMA_PROXY__AUTH__ENABLED": "false"}, "No token is required"),
        ({"OLLAMA_PROXY__AUTH__GENERATE_TOKENS": "[CANARY]"}, "Bearer $TOKEN"),
        (
            {"OLLAMA_PROXY__AUTH__GENERATE_TOKENS": "[]"},
            "Every call is refused, because the list of tokens is empty",
        ),
        (
            {"OLLAMA_PROXY__AUTH__MANAGE_TOKENS": "[]"},
            "Every call is refused, because the list of tokens is empty",
        ),
        ({"OLLAMA_BASE_URL": "demo:"}, "as configured"),
        ({"OLLAMA_PROXY__UPSTREAMS": "[{name: box1}]"}, "Upstreams: box1 (http://localhost:11434)"),
        ({"HOST": "::1", "PORT": "81"}, "http://[::1]:81"),
        ({"HOST": "0.0.0.0", "PORT": "81"}, "http://localhost:81"),
    ],
)
def test_the_banner_says_what_is_in_effect(
    tmp_path: Path, monkeypatch, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = banner(load_settings(environ=environ), None, None)
    assert expected in text
    assert "CANARY" not in text


WSGI = """
import json, os
from pathlib import Path
from ollama_proxy.settings.schema import effective_upstreams, load_settings
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    (upstream,) = effective_upstreams(load_settings())
    return [json.dumps([upstream.kind, str(Path.cwd()), os.getpid()]).encode()]
"""
GUNICORN = """
from ollama_proxy.settings.schema import load_settings
bind, workers, accesslog, control_socket_disable = "127.0.0.1:0", 1, None, True
def when_ready(server):
    print("listening", *(listener.getsockname()[1] for listener in server.LISTENERS), flush=True)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the product with a server that answers what it was started with."""
    root = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "ollama_proxy", root / "ollama_proxy", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "config").mkdir()
    (root / "wsgi.py").write_text(WSGI)
    (root / "config" / "gunicorn.conf.py").write_text(GUNICORN)
    return root


class Started:
    """`ollama-proxy run` until the test is over."""

    def __init__(self, checkout: Path, cwd: Path, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ollama_proxy.cli", "run"],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(checkout), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.banner: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening"):
                self.port = int(line.split()[1])
                return
            self.banner.append(line)
        pytest.fail(f"ended before it listened: {self.banner}")

    def answer(self) -> list[str]:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/")
        try:
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def stop(self) -> None:
        # A worker that has just been forked does not know the signal yet, and gunicorn
        # would wait 30 s for it.
        self.answer()
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.mark.slow
def test_run_starts_with_the_demo_when_nothing_answers_and_shows_the_token_once(
    checkout: Path, nobody: str
) -> None:
    shown = []
    for _ in range(2):
        started = Started(checkout, checkout, OLLAMA_BASE_URL=nobody)
        try:
            assert started.answer()[:2] == ["demo", str(checkout)]
        finally:
            started.stop()
        shown.append("".join(started.banner))
    token = (checkout / "state" / "first-token").read_text().strip()
    assert token in shown[0]
    assert token not in shown[1]
    assert all(
        f"DEMO: the built-in demo model answers instead of {nobody}" in text for text in shown
    )


@pytest.mark.slow
def test_run_uses_ollama_and_the_configuration_of_the_directory_it_was_called_in(
    checkout: Path, here: Path, ollama: str
) -> None:
    (here / "config" / "config.yaml").write_text(f"{TOKENS}service: {{base_url: '{ollama}'}}\n")
    started = Started(checkout, here)
    try:
        assert started.answer() == ["ollama", str(checkout), started.answer()[2]]
    finally:
        started.stop()
    assert f"Ollama at {ollama}\n" in started.banner
    assert "CANARY" not in "".join(started.banner)


@pytest.mark.slow
def test_run_called_elsewhere_without_a_configuration_keeps_its_state_with_the_product(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    started = Started(checkout, tmp_path / "elsewhere", OLLAMA_BASE_URL="demo:")
    started.stop()
    assert (checkout / "state" / "first-token").read_text() in "".join(started.banner).replace(
        " ", ""
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.slow
def test_run_names_a_port_that_is_taken_before_gunicorn_tries_it(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        environ = {"OLLAMA_BASE_URL": "demo:", "HOST": "127.0.0.1", "PORT": str(port)}
        started = Started(checkout, checkout, **environ)  # here gunicorn listens elsewhere
        started.stop()
    assert started.banner[0] == (
        f"warning: 127.0.0.1:{port}: Address already in use; stop the other program, "
        "or set another PORT\n"
    )


def test_run_with_a_broken_configuration_ends_at_once_and_starts_nothing(checkout: Path) -> None:
    (checkout / "config" / "config.yaml").write_text("auth: {generate_tokens: [123]}\n")
    done = ollama_proxy("run", cwd=checkout, environ={"PYTHONPATH": str(checkout)})
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "config/config.yaml:1: auth.generate_tokens[1] must be text: put quotes around it\n"
    )
    assert not (checkout / "state").exists()


def test_run_outside_a_checkout_says_so(checkout: Path) -> None:
    (checkout / "wsgi.py").unlink()
    done = ollama_proxy("run", cwd=checkout, environ={"PYTHONPATH": str(checkout)})
    assert (done.returncode, "there is no wsgi.py here" in done.stderr) == (2, True)


def test_run_names_state_that_cannot_be_kept(checkout: Path) -> None:
    (checkout / "state").write_text("")
    done = ollama_proxy(
        "run", cwd=checkout, environ={"PYTHONPATH": str(checkout), "OLLAMA_BASE_URL": "demo:"}
    )
    assert done.returncode == 2
    assert f"{checkout}/state: cannot be used for the gateway's state" in done.stderr
    assert new_token() not in done.stderr


def test_a_coordinator_starts_with_the_last_valid_configuration_as_workers_do(
    tmp_path: Path,
) -> None:
    broken, state = tmp_path / "broken.yaml", tmp_path / "state"
    state.mkdir(mode=0o700)
    broken.write_text("server: {prot: 1}\n")
    environ = {**os.environ, "OLLAMA_PROXY_CONFIG": str(broken), "STATE_DIRECTORY": str(state)}
    command = [sys.executable, "-m", "ollama_proxy.cli", "coordinator"]
    assert subprocess.run(command, env=environ, capture_output=True, timeout=30).returncode != 0
    (state / "last-good.yaml").write_text("records: {url: null}\n")
    with subprocess.Popen(command, env=environ) as process:
        try:
            wait_until((state / "coordinator.sock").exists, 20, "it does not serve")
        finally:
            process.kill()
