"""Process and host, the configuration: edits that are right, edits that are broken, and
starts that must not be."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ollama_proxy.errors import ConfigError
from ollama_proxy.server.startup import check_start
from ollama_proxy.settings.schema import load_settings
from tests.reliability.load import Load, ask
from tests.reliability.rig import TOKEN, Rig, Row, allowed
from tests.rig import NDJSON
from tests.rig.calls import FACES, is_well_ended
from tests.rig.deadline import wait_until
from tests.rig.edits import FOLLOWED_S as PROMISED_S
from tests.rig.edits import edit, problems, put, wait_until_known
from tests.rig.fault_upstream import Chunk, Head, WaitFor
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import WITHOUT_RECORDS, FailedStart, Gateway, free_port

pytestmark = pytest.mark.slow

#: Until every worker follows an edit.
FOLLOWED_S = allowed(PROMISED_S)
#: a token that is in no good file before a test writes it there
NEW_TOKEN = "team-token-new"
#: Root reads a file of any mode. Without these two rights it is like the service's own user.
AS_A_USER = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
)


rig = module_fixture(lambda: Rig(workers=2, launcher=AS_A_USER))


def with_token(text: str, token: str) -> str:
    """A configuration with one more token."""
    document = yaml.safe_load(text)
    document["auth"]["generate_tokens"].append(token)
    return yaml.safe_dump(document, default_flow_style=None, sort_keys=False)


def tokens_first(config: Mapping[str, Any]) -> str:
    """A configuration with one more token, all of them on one line at the head."""
    tokens = yaml.safe_dump(
        [*config["auth"]["generate_tokens"], NEW_TOKEN], default_flow_style=True, width=1000
    )
    rest = {name: value for name, value in config.items() if name != "auth"}
    return f"auth:\n  generate_tokens: {tokens}{yaml.safe_dump(rest)}"


@contextmanager
def running_stream(row: Row) -> Iterator[None]:
    """A stream in the middle of its answer all the while; behind the block it must
    come to its good end."""
    go_on, face = threading.Event(), FACES["openai chat"]
    line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":%s}\n'
    row.upstream.script(
        face.upstream_path,
        [
            Head(200, NDJSON),
            Chunk(line % b"false"),
            WaitFor(go_on, 60),
            Chunk(line % b'true,"done_reason":"stop"'),
        ],
    )
    with row.open(face.path, {**face.body, "stream": True}) as stream:
        assert stream.read_some()
        row.upstream.clear()
        yield
        go_on.set()
        assert is_well_ended(stream.read_all(), face)
        assert stream.complete


# --- While it runs --------------------------------------------------------------------------------


def test_p4_correct_edit_of_the_tokens_counts_in_every_worker(row: Row) -> None:
    gateway, workers = row.gateway, row.gateway.worker_pids()
    text = gateway.config_path.read_text(encoding="utf-8")
    with running_stream(row), Load(lambda: ask(row.url), pause_s=0.02) as load:
        began = time.monotonic()
        put(gateway.config_path, with_token(text, NEW_TOKEN).encode())
        wait_until_known(gateway, NEW_TOKEN, FOLLOWED_S)
        row.measured("every worker has followed after", time.monotonic() - began, "s")
        assert [ask(row.url, token=NEW_TOKEN) for _ in range(6)] == [200] * 6
        edit(gateway, yaml.safe_load(text), FOLLOWED_S)
        assert [ask(row.url, token=NEW_TOKEN) for _ in range(6)] == [401] * 6
    assert gateway.worker_pids() == workers
    assert load.outcomes.keys() == {200}


def replace_by_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def unserved(text: str) -> str:
    """Read without a complaint, and refused by what would have to serve it: a key
    that could go anywhere."""
    document = yaml.safe_load(text)
    document["upstreams"].append({"name": "any", "kind": "litellm", "api_key_env": "PATH"})
    return yaml.safe_dump(document)


def lock(path: Path, text: str) -> None:
    put(path, text.encode())
    path.chmod(0)


BROKEN: dict[str, Callable[[Path, str], None]] = {
    "bad YAML": lambda path, text: put(path, (text + "more: [\n").encode()),
    "half a file": lambda path, text: put(path, text.encode()[: text.index(NEW_TOKEN) - 3]),
    "cut in the name of the tokens": lambda path, text: put(
        path, text[: text.index("_tokens")].encode()
    ),
    "empty": lambda path, text: put(path, b""),
    "deleted": lambda path, text: path.unlink(),
    "a directory": lambda path, text: replace_by_directory(path),
    "mode 000": lock,
    "a number for a token": lambda path, text: put(
        path, text.replace(NEW_TOKEN, "1234567").encode()
    ),
    "same token twice": lambda path, text: put(path, text.replace(NEW_TOKEN, TOKEN).encode()),
    "a tag": lambda path, text: put(path, text.replace(NEW_TOKEN, "!x " + NEW_TOKEN).encode()),
    "no token left": lambda path, text: put(path, b"service: {base_url: 'http://127.0.0.1:9'}\n"),
    "byte order mark": lambda path, text: put(path, b"\xef\xbb\xbf" + text.encode()),
    "5 MiB": lambda path, text: put(path, text.encode() + b"#" * (5 << 20)),
    "an upstream that can't be served": lambda path, text: put(path, unserved(text).encode()),
    "an address that can't be used": lambda path, text: put(
        path, text.replace("http:", "ftp:").encode()
    ),
}


#: Those that running workers get: a text that can't be read, files that can't be opened, and
#: settings that can be read and not used. The others are no different for a worker.
WHILE_IT_RUNS = (
    *("bad YAML", "half a file", "deleted", "a directory", "mode 000"),
    *("no token left", "an upstream that can't be served"),
)


def mend(row: Row) -> None:
    """Write a good file again; returns when every worker follows it."""
    put(row.gateway.config_path, yaml.safe_dump(row.rig.config).encode())  # also over a directory
    row.rig.restore_configuration()
    assert {*problems(row.gateway)} == {None}


@pytest.mark.door("gateway")
def test_p5_broken_edit_leaves_the_last_good_settings(row: Row, tmp_path: Path) -> None:
    """Each kind is refused by what workers read the file with; some are made while they run, one
    after the other. One file is behind both doors, so the edits are made once."""
    for kind in BROKEN.keys() - WHILE_IT_RUNS:
        BROKEN[kind](path := tmp_path / "config.yaml", tokens_first(row.rig.config))
        with pytest.raises(ConfigError, match="config.yaml"):
            load_settings(path, {})
    gateway, workers = row.gateway, row.gateway.worker_pids()
    try:
        with Load(lambda: ask(gateway.url), pause_s=0.05) as load:
            for kind in WHILE_IT_RUNS:
                break_file(gateway, kind, tokens_first(row.rig.config))
                assert [ask(gateway.url, token=NEW_TOKEN) for _ in range(6)] == [401] * 6, kind
    finally:
        mend(row)
    assert load.outcomes.keys() == {200}
    assert gateway.worker_pids() == workers
    assert TOKEN not in str(told(gateway))


def break_file(gateway: Gateway, kind: str, good: str) -> None:
    """Break the file in this way; returns when every worker has complained, once."""
    before, told_before = problems(gateway), len(told(gateway))
    # Another number of comment lines for each kind, so that no two complaints name the same line.
    BROKEN[kind](gateway.config_path, "# \n" * list(BROKEN).index(kind) + good)
    wait_until(
        lambda: not {None, *before} & {*problems(gateway)},
        FOLLOWED_S,
        lambda: f"{kind}: not every worker complains: {problems(gateway)}",
    )
    found = problems(gateway)
    assert all("config.yaml" in str(problem) for problem in found), kind
    wait_until(lambda: len(told(gateway)) >= told_before + gateway.workers)
    assert told(gateway)[told_before:] == found, kind


def told(gateway: Gateway) -> list[str | None]:
    """What the log has of broken files."""
    return [line["problem"] for line in gateway.events("configuration_broken")]


# --- Hanging up while it is broken ----------------------------------------------------------------

FATAL = ("bad YAML", "deleted", "no token left")


@pytest.mark.parametrize("kind", FATAL)
def test_p7_hangup_with_a_broken_file_keeps_the_service(row: Row, kind: str) -> None:
    row.allow_other_workers("a hangup replaces them")
    gateway, first = row.gateway, row.gateway.worker_pids()
    text = with_token(gateway.config_path.read_text(encoding="utf-8"), NEW_TOKEN)
    try:
        with Load(lambda: ask(row.url), pause_s=0.01) as load:
            BROKEN[kind](gateway.config_path, text)
            os.kill(gateway.pid, signal.SIGHUP)
            wait_until(
                lambda: len(now := gateway.worker_pids()) == 2 and not now & first,
                20,
                "no new workers",
            )
            wait_until_known(gateway, TOKEN, FOLLOWED_S)
            load.wait_for(load.total + 20, 20)
            assert [ask(row.url, token=NEW_TOKEN) for _ in range(8)] == [401] * 8
            put(gateway.config_path, text.encode())
            wait_until_known(gateway, NEW_TOKEN, FOLLOWED_S)
    finally:
        mend(row)
    assert load.outcomes.keys() == {200}


# --- Starting -------------------------------------------------------------------------------------

MINIMAL = "auth: {generate_tokens: [CANARY]}\n"
#: Root reads such a file, so a start without root's rights shows it.
FORBIDDEN = "mode 000"
BROKEN_FILES: dict[str, tuple[str | Callable[[Path], object], str]] = {
    "bad YAML": ("auth:\n  generate_tokens: [a\n", "config.yaml:3: is not valid YAML"),
    "half a file": (
        "auth:\n  generate_tokens:\n    - {name: a, tok",
        "config.yaml:3: is not valid YAML",
    ),
    "empty": ("", "config.yaml:1: the file is empty"),
    "missing": (lambda path: None, "config.yaml"),
    "a directory": (lambda path: path.mkdir(), "config.yaml: is a directory, not a file"),
    FORBIDDEN: (
        lambda path: lock(path, MINIMAL),
        "config.yaml: cannot be read: Permission denied",
    ),
    "number for a token": (
        "auth:\n  generate_tokens:\n    - 1234567\n",
        "config.yaml:3: auth.generate_tokens[1] must be text",
    ),
    "empty token": (
        'auth:\n  generate_tokens:\n    - ""\n',
        "config.yaml:3: auth.generate_tokens[1] is empty",
    ),
    "null token": (
        "auth:\n  generate_tokens:\n    - null\n",
        "config.yaml:3: auth.generate_tokens[1] is empty",
    ),
    "same token twice": (
        "auth:\n  generate_tokens:\n    - CANARY\n    - CANARY\n",
        "config.yaml:4: auth.generate_tokens[2]",
    ),
    "duplicate name": (
        "auth:\n  generate_tokens:\n    - {name: a, token: CANARY1}\n    - {name: a, token: CANARY2}\n",
        "config.yaml:4: auth.generate_tokens[2] has the same name",
    ),
    "tag": ("auth:\n  generate_tokens:\n    - !x CANARY\n", "config.yaml:3: tags (!)"),
    "alias": (
        "auth:\n  generate_tokens:\n    - &x CANARY\n    - *x\n",
        "config.yaml:3: anchors and aliases",
    ),
    "tab": ("auth:\n\tgenerate_tokens: [CANARY]\n", "config.yaml:2: is not valid YAML"),
    "byte order mark": ("\ufeff" + MINIMAL, "config.yaml:1: starts with a byte order mark"),
    "5 MiB": ("#" * (5 << 20), "config.yaml: is larger than 1 MiB"),
    "duplicate key": ("auth: {}\nauth: {}\n", "config.yaml:2: the same name is already on line 1"),
    "no such upstream kind": (
        "upstreams: [{name: a, kind: oracle}]\n",
        "config.yaml:1: upstreams[1].kind",
    ),
}
WRONG_VALUES: dict[str, tuple[str, dict[str, str], str]] = {
    "port in use": (MINIMAL, {"PORT": "{taken}"}, "Connection in use: ('127.0.0.1', {taken})"),
    "unknown setting": (
        "auth: {generate_token: [CANARY]}\n",
        {},
        "config.yaml:1: unknown setting in auth, did you mean",
    ),
    "wrong type": (
        "timeouts: {idle_s: soon}\n",
        {},
        "config.yaml:1: timeouts.idle_s must be seconds",
    ),
    "no unit": (
        "models: {a: {target: m, keep_alive: '30'}}\n",
        {},
        "config.yaml:1: models.a.keep_alive must be",
    ),
    "unit unknown": (
        "images: {max_bytes: 10Q}\n",
        {},
        "config.yaml:1: images.max_bytes must be a size",
    ),
    "TIMEOUT": (MINIMAL, {"TIMEOUT": "soon"}, "environment variable TIMEOUT"),
    "PORT": (MINIMAL, {"PORT": "http"}, "environment variable PORT"),
    "GRACEFUL_TIMEOUT": (
        MINIMAL,
        {"GRACEFUL_TIMEOUT": "long"},
        "GRACEFUL_TIMEOUT must be a whole number",
    ),
    "unknown name": (MINIMAL, {"OLLAMA_PROXY__SERVER__PRT": "1"}, 'unknown setting "server.prt"'),
}


def expect_refusal(failed: FailedStart, complaint: str) -> None:
    """A start that ended with a code and a readable line, without a traceback,
    and that never listened."""
    assert failed.exit_code != 0
    assert any(complaint in line for line in failed.output.splitlines()), failed.output
    assert "Traceback" not in failed.output
    assert "CANARY" not in failed.output
    assert "Listening at" not in failed.output


def problem_at_start(path: Path, environ: Mapping[str, str]) -> str:
    """What a start says of a configuration, asked in this process."""
    state = {"STATE_DIRECTORY": str(path.parent), "OLLAMA_PROXY_CONFIG": str(path)}
    with pytest.raises(ConfigError) as caught:
        check_start({**WITHOUT_RECORDS, **state, **environ})
    return str(caught.value)


def write_broken_file(path: Path, kind: str) -> str:
    """Returns what is said of it."""
    content, complaint = BROKEN_FILES[kind]
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        content(path)
    return complaint


def test_p6_broken_file_at_the_start_is_named_with_its_line(tmp_path: Path) -> None:
    """Each kind is refused by what checks a start; a start ends for it, of which there is one for a
    file that can't be parsed, and one for a forbidden one."""
    told = {}
    for number, kind in enumerate(BROKEN_FILES.keys() - {FORBIDDEN}):
        path = tmp_path / str(number) / "config.yaml"
        path.parent.mkdir()
        complaint = write_broken_file(path, kind)
        if complaint not in (said := problem_at_start(path, {})) or "CANARY" in said:
            told[kind] = said
    assert told == {}
    for kind in ("half a file", FORBIDDEN):
        path = tmp_path / f"{kind}.d" / "config.yaml"
        path.parent.mkdir()
        complaint = write_broken_file(path, kind)
        failed = Gateway.start_expecting_failure(
            "", env={"OLLAMA_PROXY_CONFIG": str(path)}, launcher=AS_A_USER
        )
        expect_refusal(failed, complaint)
        assert failed.exit_code == os.EX_CONFIG


#: Values that are first read where the server itself is set up.
OF_THE_SERVER = ("port in use", "TIMEOUT", "GRACEFUL_TIMEOUT")


def test_p20_wrong_value_stops_the_start_with_a_readable_line(tmp_path: Path) -> None:
    for number, kind in enumerate(WRONG_VALUES.keys() - set(OF_THE_SERVER)):
        content, env, complaint = WRONG_VALUES[kind]
        path = tmp_path / str(number) / "config.yaml"
        path.parent.mkdir()
        path.write_text(content, encoding="utf-8")
        said = problem_at_start(path, env)
        assert complaint in said and "CANARY" not in said, (kind, said)
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        taken = listener.getsockname()[1]
        for kind in OF_THE_SERVER:
            content, env, complaint = WRONG_VALUES[kind]
            given = {name: value.format(taken=taken) for name, value in env.items()}
            failed = Gateway.start_expecting_failure(content, env=given)
            expect_refusal(failed, complaint.format(taken=taken))


#: gunicorn settings under which the application, or something it uses, is imported before
#: gevent has patched it.
WRONG_ORDERS = {
    "worker without gevent": "worker_class = 'sync'",
    "application before the workers": "preload_app = True\nworker_class = 'gevent'",
}


@pytest.mark.parametrize("settings", WRONG_ORDERS.values(), ids=WRONG_ORDERS)
def test_p24_wrong_order_of_patching_is_refused(tmp_path: Path, settings: str) -> None:
    own = tmp_path / "gunicorn.conf.py"
    own.write_text(f"import os\nimport ssl\n{settings}\nbind = '127.0.0.1:' + os.environ['PORT']\n")
    failed = Gateway.start_expecting_failure(MINIMAL, gunicorn_config=own)
    assert failed.exit_code != 0
    assert (
        "gevent has not patched socket, ssl, threading: start with -c config/gunicorn.conf.py"
        in failed.output
    )
    assert "MonkeyPatchWarning" not in failed.output


def test_start_says_nothing_that_sounds_like_a_fault(rig: Rig) -> None:
    output = rig.gateway.output()
    assert "Warning" not in output
    assert TOKEN not in output
