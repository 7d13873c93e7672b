"""Installs the locked packages of the programs: ``python -m tests.clients.install [--chosen]``.

Each program has a directory of its own below .cache/clients. No install script of a package
runs. What can't be installed is reported there in a file `reason`, which the suite shows; the
command itself never fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.clients.catalog import CHOSEN, Program, is_supported, programs

INSTALL_S = 300
_PIP = ("--quiet", "--retries", "2", "--no-compile", "--require-hashes", "--only-binary", ":all:")
_NPM = (
    "--omit=optional",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--fetch-retry-mintimeout=1000",
)


def install(program: Program) -> str:
    """Install it, unless it is there already. Returns why that failed, or ""."""
    if not program.problem():
        return ""
    shutil.rmtree(program.installed, ignore_errors=True)
    program.installed.mkdir(parents=True)
    reason = _run(program) if is_supported() else "its locked packages are for Linux on x86_64"
    if reason:
        (program.installed / "reason").write_text(reason, encoding="utf-8")
    else:
        (program.installed / ".installed").write_bytes(program.lock.read_bytes())
    return reason


def _run(program: Program) -> str:
    for command in _commands(program):
        try:
            done = subprocess.run(
                command,
                cwd=program.installed,
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{command[0]}: {error}"
        if done.returncode:
            return (done.stderr or done.stdout).strip()[
                -600:
            ] or f"{command[0]} ended with {done.returncode}"
    return ""


def _commands(program: Program) -> list[list[str]]:
    if program.is_javascript:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(program.packages / name, program.installed)
        # not `npm ci`: it refuses a lock without the optional packages of other systems
        return [["npm", "install", *_NPM]]
    place = str(program.installed)
    python = f"{place}/bin/python"
    return [
        [sys.executable, "-m", "venv", "--without-pip", place],
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            *_PIP,
            "-r",
            str(program.lock),
        ],
    ]


def main() -> None:
    """Install all, or those that `make test` runs; say what could not be installed."""
    os.nice(10)
    for program in programs():
        if "--chosen" not in sys.argv or program.name in CHOSEN:
            if reason := install(program):
                print(f"{program.name} can't be installed: {reason}", flush=True)


if __name__ == "__main__":
    main()
