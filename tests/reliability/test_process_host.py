"""Process and host, what the machine gives and takes: descriptors, disk, memory,
neighbours, and a tight sandbox."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import report
from tests.reliability.load import Load, ask
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig import sandbox
from tests.rig.calls import CHAT_LINE, FACES, TEXT_LINE, Face, config, is_well_ended, resident_kib
from tests.rig.deadline import wait_until
from tests.rig.edits import edit
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import FaultUpstream, Lines, WaitFor
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import WORKER_SOCKETS, Gateway
from tests.rig.http_client import Stream, bearer, request
from tests.rig.leaks import open_descriptors
from tests.rig.nginx import Nginx
from tests.rig.pdf import in_base64, pdf

pytestmark = pytest.mark.slow

END = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts of one's own need root")


def script_all(upstream: FaultUpstream, *begin: Any, lines: int = 1, delay_s: float = 0.0) -> None:
    """So many lines for every face, after what stands at the beginning, and a good end."""
    for path, line in (("/api/chat", CHAT_LINE), ("/api/generate", TEXT_LINE)):
        upstream.script(
            path,
            [Lines([line]), *begin, Lines([line] * lines + [{**line, **END}], delay_s=delay_s)],
        )


def open_many(
    row: Row, count: int, closing: ExitStack, *, at_once: int = 8
) -> list[tuple[Face, Stream]]:
    """Streams of every face in turn, each as far as its head."""

    def start(face: Face) -> tuple[Face, Stream]:
        stream = row.open(
            face.path, {**face.body, "stream": True}, id="many-" + secrets.token_hex(8)
        )
        return face, closing.enter_context(stream)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(start, islice(cycle(FACES.values()), count)))


# --- Descriptors ----------------------------------------------------------------------------------

DESCRIPTORS, CLIENTS, ANSWER_S = 64, 100, 5.0


def test_p18_descriptors_run_out_and_nobody_hangs(door: str) -> None:
    with (
        Rig(launcher=("prlimit", f"--nofile={DESCRIPTORS}")) as rig,
        rig.row(door) as row,
        ExitStack() as closing,
    ):
        row.allow(503)
        row.allow_probe_errors("it is refused like everybody else")
        go_on = threading.Event()
        script_all(row.upstream, WaitFor(go_on, 60))
        began = time.monotonic()
        streams = open_many(row, CLIENTS, closing)
        row.measured("slowest answer at most", time.monotonic() - began, "s")
        statuses = Counter(stream.status for _, stream in streams)
        row.measured("clients served", statuses[200], "")
        row.measured("clients refused", statuses[503], "")
        assert statuses.keys() == {200, 503}
        refused = [(face, stream) for face, stream in streams if stream.status == 503]
        assert all(stream.headers.get("retry-after") for _, stream in refused)
        assert all(json.loads(stream.read_all(5)) for _, stream in refused)
        assert [ask(row.url, "/livez", timeout=ANSWER_S) for _ in range(10)] == [200] * 10
        assert max(len(open_descriptors(pid)) for pid in rig.gateway.worker_pids()) < DESCRIPTORS
        go_on.set()
        served = [(face, stream) for face, stream in streams if stream.status == 200]
        assert all(is_well_ended(stream.read_all(5), face) for face, stream in served)
        wait_until(
            lambda: (
                [row.ask(body=FACES["native chat"].body).status for _ in range(10)] == [200] * 10
            ),
            5,
        )


# --- Disk -----------------------------------------------------------------------------------------

#: A log directory with this much room, which only the gateway sees.
SMALL_DISK = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=256k none "$LOGS_DIRECTORY" && exec "$@"',
    "sh",
)


@needs_root
def test_p14_full_disk_of_the_logs_stops_no_request(door: str) -> None:
    with Rig(launcher=SMALL_DISK) as rig:
        rig.gateway.logs_directory = Path(
            f"/proc/{rig.gateway.pid}/root/{rig.gateway.logs_directory}"
        )
        with rig.row(door) as row:
            filler = rig.gateway.logs_directory / "filler"
            fill(filler)
            with Load(*[lambda: ask(row.url)] * 4) as load:
                load.wait_for(200, 60)
            assert load.outcomes.keys() == {200}
            with pytest.raises(OSError, match="No space left"):
                filler.with_suffix(".more").write_bytes(b"x" * 65536)
            for file in rig.gateway.logs_directory.iterdir():
                file.unlink()
            id = "room-" + secrets.token_hex(8)
            row.ask(body=FACES["native chat"].body, id=id)
            assert row.record(id)["state"] == "ok"


def fill(path: Path) -> None:
    """Takes all the room that is left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


ROTATIONS, ROTATED_REQUESTS = 20, 800


def test_p19_rotation_loses_and_breaks_no_line(door: str) -> None:
    with Rig(workers=2) as rig, rig.row(door) as row:
        log, numbers, sent = rig.gateway.logs_directory / "access.log", count(), set[str]()

        def send() -> int:
            id = f"rotated-{next(numbers)}"
            sent.add(id)
            return request(row.url, path="/livez", headers={"X-Request-Id": id}).status

        with Load(*[send] * 4) as load:
            for number in range(ROTATIONS):
                wait_until(log.exists, 5, "nobody has made the log anew")
                log.rename(log.with_name(f"access.log.{number}"))
                load.wait_for((number + 1) * ROTATED_REQUESTS // ROTATIONS, 10)
        assert load.outcomes.keys() == {200}
        wait_until(lambda: sent <= Counter(logged_ids(rig.gateway)).keys(), 5, "lines are lost")
        counted = Counter(logged_ids(rig.gateway))
        assert {id: counted[id] for id in sent if counted[id] != 1} == {}
        row.measured("lines, each there once", len(sent), "")


def logged_ids(gateway: Gateway) -> list[str]:
    """The id of every line of the access log, in all its files; each line must be whole."""
    contents = [path.read_bytes() for path in gateway.logs_directory.glob("access.log*")]
    assert len(contents) > ROTATIONS // 2
    return [json.loads(line)["id"] for content in contents for line in content.splitlines()]


# --- Memory ---------------------------------------------------------------------------------------

STREAMS, LINES, INTERVAL_S = 500, 24 if BOTH_DOORS else 12, 0.5
#: What the design allows a worker with a thousand streams, 200 MiB, without its files; and by how
#: much it may grow once all are open.
MOST_MIB, GROWTH_MIB = 175, 4


rig = module_fixture(lambda: Rig(workers=2))


@pytest.mark.door("gateway")
def test_p21_slow_streams_take_memory_once(row: Row) -> None:
    """The nginx of the rig holds 512 streams, and has no part in what a worker of the
    gateway keeps in memory."""
    row.allow_no_probe_p99("500 clients arrive at once")
    before = memory_mib(row.gateway)
    script_all(row.upstream, lines=LINES, delay_s=INTERVAL_S)
    with ExitStack() as closing:
        streams = open_many(row, STREAMS, closing, at_once=16)
        assert [stream.status for _, stream in streams] == [200] * STREAMS
        # The last one sets the pace: a look at each of its lines.
        curve = [memory_mib(row.gateway) for _ in streams[-1][1].lines()]
        assert len(curve) > LINES
        ends = [is_well_ended(stream.read_all(10), face) for face, stream in streams[:-1]]
    assert ends == [True] * (STREAMS - 1)
    row.measured("a worker before", before, "MiB")
    row.measured(f"a worker with {STREAMS // 2} streams", max(curve), "MiB")
    row.measured("each stream", (max(curve) - before) * 1024 / (STREAMS / 2), "KiB")
    assert max(curve) < MOST_MIB
    assert max(curve) - max(curve[: LINES // 4]) < GROWTH_MIB


def memory_mib(gateway: Gateway) -> float:
    """The memory of its largest worker."""
    return max(resident_kib(pid) for pid in gateway.worker_pids()) / 1024


# --- Neighbours -----------------------------------------------------------------------------------

HEALED_S = 15.0


def test_p22_gateway_that_starts_before_its_upstream_heals_by_itself(
    door: str, tmp_path: Path
) -> None:
    with ExitStack() as running:
        upstream = running.enter_context(FaultUpstream())
        upstream.refuse()
        gateway = running.enter_context(Gateway(config(upstream.url), workers=1))
        nginx = running.enter_context(Nginx(tmp_path, f"127.0.0.1:{gateway.port}"))
        url = nginx.url if door == "nginx" else gateway.url
        ask_chat = partial(
            request, url, "POST", "/api/chat", FACES["native chat"].body, bearer(TOKEN)
        )
        assert request(url, path="/livez").status == 200
        answer = request(url, path="/readyz")
        assert (answer.status, answer.json()["reason"]) == (503, "no upstream can be used")
        assert_error(ask_chat(), "native", 503)
        wait_until(
            lambda: said(gateway, "upstream_down") == gateway.workers,
            HEALED_S,
            "nobody has noticed",
        )
        began = time.monotonic()
        upstream.restart()
        # Nobody asks meanwhile: asking is a reason to look again.
        wait_until(
            lambda: said(gateway, "upstream_up") == gateway.workers,
            HEALED_S,
            "not every worker has looked",
        )
        report.note_figure("healed after", time.monotonic() - began, "s")
        assert {request(url, path="/readyz").status for _ in range(8)} == {200}
        assert ask_chat().status == 200
        assert "Traceback" not in gateway.output()


def said(gateway: Gateway, event: str) -> int:
    """How often the log says so."""
    return len(gateway.events(event))


@needs_root
def test_p23_sandbox_of_the_unit_holds_and_lets_it_work(door: str, tmp_path: Path) -> None:
    writable = ("RUNTIME_DIRECTORY", WORKER_SOCKETS)
    with (
        Rig(launcher=sandbox.LAUNCHER, env=dict.fromkeys(writable, str(tmp_path))) as rig,
        rig.row(door) as row,
    ):
        gateway = rig.gateway
        assert {locks(pid) for pid in (gateway.pid, *gateway.worker_pids())} == {
            ("0000000000000000", "1")
        }
        for face in FACES.values():
            assert row.ask(path=face.path, body={**face.body, "stream": False}).status == 200
        assert READ in read_in_sandbox(row)
        token = "token-" + secrets.token_hex(8)
        edit(gateway, rig.configured(auth={"generate_tokens": [TOKEN, token]}), 10)
        assert [ask(row.url, token=token) for _ in range(6)] == [200] * 6
        assert token in (gateway.state_directory / "last-good.yaml").read_text()
        outside = (
            Path(sandbox.__file__),
            gateway.config_path,
            gateway.directory / "new",
            Path("/etc/new"),
        )
        assert [path for path in outside if may_write(gateway, path)] == []
        inside = (gateway.state_directory, gateway.logs_directory, tmp_path)
        assert all(may_write(gateway, directory / "new") for directory in inside)


READ = "[Page 1]\nsome words"


def read_in_sandbox(row: Row) -> str:
    """What the model is shown of a PDF: a process of a worker reads it."""
    file = {"file_data": in_base64(pdf("some words"))}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "file", "file": file}]}],
    }
    assert row.ask("POST", "/v1/chat/completions", body).status == 200
    shown: str = row.upstream.requests[-1].json()["messages"][0]["content"]
    return shown


def locks(pid: int) -> tuple[str, str]:
    """What a process may do beyond a user's rights, and whether it may never get more."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return status["CapEff"], status["NoNewPrivs"]


def may_write(gateway: Gateway, path: Path) -> bool:
    """Whether a file can be opened for writing where the workers are."""
    worker = str(min(gateway.worker_pids()))
    command = [
        "nsenter",
        f"--mount=/proc/{worker}/ns/mnt",
        "sh",
        "-c",
        'exec 3>>"$1"',
        "sh",
        str(path),
    ]
    return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
