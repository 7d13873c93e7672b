"""`ollama-proxy`, with nothing in its environment but what a test puts there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from ollama_proxy.cli import main
from tests.rig.warm_start import PROJECT, READ_BY_PYTHON, warm_start


def run_cli(
    *arguments: str, env: Mapping[str, str], cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it as a process, to its end."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **env}
    if not any(READ_BY_PYTHON.match(name) for name in env):
        return warm_start().run_command(
            arguments, cwd=cwd or PROJECT, env=environ, stdin=stdin, seconds=60
        )
    return subprocess.run(
        [sys.executable, "-m", "ollama_proxy.cli", *arguments],
        cwd=cwd,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_cli_here(
    *arguments: str, env: Mapping[str, str], cwd: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """As `run_cli`, in the process of the test."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"PATH": os.environ["PATH"], **env}, clear=True),
        mock.patch("sys.stdin", io.StringIO(stdin)),
        redirect_stdout(output),
        redirect_stderr(errors),
        chdir(cwd),
    ):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())
