"""Edits while the gateway runs: good ones count, broken ones leave the last good
settings and are told once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import gevent
import pytest

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, load_settings
from ollama_proxy.settings.state_dir import with_first_token
from ollama_proxy.settings.watch import SettingsWatch
from tests.unit.settings.test_schema import BAD_TOKENS

GOOD = "auth: {generate_tokens: [team-token-1]}\n"
BETTER = "auth: {generate_tokens: [team-token-2]}\n"


class Rig:
    """A watched file and what the watch said about it."""

    def __init__(self, path: Path, text: str | None = GOOD) -> None:
        self.path = path
        if text is not None:
            path.write_text(text)
        self.environ = {"STATE_DIRECTORY": str(path.parent / "state")}
        self.changes: list[Settings] = []
        self.errors: list[str] = []
        loaded = (
            load_settings(path, self.environ)
            if text is not None
            else load_settings(environ=self.environ)
        )
        self.watch = self.watching(loaded)

    def watching(self, settings: Settings) -> SettingsWatch:
        return SettingsWatch(
            self.path,
            self.environ,
            settings,
            on_change=self.changes.append,
            on_error=lambda error: self.errors.append(str(error)),
        )

    def write(self, content: str | bytes) -> None:
        """What a careful editor does: a new file in place of the old one."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(content if isinstance(content, bytes) else content.encode())
        fresh.replace(self.path)

    def digests(self) -> list[bytes]:
        return [token.digest for token in self.watch.current.auth.tokens()]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.chdir(tmp_path)
    return Rig(Path("c.yaml"))


def test_an_unchanged_file_says_nothing(rig: Rig) -> None:
    rig.watch.check()
    rig.watch.check()
    assert (rig.changes, rig.errors, rig.watch.problem) == ([], [], None)


def test_an_edit_counts_at_the_next_look(rig: Rig) -> None:
    rig.write(BETTER)
    rig.watch.check()
    rig.watch.check()
    (changed,) = rig.changes
    assert changed == load_settings(rig.path, rig.environ) == rig.watch.current


def test_an_edit_between_loading_and_watching_is_not_lost(rig: Rig) -> None:
    rig.write(BETTER)
    rig.watching(rig.watch.current).check()
    assert len(rig.changes) == 1


def test_an_edit_within_the_same_time_stamp_and_size_is_noticed(rig: Rig) -> None:
    rig.watch.check()
    before = rig.path.stat()
    with rig.path.open("r+b") as file:
        file.write(BETTER.encode())
    os.utime(rig.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rig.path.stat().st_size == before.st_size
    rig.watch.check()
    assert len(rig.changes) == 1


def test_an_edit_that_leaves_no_trace_in_the_file_status_is_noticed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.watch.check()
    same = rig.watch._look()
    monkeypatch.setattr(rig.watch, "_look", lambda: same)
    rig.write(BETTER)
    rig.watch.check()
    assert len(rig.changes) == 1


def test_a_settled_file_is_not_read_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.watch.check()
    late = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: late)
    rig.watch.check()
    monkeypatch.setattr(
        "ollama_proxy.settings.watch.read_bytes", lambda *_: pytest.fail("read again")
    )
    rig.watch.check()
    assert rig.errors == []


def test_touching_the_file_or_editing_a_comment_changes_nothing(rig: Rig) -> None:
    rig.path.touch()
    rig.watch.check()
    rig.write(GOOD + "# hello\n")
    rig.watch.check()
    assert rig.changes == []


def test_another_edit_in_place_of_a_broken_one_counts(rig: Rig) -> None:
    rig.write("auth: [")
    rig.watch.check()
    rig.write(BETTER)
    rig.watch.check()
    assert len(rig.changes) == 1
    assert rig.watch.problem is None


def break_by_removing(path: Path) -> None:
    path.unlink()


def break_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def break_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def break_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WHOLE_FILES = {
    "empty": b"",
    "blank": b"\n \n",
    "only comments": b"# nothing left\n",
    "cut before the value": b"auth:\n",
    "cut in the name of the list": b"auth:\n  generate_tok",
    "cut before the colon": b"auth:\n  generate_tokens",
    "cut in an item": b"auth:\n  generate_tokens:\n  -",
    "cut in the list": b'auth: {generate_tokens: ["team-tok',
    "byte order mark": b"\xef\xbb\xbf" + BETTER.encode(),
    "UTF-16": BETTER.encode("utf-16"),
    "5 MiB": b"#" * (5 << 20),
    "without tokens": b"server: {port: 1}\n",
    "deep": b"a: " + b"[" * 3000,
    "unknown setting": BETTER.encode() + b"servce: 1\n",
}


@pytest.mark.parametrize(
    "content",
    [
        *WHOLE_FILES.values(),
        *(f"auth:\n  generate_tokens: {tokens}\n".encode() for tokens, _ in BAD_TOKENS.values()),
    ],
    ids=[*WHOLE_FILES, *BAD_TOKENS],
)
def test_a_broken_edit_leaves_the_last_good_settings_and_is_told_once(
    rig: Rig, content: bytes
) -> None:
    before = rig.digests()
    rig.write(content)
    rig.watch.check()
    rig.watch.check()
    (error,) = rig.errors
    assert error.startswith("c.yaml:")
    assert rig.watch.problem == error
    assert (rig.changes, rig.digests()) == ([], before)


@pytest.mark.parametrize(
    "damage", [break_by_removing, break_by_directory, break_by_loop, break_by_pipe]
)
def test_a_file_that_is_gone_leaves_the_last_good_settings_and_may_come_back(
    rig: Rig, damage
) -> None:
    before = rig.digests()
    damage(rig.path)
    rig.watch.check()
    rig.watch.check()
    assert len(rig.errors) == 1
    assert (rig.changes, rig.digests()) == ([], before)
    shutil.rmtree(rig.path) if rig.path.is_dir() else rig.path.unlink(missing_ok=True)
    rig.write(GOOD)
    rig.watch.check()
    assert (len(rig.changes), rig.watch.problem, rig.digests()) == (1, None, before)


def test_each_distinct_fault_is_told(rig: Rig) -> None:
    for content in ("auth: [", "auth: [ ", "servce: 1", "auth: ["):
        rig.write(content)
        rig.watch.check()
    assert len(rig.errors) == 3


def test_a_gateway_without_a_file_notices_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rig = Rig(Path("c.yaml"), text=None)
    rig.watch.check()
    assert (rig.changes, rig.errors) == ([], [])
    rig.write(BETTER)
    rig.watch.check()
    assert len(rig.changes) == 1
    rig.path.unlink()
    rig.watch.check()
    assert len(rig.errors) == 1


def test_a_gateway_with_its_first_token_may_be_edited_without_tokens(rig: Rig) -> None:
    rig.path.write_text("server: {port: 1}\n")
    settings, first = with_first_token(load_settings(rig.path, rig.environ), rig.environ)
    assert first is not None
    watch = rig.watching(settings)
    rig.write("server: {port: 2}\n")
    watch.check()
    assert (len(rig.changes), watch.problem) == (1, None)


NO_TOKENS = [
    "auth: {generate_tokens: []}\n",
    "auth:\n  generate_tokens:\n    []\n",
    "auth: {generate_tokens: [], manage_tokens: []}\n",
    "auth: {manage_tokens: []}\n",
    # What is left behind when the last `- token` is deleted.
    "auth:\n  generate_tokens:\n",
    "auth:\n  generate_tokens:",
    "auth:\n  generate_tokens:\n    # - team-token-1\n",
    "auth:\n  generate_tokens:\n  manage_tokens:\nserver: {port: 1}\n",
    "auth:\n  manage_tokens:\n",
    "auth: {generate_tokens: null}\n",
    "auth: {generate_tokens: ~, manage_tokens: []}\n",
]


@pytest.mark.parametrize("content", NO_TOKENS)
def test_an_empty_list_withdraws_every_token(rig: Rig, content: str) -> None:
    rig.write(content)
    rig.watch.check()
    assert (rig.errors, rig.watch.problem) == ([], None)
    assert [settings.auth.tokens() for settings in rig.changes] == [()]
    assert rig.watch.current.auth.refuses_all


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"# later\n", b"auth:\n", b"auth: {}\n", b"auth: null\n", b"server: {port: 1}\n"],
)
def test_half_a_file_never_brings_a_token_back_once_all_were_withdrawn(
    rig: Rig, content: bytes
) -> None:
    """Without a list the first token of the installation would count again."""
    rig.write(NO_TOKENS[0])
    rig.watch.check()
    rig.write(content)
    rig.watch.check()
    assert len(rig.errors) == 1
    assert (len(rig.changes), rig.watch.current.auth.refuses_all) == (1, True)
    rig.write(GOOD)
    rig.watch.check()
    assert (len(rig.changes), rig.watch.problem) == (2, None)


def test_the_complaint_says_how_to_withdraw_every_token(rig: Rig) -> None:
    rig.write("server: {port: 1}\n")
    rig.watch.check()
    assert "`generate_tokens: []`" in rig.errors[0]


def test_whoever_uses_the_settings_may_refuse_an_edit(rig: Rig) -> None:
    def refuse(settings: Settings) -> None:
        raise ConfigError("no room for it")

    watch = SettingsWatch(
        rig.path,
        rig.environ,
        rig.watch.current,
        on_change=refuse,
        on_error=lambda error: rig.errors.append(str(error)),
    )
    before = watch.current
    rig.write(BETTER)
    watch.check()
    assert (watch.problem, rig.errors, watch.current) == (
        "no room for it",
        ["no room for it"],
        before,
    )


def test_the_loop_survives_a_fault_in_a_callback(rig: Rig) -> None:
    def stumble(settings: Settings) -> None:
        rig.changes.append(settings)
        if len(rig.changes) == 1:
            raise KeyError("CANARY")

    watch = SettingsWatch(
        rig.path,
        rig.environ,
        rig.watch.current,
        on_change=stumble,
        on_error=lambda error: rig.errors.append(str(error)),
    )
    loop = gevent.spawn(watch.run, SYSTEM_CLOCK, 0.01)
    try:
        rig.write(BETTER)
        wait_until(lambda: rig.errors)
        rig.write(GOOD + "server: {port: 1}\n")
        wait_until(lambda: len(rig.changes) == 2 and watch.problem is None)
    finally:
        loop.kill()
    assert rig.errors == ["c.yaml: reload failed: KeyError"]


def wait_until(condition) -> None:
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.005)


def test_limits_and_the_queue_follow_an_edit(rig: Rig) -> None:
    text = "auth: {defaults: {limits: {concurrent: 3}}, generate_tokens: [{token: team-token-1, weight: 2}]}\n"
    rig.write(text + "queue: {max_waiting: 7}\nstate: {url: 'redis://:a@r/0'}\n")
    rig.watch.check()
    rig.write(text + "queue: {max_waiting: 7}\nstate: {url: 'redis://:b@r/0'}\n")
    rig.watch.check()
    assert [each.auth.tokens()[0].weight for each in rig.changes] == [2.0, 2.0]
    assert [each.auth.defaults.limits for each in rig.changes] == [{"concurrent": 3}] * 2
    assert [each.queue.max_waiting for each in rig.changes] == [7, 7]
    assert [each.state.url and each.state.url.secret for each in rig.changes] == [
        "redis://:a@r/0",
        "redis://:b@r/0",
    ]
    rig.write("queue: {max_waiting: 0}\n")
    rig.watch.check()
    assert (rig.watch.current.queue.max_waiting, len(rig.errors)) == (7, 1)
