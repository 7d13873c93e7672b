"""Coding assistants and frameworks, each as docs/clients.md configures it: a plain question,
and both turns of a tool.

Every program runs in an empty home directory, with nothing in its environment but the token, and in
a network that has nothing but the gateway.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.catalog import CHOSEN, Example, Program, examples, programs, section, titles
from tests.clients.conversation import ANSWER, CONCLUSION, QUESTION, RESULT, TASK, Model
from tests.clients.loopback import loopback_only
from tests.golden.face import TOKEN
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.tables import each_row
from tests.rig.tiers import LONG

RUN_S = 90
#: The port of the examples; the network of the suite is its own.
PORT = 8080
#: How the text of an example is run.
RUN = {"sh": ["sh", "-ec"], "python": ["python", "-c"]}
#: What instructor calls is not run: it is the answer.
WITHOUT_TOOLS = {"instructor"}

EXAMPLES = [each for program in programs() for each in examples(program)]
#: In `make test`, who can do the turns of a tool is not asked a plain question as well.
ASKED = [each for each in EXAMPLES if LONG or each.program.name in WITHOUT_TOOLS]

IN_CI = os.environ.get("CI", "").lower() == "true"


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    try:
        with loopback_only():
            yield
    except PermissionError:
        pytest.skip("only root can give the programs a network of their own")


model = module_fixture(lambda network: Model())


@pytest.fixture(scope="module")
def gateway(model: Model) -> Iterator[Gateway]:
    """On the port of the examples."""
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": model.url}}
    with (
        socket.create_server(("127.0.0.1", PORT)) as listener,
        # A copy of an earlier process would be in the network of that one.
        Gateway(config, listener=listener, own_interpreter=True) as running,
    ):
        yield running


def require(program: Program) -> None:
    """Skip with the reason if it can't run here; with CI=true that is a failure
    for those that CI runs."""
    if reason := program.problem():
        pytest.fail(reason) if IN_CI and program.name in CHOSEN else pytest.skip(
            f"{program.name}: {reason}"
        )


def run(example: Example, prompt: str, gateway: Gateway, home: Path) -> str:
    """What a program prints when it is asked `prompt` as the page shows. Its whole tree of
    processes ends with it, and the gateway has refused nothing."""
    require(example.program)
    for name, content in example.files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (work := home / "work").mkdir()
    text = example.text.replace('"Hello"', f'"{prompt}"')
    assert text != example.text, "the example asks nothing"
    commands = ":".join([*map(str, example.program.commands), "/usr/local/bin:/usr/bin:/bin"])
    earlier = len(gateway.log_lines("access"))
    with subprocess.Popen(
        [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            *RUN[example.language],
            text,
        ],
        cwd=work,
        env={
            "HOME": str(home),
            "PATH": commands,
            "TOKEN": TOKEN,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "TERM": "dumb",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=RUN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(
                f"still running after {RUN_S} s:\n{process.communicate()[0][-4000:]}"
            ) from None
    assert process.returncode == 0, f"ended with {process.returncode}:\n{printed[-4000:]}"
    calls = gateway.log_lines("access", at_least=earlier + 1)[earlier:]
    assert {call["status"] for call in calls} == {200}, calls
    return " ".join(printed.split())


@each_row("program", programs())
def test_page_names_the_version(program: Program) -> None:
    assert f"Version {program.version} of `" in section(program)


def example_id(example: Example) -> str:
    return f"{example.program.name}-{example.number}"


@pytest.mark.parametrize("example", ASKED, ids=example_id)
def test_question_is_answered(example: Example, gateway: Gateway, tmp_path: Path) -> None:
    assert ANSWER in run(example, QUESTION, gateway, tmp_path)


@pytest.mark.parametrize(
    "example",
    [each for each in EXAMPLES if each.program.name not in WITHOUT_TOOLS],
    ids=example_id,
)
def test_tool_runs_and_its_result_is_used(
    example: Example, gateway: Gateway, model: Model, tmp_path: Path
) -> None:
    model.clear()
    assert CONCLUSION in run(example, TASK, gateway, tmp_path)
    assert any(RESULT.encode() in seen.body for seen in model.requests)


def test_page_describes_no_other_program() -> None:
    assert {title.lower().replace(" ", "-") for title in titles()} == {
        program.name for program in programs()
    }


def test_programs_reach_nothing_but_this_machine(network: None) -> None:
    interfaces = [name for _, name in socket.if_nameindex()]
    with socket.socket() as outward, pytest.raises(OSError, match="unreachable"):
        outward.connect(("192.0.2.1", 80))
    assert interfaces == ["lo"]
