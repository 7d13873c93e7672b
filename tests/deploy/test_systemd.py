"""The systemd units and the installer: what can be proven without a machine of one's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ollama_proxy.settings.schema import load_settings
from tests.rig.programs import require_program

PROJECT = Path(__file__).resolve().parents[2]
UNITS = PROJECT / "deploy" / "systemd"
SERVICE = UNITS / "ollama-proxy.service"
SOCKET = UNITS / "ollama-proxy.socket"
INSTALLER = PROJECT / "deploy" / "install.sh"


def values(unit: Path, name: str) -> list[str]:
    """Every value that a unit gives to a setting."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_exposure_of_the_service_is_at_most_2() -> None:
    done = run(
        require_program("systemd-analyze"),
        "security",
        "--offline=true",
        "--threshold=20",
        str(SERVICE),
    )
    assert done.returncode == 0, done.stdout


def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    analyze = require_program("systemd-analyze")
    shutil.copy(SOCKET, tmp_path)
    text = SERVICE.read_text(encoding="utf-8")
    gunicorn = "/opt/ollama-proxy/.venv/bin/gunicorn"
    assert gunicorn in text
    (tmp_path / SERVICE.name).write_text(text.replace(gunicorn, "/bin/true"), encoding="utf-8")
    done = run(analyze, "verify", str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name))
    assert "ollama-proxy" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_answers_in_progress_have_time_to_end() -> None:
    (graceful,) = [
        int(v.partition("=")[2]) for v in values(SERVICE, "Environment") if v.startswith("GRACEFUL")
    ]
    (conf,) = re.findall(
        r'"GRACEFUL_TIMEOUT", (\d+)', (PROJECT / "config/gunicorn.conf.py").read_text("utf-8")
    )
    assert values(SERVICE, "TimeoutStopSec") == [str(graceful + 30)]
    assert values(SERVICE, "KillMode") == ["mixed"]
    assert graceful == int(conf)


def test_service_starts_what_the_repository_has() -> None:
    (command,) = values(SERVICE, "ExecStart")
    (directory,) = values(SERVICE, "WorkingDirectory")
    program, *arguments = command.split()
    assert Path(program).relative_to(directory) == Path(".venv/bin/gunicorn")
    assert arguments == ["-c", "config/gunicorn.conf.py", "wsgi:app"]
    assert (PROJECT / arguments[1]).is_file()


def test_socket_listens_where_the_nginx_site_looks_for_it() -> None:
    site = (PROJECT / "deploy/nginx/ollama-proxy.conf").read_text(encoding="utf-8")
    assert values(SOCKET, "ListenStream")[-1:] == re.findall(
        r"^ {4}server (\S+);", site, re.MULTILINE
    )


def test_paths_of_the_unit_are_those_of_logrotate_and_installer() -> None:
    assert values(SERVICE, "LogsDirectory") == ["ollama-proxy"]
    assert "/var/log/ollama-proxy/*.log" in (PROJECT / "deploy/logrotate/ollama-proxy").read_text(
        encoding="utf-8"
    )
    assert "OLLAMA_PROXY_CONFIG=/etc/ollama-proxy/config.yaml" in values(SERVICE, "Environment")
    plan = run("sh", str(INSTALLER), "--dry-run").stdout
    assert "/etc/ollama-proxy/config.yaml" in plan
    assert (
        f"--shell /usr/sbin/nologin {values(SERVICE, 'User')[0]}" in plan
        or "user ollama-proxy is there" in plan
    )


# --- install.sh -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_installer_is_valid_shell(shell: str) -> None:
    done = run(require_program(shell), "-n", str(INSTALLER))
    assert (done.returncode, done.stderr) == (0, "")


def test_installer_has_no_shellcheck_finding() -> None:
    done = run(require_program("shellcheck"), str(INSTALLER))
    assert done.returncode == 0, done.stdout


def test_dry_run_only_prints() -> None:
    existed = Path("/opt/ollama-proxy").exists()
    done = run("sh", str(INSTALLER), "--dry-run", "--nginx", "--listen", "0.0.0.0:8080")
    *steps, last = done.stdout.splitlines()
    assert done.returncode == 0
    assert all(
        step.startswith("+ ") or step.endswith((" stays as it is", " is there")) for step in steps
    )
    assert "journalctl -u ollama-proxy" in last
    assert Path("/opt/ollama-proxy").exists() == existed


def test_every_file_that_the_installer_takes_is_there() -> None:
    plan = run("sh", str(INSTALLER), "--dry-run", "--nginx").stdout
    sources = set(re.findall(rf"(?<=\s){re.escape(str(PROJECT))}/\S+", plan))
    assert {Path(source).name for source in sources} >= {
        "ollama_proxy",
        "wsgi.py",
        "requirements.txt",
        "gunicorn.conf.py",
    }
    assert [source for source in sources if not Path(source).exists()] == []


def test_packages_are_installed_by_hash_and_as_wheels_only() -> None:
    plan = run("sh", str(INSTALLER), "--dry-run").stdout
    assert re.search(
        r"pip install .*--require-hashes --only-binary :all: -r \S+/requirements.txt", plan
    )


def test_nginx_and_another_address_only_when_asked_for() -> None:
    plain = run("sh", str(INSTALLER), "--dry-run").stdout
    assert "nginx -t" not in plain
    assert "listen.conf" not in plain
    full = run("sh", str(INSTALLER), "--dry-run", "--nginx", "--listen=0.0.0.0:80").stdout
    assert full.index("nginx -t") < full.index("systemctl reload-or-restart nginx")
    assert "write /etc/systemd/system/ollama-proxy.socket.d/listen.conf" in full


@pytest.mark.parametrize("arguments", [["--bogus"], ["--listen"], ["--listen", "8080"]])
def test_installer_names_a_wrong_argument(arguments: list[str]) -> None:
    done = run("sh", str(INSTALLER), "--dry-run", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("install.sh: ")
    assert done.stdout == ""


def test_installer_leaves_word_of_what_it_installs() -> None:
    plan = run("sh", str(INSTALLER), "--dry-run").stdout.splitlines()
    program = next(number for number, step in enumerate(plan) if "cp -R" in step)
    told = next(number for number, step in enumerate(plan) if "ollama_proxy/build.json" in step)
    assert program < told, "copying replaces the whole directory"


def test_installer_cleans_up_chat_logs() -> None:
    assert (
        "systemd/ollama-proxy.tmpfiles /etc/tmpfiles.d/ollama-proxy.conf"
        in run("sh", str(INSTALLER), "--dry-run").stdout
    )


def test_memory_of_the_service_is_limited_and_a_killed_worker_is_replaced() -> None:
    assert values(SERVICE, "MemoryMax") == ["2G"]
    assert values(SERVICE, "OOMPolicy") == ["continue"]


def test_installer_names_nginx_as_a_trusted_proxy_before_the_service_starts() -> None:
    drop_in = "/etc/systemd/system/ollama-proxy.service.d/nginx.conf"
    plan = run("sh", str(INSTALLER), "--dry-run", "--nginx").stdout
    assert plan.index(f"write {drop_in}") < plan.index("systemctl daemon-reload")
    assert drop_in not in run("sh", str(INSTALLER), "--dry-run").stdout


def test_proxy_that_the_installer_names_is_the_address_of_nginx() -> None:
    """nginx comes from the address that it connects to."""
    (variable,) = re.findall(
        r"Environment=(OLLAMA_PROXY__SERVER__TRUSTED_PROXIES=\S+?)\\n", INSTALLER.read_text("utf-8")
    )
    name, _, value = variable.partition("=")
    (host,) = {address.rpartition(":")[0] for address in values(SOCKET, "ListenStream")}
    settings = load_settings(PROJECT / "deploy" / "docker-config.yaml", {name: value})
    assert settings.server.trusted_proxies == (host,)
