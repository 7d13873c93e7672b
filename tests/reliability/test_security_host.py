"""What surrounds the gateway on its machine: who may read its files, what is
installed, and what listens."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT, child_pids
from tests.rig.keys import run_command
from tests.rig.tiers import in_long

rig = module_fixture(Rig)


# S24


def warnings(row: Row) -> list[str]:
    """What the log has of warnings about the configuration and its files."""
    lines = row.gateway.log_lines("events")
    return [line["warning"] for line in lines if line["event"] == "configuration_warning"]


@pytest.mark.door("gateway")
def test_s24_files_that_others_may_read(row: Row) -> None:
    """Plain tokens and state: a start warns of each file and directory that others may read, with
    the command that mends it, and so does `config check`. A start has no door."""
    row.allow(503)
    row.allow_probe_errors("the gateway is started anew")
    row.allow_other_workers("the gateway is started anew")
    config, state = row.gateway.config_path, row.gateway.state_directory
    kept = state / "first-token"
    kept.touch(mode=0o600)
    modes = {config: (0o644, 0o600), state: (0o755, 0o700), kept: (0o640, 0o600)}
    config.chmod(0o600)
    assert "chmod" not in config_check(row)
    about = {path: re.compile(rf"{re.escape(str(path))}(?![/\w]).*chmod") for path in modes}
    before = len(warnings(row))
    row.gateway.kill()
    try:
        for path, (wide, _) in modes.items():
            path.chmod(wide)
        row.gateway.start()
        for path, pattern in about.items():
            wait_until(
                lambda p=pattern: any(map(p.search, warnings(row)[before:])),
                5,
                f"no warning of {path}",
            )
        checked = config_check(row)
    finally:
        for path, (_, narrow) in modes.items():
            path.chmod(narrow)
        kept.unlink()
    assert [path for path, pattern in about.items() if not pattern.search(checked)] == []
    assert TOKEN not in " ".join((*warnings(row), checked))


def config_check(row: Row) -> str:
    """What `ollama-proxy config check` says of the gateway's configuration."""
    done = run_command(row.gateway, "config", "check")
    return done.stdout + done.stderr


# S26

LOCKS = (
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-litellm.txt",
    "requirements-otel.txt",
    "tests/second/requirements.txt",
)
#: What installs packages, and how often it does.
INSTALLERS = {"Makefile": 1, "tests/run.sh": 1, "Dockerfile": 1, "deploy/install.sh": 1}
SAFELY = ("--require-hashes", "--only-binary :all:")
#: Files that Python runs at every start, and who brings them; the gateway's own packages have none.
START_FILES = {"distutils-precedence.pth": "setuptools, which venv and the tools bring along"}


def pip_install(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Installs as the Makefile does, into another environment."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-compile",
    ]
    options = [word for option in SAFELY for word in option.split()]
    return subprocess.run(
        [*command, *options, *arguments], capture_output=True, text=True, timeout=120
    )


def start_files(packages: Path) -> set[str]:
    """What Python would run by itself from here."""
    return {
        path.name
        for path in packages.iterdir()
        if path.suffix == ".pth" or path.stem.endswith("customize")
    }


def altered_files(packages: Path) -> list[str]:
    """Files that no package has listed, or whose content is not what it has listed."""
    listed: dict[Path, str] = {}
    for record in packages.glob("*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as lines:
            listed |= {(packages / name).resolve(): digest for name, digest, _ in csv.reader(lines)}
    found = []
    for path in packages.rglob("*"):
        if path.is_file():
            digest = (
                base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
                .rstrip(b"=")
                .decode()
            )
            if listed.get(path.resolve(), "none") not in ("", f"sha256={digest}"):
                found.append(path.name)
    return found


def test_s26_dependencies_are_what_the_lock_says(tmp_path: Path) -> None:
    """Every requirement has its hashes and wheels only; another file under the same name is
    refused."""
    for lock in LOCKS:
        text = (PROJECT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
        required = [
            line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
        ]
        loose = [
            line
            for line in required
            if not re.fullmatch(r"[\w.-]+==\S+(\s*;[^#]*?)?( +--hash=sha256:\w{64})+ *", line)
        ]
        assert required and loose == [], lock
    for name, times in INSTALLERS.items():
        text = (PROJECT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [
            line
            for line in text.splitlines()
            if re.search(r"\binstall\b.*--(no-c|quiet|require)", line)
        ]
        assert len(lines) == times and all(word in line for word in SAFELY for line in lines), (
            name,
            lines,
        )
    assert start_files(Path(sysconfig.get_path("purelib"))) <= START_FILES.keys()
    (tmp_path / "other.txt").write_text(f"blinker==1.9.0 --hash=sha256:{'0' * 64}\n")
    refused = pip_install(
        Path(sys.executable), "--ignore-installed", "--dry-run", "-r", str(tmp_path / "other.txt")
    )
    assert refused.returncode != 0 and "HASHES" in refused.stderr, refused.stderr


@in_long
def test_environment_has_nothing_that_no_package_lists(tmp_path: Path) -> None:
    """And nothing that Python runs at its start."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh"], check=True, timeout=30
    )
    python = tmp_path / "fresh/bin/python"
    installed = pip_install(python, "-r", str(PROJECT / "requirements.txt"))
    assert installed.returncode == 0, installed.stderr
    [packages] = (tmp_path / "fresh").glob("lib/python3.*/site-packages")
    assert start_files(packages) == set()
    assert altered_files(packages) == []


# S27

LISTENS, ACCEPTS = "0A", 0x10000


def own_inodes(pid: int) -> set[str]:
    """The sockets of a process. Raises AssertionError for a named pipe,
    which is a way in as well."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name, mode = os.readlink(entry), entry.stat().st_mode
        except FileNotFoundError:
            continue  # closed meanwhile
        assert not stat.S_ISFIFO(mode) or name.startswith("pipe:"), name
        if match := re.fullmatch(r"socket:\[(\d+)\]", name):
            found.add(match[1])
    return found


def entrances(pid: int) -> set[str]:
    """Where a process can be reached: listening TCP, any UDP or raw socket with an
    address, named Unix sockets."""
    own, found = own_inodes(pid), set()
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if inode in own and (state == LISTENS if kind.startswith("tcp") else True):
                found.add(f"{kind} {local}")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = line.split()
        if inode in own and (name or int(flags, 16) & ACCEPTS):
            found.add(f"unix {name}")
    return found


def loopback(port: int) -> str:
    """A port of 127.0.0.1 as the kernel writes it."""
    address = socket.inet_aton("127.0.0.1")[:: 1 if sys.byteorder == "big" else -1].hex().upper()
    return f"tcp {address}:{port:04X}"


@nginx_decides
def test_s27_nothing_listens_but_the_service(row: Row) -> None:
    """No control socket, no debugger, no named pipe: of all processes of the server, before
    and under way of calls."""
    master = (
        row.gateway.pid
        if row.door == "gateway"
        else int((row.nginx.directory / "nginx.pid").read_text())
    )
    for_tests = f"{row.gateway.directory}/worker-"  # sockets that only tests ask for
    for asked in range(3):
        if asked:
            row.ask("GET", "/api/tags")
        pids = {master, *child_pids(master)}
        assert len(pids) >= 2
        found = {pid: {each for each in entrances(pid) if for_tests not in each} for pid in pids}
        assert found == dict.fromkeys(pids, {loopback(row.port)})
    row.measured("processes", len(pids), "with one listener")
