"""The tools of `make bench` measure what they say. What the figures are is
not a matter for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rounds
from benchmarks.fake_ollama import Script, answer_to
from benchmarks.load import count_lines, percentiles
from benchmarks.meter import (
    Reading,
    private_mb,
    process_tree,
    read_busy_s,
    read_cpu,
    resident_mb,
    shared_mb,
)
from benchmarks.profiles import render_functions
from benchmarks.report import Row, as_record, describe_machine, render_table, write_record
from benchmarks.rounds import QUIET_CORES, TRIES, Bench, do_work, ratio_to_floor, summarize
from benchmarks.servers import (
    BEHIND,
    GATEWAY_CONFIG,
    ROOT,
    Cores,
    Server,
    ask,
    running_floor,
    running_nginx,
    running_upstream,
    share_cores,
)
from benchmarks.works import (
    CLIENT_HEADERS,
    NATIVE_SINGLE,
    TOKEN,
    WORKS,
    Work,
    native_chat,
    works_named,
)
from ollama_proxy.settings.schema import effective_upstreams, load_settings
from tests.rig.deadline import wait_until
from tests.rig.tiers import LEFT_OUT, LONG, in_long

HERE = frozenset(os.sched_getaffinity(0))
EVERYWHERE = Cores(HERE, HERE)
LIMIT_S = 20.0


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_upstream(tmp_path_factory.mktemp("upstream"), HERE) as server:
        yield server


@contextlib.contextmanager
def post(server: Server, path: str, body: str) -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    ) as connection:
        connection.request("POST", path, body)
        with connection.getresponse() as response:
            yield response


def post_json(server: Server, path: str, value: dict[str, Any]) -> Any:
    with post(server, path, json.dumps(value)) as response:
        assert response.status == 200
        return json.loads(response.read())


def stats(server: Server) -> Any:
    return json.loads(ask(server.port, "/_stats")[1])


def run_load(url: str, *arguments: str, seconds: float = 0.2) -> Any:
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        "--url",
        url,
        "--seconds",
        str(seconds),
        *arguments,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=True, cwd=ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


class TestScriptedUpstream:
    def test_a_stream_is_one_send_per_token_and_one_for_the_end(self) -> None:
        answer = answer_to(b"/api/chat", b'{"model":"m","options":{"num_predict":5}}', Script())
        assert len(answer.pieces) == 6
        assert answer.pieces[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.pieces[-1].endswith(b"\r\n0\r\n\r\n")

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("/api/chat", lambda line: line["message"]["content"]),
            ("/api/generate", lambda line: line["response"]),
        ],
    )
    def test_a_stream_arrives_as_ndjson_that_ends_with_done(
        self, upstream: Server, path: str, text: Callable[[Any], str]
    ) -> None:
        with post(upstream, path, '{"model":"m","options":{"num_predict":3}}') as response:
            lines = [json.loads(line) for line in response]
        assert response.getheader("Content-Type") == "application/x-ndjson"
        assert [line["done"] for line in lines] == [False, False, False, True]
        assert "".join(map(text, lines)) == " token token token"
        assert lines[-1]["eval_count"] == 3

    def test_a_single_answer_has_its_length(self, upstream: Server) -> None:
        with post(
            upstream, "/api/chat", '{"model":"m","stream":false,"options":{"num_predict":2}}'
        ) as response:
            body = response.read()
        assert response.getheader("Content-Length") == str(len(body))
        assert json.loads(body)["message"] == {"role": "assistant", "content": " token token"}

    def test_every_input_has_its_embedding(self, upstream: Server) -> None:
        answer = post_json(upstream, "/api/embed", {"model": "m", "input": ["a", "b"]})
        assert [len(vector) for vector in answer["embeddings"]] == [1024, 1024]

    def test_a_provider_streams_as_openai_does(self, upstream: Server) -> None:
        body = '{"model":"m","stream":true,"max_tokens":3,"stream_options":{"include_usage":true}}'
        with post(upstream, "/v1/chat/completions", body) as response:
            frames = response.read().decode().removesuffix("\n\n").split("\n\n")
        assert frames.pop() == "data: [DONE]"
        chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
        deltas = [
            choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]
        ]
        assert "".join(deltas) == " token token token"
        assert chunks[-1]["usage"]["completion_tokens"] == 3
        assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][
            -2:
        ] == [None, "stop"]

    def test_a_provider_answers_as_openai_does(self, upstream: Server) -> None:
        answer = post_json(upstream, "/v1/chat/completions", {"model": "m", "max_tokens": 2})
        assert answer["choices"][0]["message"]["content"] == " token token"
        assert answer["usage"]["total_tokens"] == 13

    def test_there_are_two_hundred_models(self, upstream: Server) -> None:
        assert (
            len(
                {
                    model["name"]
                    for model in json.loads(ask(upstream.port, "/api/tags")[1])["models"]
                }
            )
            == 200
        )

    def test_models_of_the_works_are_listed(self, upstream: Server) -> None:
        asked_for = {json.loads(work.request.body)["model"] for work in WORKS} - {"ruled"}
        for path in ("/api/tags", "/api/ps"):
            models = json.loads(ask(upstream.port, path)[1])["models"]
            assert {model["name"] for model in models} >= asked_for, path

    def test_status_follows_the_request(self, upstream: Server) -> None:
        requests = (("/api/chat", "{", 400), ("/nowhere", "{}", 404), ("/api/show", "{}", 200))
        for path, body, status in requests:
            with post(upstream, path, body) as response:
                assert response.status == status
                json.loads(response.read())

    def test_a_connection_serves_one_request_after_the_other(self, upstream: Server) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=LIMIT_S)
        sockets = set()
        for _ in range(3):
            connection.request("POST", "/api/chat", '{"model":"m","options":{"num_predict":2}}')
            sockets.add(connection.sock)
            assert connection.getresponse().read().count(b"\n") == 3
        connection.close()
        assert len(sockets) == 1

    def test_the_tag_of_the_model_paces_the_tokens(self) -> None:
        assert answer_to(b"/api/chat", b'{"model":"bench:50ms"}', Script()).delay_s == 0.05

    def test_the_tag_of_the_model_sends_several_tokens_in_one_piece(self) -> None:
        answer = answer_to(
            b"/api/chat", b'{"model":"bench:50ms-x4","options":{"num_predict":7}}', Script()
        )
        assert [piece.count(b"created_at") for piece in answer.pieces] == [4, 4]

    def test_a_client_that_leaves_a_paced_stream_is_counted(self, upstream: Server) -> None:
        before = stats(upstream)["aborted"]
        with post(upstream, "/api/chat", '{"model":"bench:50ms"}') as response:
            assert response.readline()
            assert stats(upstream)["active"] == 1
        wait_until(
            lambda: stats(upstream)["aborted"] == before + 1 and stats(upstream)["active"] == 0
        )


@pytest.fixture
def rude_server() -> Iterator[int]:
    """The port of a server that promises ten bytes, sends four and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_rudely, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT_S)


def serve_rudely(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")


class TestLoad:
    def test_requests_and_lines_are_those_that_the_upstream_answered(
        self, upstream: Server
    ) -> None:
        before = stats(upstream)["paths"].get("/api/chat", 0)
        request = native_chat(7, stream=True)
        url = upstream.url(request.path)
        report = run_load(
            url, "--body", request.body, "--connections", "3", "--end-marker", request.end_marker
        )
        assert report["errors"] == 0
        assert report["requests"] >= 3
        assert report["requests"] == stats(upstream)["paths"]["/api/chat"] - before
        assert report["lines"] == report["requests"] * 8
        assert (
            0
            < report["first_byte_ms"]["p50"]
            <= report["total_ms"]["p50"]
            <= report["total_ms"]["max"]
        )

    def test_an_answer_without_its_end_is_an_error(self, upstream: Server) -> None:
        url = upstream.url("/api/chat")
        report = run_load(
            url, "--body", NATIVE_SINGLE.body, "--connections", "1", "--end-marker", "[DONE]"
        )
        assert report["errors"] == report["requests"] > 0
        assert list(report["error_samples"]) == ["answer without its end"]

    def test_another_status_than_200_is_an_error(self, upstream: Server) -> None:
        report = run_load(upstream.url("/nowhere"), "--connections", "1")
        assert report["errors"] == report["requests"] > 0
        assert "status 404" in next(iter(report["error_samples"]))

    def test_a_cut_answer_is_an_error_and_no_request(self, rude_server: int) -> None:
        report = run_load(f"http://127.0.0.1:{rude_server}/", "--connections", "1")
        assert report["requests"] == 0
        assert "connection lost" in next(iter(report["error_samples"]))

    def test_a_server_that_is_not_there_is_an_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        report = run_load(f"http://127.0.0.1:{port}/", "--connections", "1")
        assert report["requests"] == 0
        assert "cannot connect" in next(iter(report["error_samples"]))

    def test_lines_are_counted_alike_wherever_the_bytes_are_cut(self) -> None:
        body = b"data: one\n\ndata: two\n\n{}\n"
        halves = [(body[:cut], body[cut:]) for cut in range(len(body) + 1)]
        counted = [count_lines(first, b"") + count_lines(second, first) for first, second in halves]
        assert counted == [3] * len(halves)

    def test_percentiles_are_values_that_were_measured(self) -> None:
        assert percentiles([4.0, 1.0, 3.0, 2.0]) == {"p50": 2.0, "p90": 4.0, "p99": 4.0, "max": 4.0}
        assert set(percentiles([]).values()) == {0.0}


BURN = """
import subprocess, sys, time
if sys.argv[1:]:
    while time.process_time() < 0.1: pass
    print("burnt", flush=True)
    sys.stdin.read()
else:
    subprocess.run([sys.executable, __file__, "burn"])
"""


class TestMeter:
    def test_the_time_of_a_child_is_counted(self, tmp_path: Path) -> None:
        script = tmp_path / "burn.py"
        script.write_text(BURN)
        with subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"burnt\n"
            tree = process_tree(parent.pid)
            reading = read_cpu(parent.pid)
            parent.communicate()
        assert len(tree) == 2
        assert tree[0] == parent.pid
        assert reading.cpu_ns[tree[1]] >= 100_000_000

    def test_own_time_agrees_with_the_clock_of_the_process(self) -> None:
        before = time.process_time_ns()
        reading = read_cpu(os.getpid()).cpu_ns[os.getpid()]
        assert before <= reading <= time.process_time_ns()

    def test_a_process_that_went_is_not_measured_silently(self) -> None:
        with pytest.raises(RuntimeError, match="processes changed"):
            Reading({1: 5}).spent_s(Reading({1: 2, 2: 3}))

    def test_resident_memory_is_in_megabytes(self) -> None:
        assert 5 < resident_mb(os.getpid()) < 5000

    def test_memory_that_two_processes_share_is_counted_once(self) -> None:
        grown = "held = b'x' * 50_000_000; import os, sys; os.fork(); os.write(1, b'up\\n'); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", grown], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as parent:
            assert parent.stdout is not None
            assert [parent.stdout.readline() for _ in range(2)] == [b"up\n", b"up\n"]
            total, own = shared_mb(parent.pid), private_mb(parent.pid)
            resident = sum(map(resident_mb, process_tree(parent.pid)))
            parent.communicate()
        assert 50 < total < 75 < 100 < resident
        assert own < 10

    def test_what_the_core_did_is_counted(self) -> None:
        busy_s, began = read_busy_s(HERE), time.process_time()
        while time.process_time() < began + 0.3:
            pass
        assert read_busy_s(HERE) - busy_s > 0.2


@pytest.fixture
def bench(upstream: Server) -> Bench:
    """The upstream measured in the place of the gateway: it speaks the native dialect itself."""
    if not LONG:
        pytest.skip(LEFT_OUT)
    gateway = dataclasses.replace(upstream, name="gateway")
    gateways = {"gateway": gateway, "fleet": gateway}
    return Bench(EVERYWHERE, upstream, gateways, seconds=0.1, rounds=2, tries=1)


def native_work(name: str) -> Work:
    (work,) = works_named([name])
    return dataclasses.replace(work, request=work.native)


class TestRounds:
    @pytest.mark.parametrize("name", ["memory-idle", "stream", "embeddings", "latency"])
    def test_a_work_has_a_value_and_no_errors(self, bench: Bench, name: str) -> None:
        gateway = do_work(bench, native_work(name))["gateway"]
        assert gateway["error_samples"] == {}
        assert gateway["errors"] == 0
        assert isinstance(gateway["value"], float)

    def test_cpu_is_counted_per_request(self, bench: Bench) -> None:
        gateway = do_work(dataclasses.replace(bench, rounds=1), native_work("single"))["gateway"]
        assert (gateway["errors"], gateway["error_samples"]) == (0, {})
        assert gateway["value"] == gateway["cpu_ms_per_request"] > 0
        busy_ms = gateway["cpu_cores"] * gateway["seconds"] * 1000
        assert gateway["value"] * gateway["requests"] == pytest.approx(busy_ms)

    def test_a_share_compares_with_the_gateway_that_has_one_upstream(self, bench: Bench) -> None:
        gateway = do_work(dataclasses.replace(bench, rounds=1), native_work("routing"))["gateway"]
        assert gateway["errors"] == 0
        assert gateway["value"] == pytest.approx(
            100 * (gateway["cpu_ms_per_request"] / gateway["plain_ms"] - 1)
        )

    def test_a_work_is_done_by_its_own_gateway(self, bench: Bench) -> None:
        gateway = bench.gateways["gateway"]
        fleet = dataclasses.replace(gateway, port=1)
        chosen = dataclasses.replace(bench, gateways={"gateway": gateway, "fleet": fleet})
        assert chosen.gateway_of(native_work("routing")) is fleet
        assert chosen.gateway_of(native_work("single")) is gateway

    def test_memory_is_read_while_the_streams_are_open(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rounds, "OPEN_RAMP_S", 0.1)
        held = native_chat(60, stream=True, model="bench:50ms")
        work = dataclasses.replace(native_work("memory-1000"), request=held, connections=5)
        gateway = do_work(bench, work)["gateway"]
        assert gateway["errors"] == 0
        assert gateway["value"] > 5
        wait_until(lambda: stats(bench.upstream)["active"] == 0)

    def test_answers_that_the_upstream_did_not_give_are_an_error(self, bench: Bench) -> None:
        request = dataclasses.replace(NATIVE_SINGLE, upstream_path="/api/generate")
        gateway = do_work(bench, dataclasses.replace(native_work("single"), request=request))[
            "gateway"
        ]
        assert gateway["errors"] == bench.rounds
        assert (
            "not every answer came from /api/generate of the upstream" in gateway["error_samples"]
        )

    @pytest.mark.parametrize(
        ("others", "value", "quiet"), [((0.0, 0.3, 0.1), 2.0, 2), ((0.2, 0.3, 0.4), 1.0, 0)]
    )
    def test_the_lowest_quiet_round_counts_and_errors_add_up(
        self, others: tuple[float, ...], value: float, quiet: int
    ) -> None:
        values = [3.0, 1.0, 2.0]
        taken = [
            {"value": value, "errors": 1, "error_samples": {f"e{value}": 1}, "other_cores": other}
            for value, other in zip(values, others, strict=True)
        ]
        summary = summarize(taken)
        assert (summary["value"], summary["quiet_rounds"]) == (value, quiet)
        assert summary["values"] == values
        assert summary["errors"] == len(summary["error_samples"]) == 3

    def test_rounds_that_are_not_quiet_are_repeated_within_a_limit(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise = iter([QUIET_CORES + 0.1, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])

        def measure(*_: object) -> rounds.Measure:
            return {"value": 1.0, "errors": 0, "error_samples": {}, "other_cores": next(noise)}

        monkeypatch.setitem(rounds.MEASURES, "cpu_per_request", measure)
        bench = dataclasses.replace(bench, rounds=1, tries=TRIES)
        for taken in (2, TRIES):
            assert len(do_work(bench, native_work("single"))["gateway"]["values"]) == taken

    def test_the_floor_is_measured_in_the_same_rounds(self, bench: Bench, tmp_path: Path) -> None:
        with running_floor(tmp_path, HERE, 300) as floor:
            with post(floor, "/", NATIVE_SINGLE.body) as response:
                assert len(response.read()) == 300
            measures = do_work(
                dataclasses.replace(bench, floor=lambda: floor), native_work("stream")
            )
        assert measures["floor"]["error_samples"] == {}
        assert len(measures["floor"]["values"]) >= bench.rounds
        expected = measures["gateway"]["value"] / measures["floor"]["value"]
        assert ratio_to_floor(native_work("stream"), measures) == pytest.approx(expected)

    def test_a_token_is_compared_with_the_floor_in_the_same_unit(self) -> None:
        measures = {"gateway": {"value": 60.0}, "floor": {"value": 0.3}}
        assert ratio_to_floor(native_work("paced"), measures) == pytest.approx(0.2)

    def test_nginx_is_measured_beside(self, upstream: Server, bench: Bench, tmp_path: Path) -> None:
        with running_nginx(tmp_path, HERE, upstream) as nginx:
            if nginx is None:
                pytest.skip("nginx is not installed")
            measures = do_work(dataclasses.replace(bench, nginx=nginx), native_work("single"))
        assert measures["nginx"]["errors"] == 0
        assert measures["nginx"]["value"] > 0


class TestWorks:
    def test_every_gateway_has_a_configuration_that_can_be_used(self, tmp_path: Path) -> None:
        counts = {}
        for name, upstreams in BEHIND.items():
            path = tmp_path / f"{name}.yaml"
            text = (GATEWAY_CONFIG + upstreams).format(
                port=1, token=TOKEN, upstream="http://127.0.0.1:2", logs="x", defaults=""
            )
            path.write_text(text, encoding="utf-8")
            counts[name] = len(effective_upstreams(load_settings(path, {})))
        assert counts == dict.fromkeys(BEHIND, 1) | {"fleet": 8}

    def test_the_client_sends_fifteen_headers(self) -> None:
        names = {header.partition(":")[0] for header in CLIENT_HEADERS} | {"Host", "Content-Length"}
        assert len(names) == 15

    def test_works_are_found_by_their_names(self) -> None:
        assert works_named([]) == list(WORKS)
        assert [works_named([work.name]) for work in WORKS] == [[work] for work in WORKS]
        with pytest.raises(KeyError, match="no work 'sngle'; there are .*single"):
            works_named(["sngle"])

    def test_server_and_tools_share_no_core_when_there_are_two(self) -> None:
        if len(HERE) < 2:
            pytest.skip("one core")
        assert share_cores(1).are_apart


def make_row(name: str, value: float, errors: int = 0, *, quiet_rounds: int = 2) -> Row:
    (work,) = works_named([name])
    samples = {"status 500: broken": errors} if errors else {}
    gateway = {
        "value": value,
        "values": [value * 2, value],
        "errors": errors,
        "error_samples": samples,
    }
    gateway |= {"requests_per_s": 1234.5, "cpu_cores": 0.97, "quiet_rounds": quiet_rounds}
    floor = {"value": 0.5, "quiet_rounds": 2, "errors": 0, "error_samples": {}}
    return Row(
        work,
        {
            "gateway": gateway,
            "floor": floor,
            "nginx": {"value": 0.03, "errors": 0, "error_samples": {}},
        },
    )


class TestReport:
    def test_a_budget_is_compared(self) -> None:
        verdicts = {
            ("single", 0.25): "ok",
            ("single", 0.65): "ok",
            ("single", 0.7): "OVER",
            ("memory-idle", 51.0): "OVER",
        }
        rows = {key: make_row(*key) for key in verdicts}
        assert {key: row.verdict for key, row in rows.items()} == verdicts
        assert all(verdicts[key] in render_table([row]) for key, row in rows.items())

    def test_a_figure_without_a_quiet_round_is_not_judged(self) -> None:
        assert make_row("single", 0.25, quiet_rounds=0).verdict == "noisy"

    def test_a_work_without_budget_has_a_ratio_and_no_verdict(self) -> None:
        row = make_row("provider-single", 1.0)
        assert (row.ratio, row.verdict) == (2.0, "")

    def test_the_ratio_the_floor_the_peer_and_the_rate_are_shown(self) -> None:
        cells = render_table([make_row("single", 0.3)]).splitlines()[2].split()
        assert {"0.300", "0.600", "0.500", "0.030", "1234/s"} <= set(cells)

    def test_a_peer_that_failed_has_no_figure_and_spoils_no_other(self) -> None:
        row = make_row("single", 0.3)
        row.measures["nginx"]["errors"] = 2
        assert (row.values, row.errors) == ({"gateway": 0.3, "floor": 0.5}, 0)
        assert "0.030" not in render_table([row])

    def test_errors_are_said_below_the_table(self) -> None:
        assert render_table([make_row("single", 0.3, errors=2)]).endswith(
            "! single, gateway: 2 x status 500: broken"
        )

    def test_the_record_says_what_the_figures_depend_on(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "record.json"
        write_record(
            path, as_record([make_row("single", 0.25)], describe_machine(), {"quick": True})
        )
        record = json.loads(path.read_text())
        assert record["works"]["single"]["ratio"] == 0.5
        assert record["works"]["single"]["verdict"] == "ok"
        assert record["works"]["single"]["measures"]["nginx"]["value"] == 0.03
        assert record["machine"]["packages"]["gevent"]
        assert {"date", "cpu", "python"} <= record["machine"].keys()

    def test_a_profile_lists_what_costs_most_first(self) -> None:
        lines = render_functions("main;slow 3\nmain;slow;deep 1\nmain 4\n").splitlines()
        assert lines[0] == "8 samples"
        assert [line.split() for line in lines[2:]] == [
            ["50.0", "100.0", "main"],
            ["37.5", "50.0", "slow"],
            ["12.5", "12.5", "deep"],
        ]


GATEWAY = """
import http.client, os, re

port = int(re.search(r'base_url: "http://127.0.0.1:(\\d+)"', open(os.environ["OLLAMA_PROXY_CONFIG"]).read())[1])

def app(environ, start_response):
    body = b"{}"
    if environ["REQUEST_METHOD"] == "POST":
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", environ["PATH_INFO"], environ["wsgi.input"].read())
        body = connection.getresponse().read()
        connection.close()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The smallest checkout that can be measured."""
    root = tmp_path / "project"
    (root / "config").mkdir(parents=True)
    (root / "config" / "gunicorn.conf.py").write_text('worker_class = "gevent"\n')
    (root / "wsgi.py").write_text(textwrap.dedent(GATEWAY))
    return root


def run_benchmarks(project: Path, record: Path, *arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--project",
        str(project),
        "--json",
        str(record),
        "--quick",
    ]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@in_long
def test_a_checkout_is_measured_from_start_to_record(project: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    table = run_benchmarks(project, record, "--only", "single-native", "--no-peers")
    assert "single-native" in table
    assert json.loads(record.read_text())["works"]["single-native"]["value"] > 0


@in_long
def test_a_profile_names_the_functions_of_the_gateway(project: Path, tmp_path: Path) -> None:
    functions = run_benchmarks(project, tmp_path / "record.json", "--profile", "single-native")
    assert "project/wsgi.py:app" in (tmp_path / "profile-single-native.folded").read_text()
    assert "samples" in functions
