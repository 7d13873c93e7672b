"""/metrics of a real gateway: what all of its workers count, also those that have ended."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.canaries import canary, leaks
from tests.rig.boxes import WorkBox
from tests.rig.calls import EMBEDDINGS, FACES, TOKEN
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, encode_request, raw, request
from tests.rig.leaks import open_descriptors
from tests.rig.metrics import Samples, parse_metrics, scrape, total
from tests.rig.nginx import Nginx

LIMITED, PLAIN, READER, SECRET = (
    "token-with-a-limit",
    "token-for-chats",
    "token-for-metrics",
    canary("token"),
)
AUTH = {
    "generate_tokens": [
        TOKEN,
        {"name": "secret", "token": SECRET},
        {"name": "limited", "token": LIMITED, "limits": {"requests_per_minute": 1}},
        {"name": "plain", "token": PLAIN, "scopes": ["read", "generate"]},
        {"name": "reader", "token": READER, "scopes": ["metrics"]},
    ]
}
#: Calls with the labels that they are counted by.
CALLS = [
    *(
        (face.path, face.body | {"stream": stream})
        for face in FACES.values()
        for stream in (True, False)
    ),
    *((face.path, face.body) for face in EMBEDDINGS.values()),
]


box = module_fixture(lambda: WorkBox("box1", ["m"], slots=50))


@pytest.fixture
def gateway(box: WorkBox) -> Iterator[Gateway]:
    with Gateway(
        {"auth": AUTH, "upstreams": [box.declared]}, env={"GRACEFUL_TIMEOUT": "5"}
    ) as started:
        yield started
        assert "Traceback" not in started.output()


def ask_all(gateway: Gateway, times: int) -> None:
    """Every call so many times, by several clients at a time, so that both workers get some."""

    def ask(call: tuple[str, Any]) -> int:
        return gateway.ask(call[0], call[1]).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, CALLS * times)) == {200}


def by_route(samples: Samples, **labels: str) -> dict[str, float]:
    routes = {dict(has)["route"] for name, has in samples if name == "requests_total"}
    return {
        route: count
        for route in routes
        if (count := total(samples, "requests_total", route=route, **labels))
    }


def wait_until_counted(gateway: Gateway, times: int, seconds: float = 10) -> Samples:
    """A scrape in which every call has been counted so many times, and not once more."""
    expected = {path: times * count for path, count in Counter(path for path, _ in CALLS).items()}
    samples: Samples = {}

    def is_counted() -> bool:
        samples.clear()
        samples.update(scrape(gateway))
        return (
            by_route(samples, model="m:latest", upstream="box1", status="200", state="ok")
            == expected
        )

    wait_until(is_counted, seconds, lambda: f"{by_route(samples)}, not {expected}")
    return samples


def owners_of_files(gateway: Gateway) -> set[str]:
    """The process ids in the names of the files of counts, which its workers have open; 0: those
    of workers that have ended."""
    directories = {
        Path(link).parent
        for pid in gateway.worker_pids()
        for link in open_descriptors(pid).values()
        if link.endswith(".db") and "ollama-proxy-metrics-" in link
    }
    return {path.stem.rpartition("_")[2] for each in directories for path in each.glob("*.db")}


def test_counts_are_exact_across_workers_and_their_ends(gateway: Gateway) -> None:
    ask_all(gateway, 10)
    samples = wait_until_counted(gateway, 10)
    answers = total(samples, "request_duration_seconds_count")
    assert answers == total(samples, "first_byte_seconds_count") == 10 * len(CALLS)
    first = gateway.worker_pids()
    os.kill(min(first), signal.SIGKILL)
    wait_until(
        lambda: len(gateway.worker_pids() - first) == 1, 30, "no other worker took its place"
    )
    wait_until_counted(gateway, 10)
    ask_all(gateway, 10)
    wait_until_counted(gateway, 20)
    second = gateway.worker_pids()
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(
        lambda: len(gateway.worker_pids()) == 2 and not second & gateway.worker_pids(),
        30,
        "not replaced",
    )
    # Before the next scrape: the master does not wait for one when it adds up the files of a worker
    # that has ended, but does it when the next one ends.
    wait_until(
        lambda: owners_of_files(gateway) == {"0", *map(str, gateway.worker_pids())},
        30,
        lambda: f"files of {owners_of_files(gateway)}",
    )
    wait_until_counted(gateway, 20)
    ask_all(gateway, 10)
    samples = wait_until_counted(gateway, 30)
    assert total(samples, "request_duration_seconds_count") == 30 * len(CALLS)


def test_what_a_killed_worker_was_doing_is_over(gateway: Gateway, box: WorkBox) -> None:
    box.go.clear()
    try:
        streams = [
            gateway.open("/api/chat", FACES["native chat"].body, wait_for_head=False)
            for _ in range(6)
        ]
        wait_until(
            lambda: total(scrape(gateway), "in_flight", upstream="box1") == 6,
            10,
            "not all are in flight",
        )
        for pid in gateway.worker_pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: total(scrape(gateway), "in_flight", upstream="box1") == 0,
            30,
            "some still are in flight",
        )
        for stream in streams:
            stream.close()
    finally:
        box.go.set()


def test_refusals_and_hostile_names(gateway: Gateway) -> None:
    body = FACES["openai chat"].body
    for number in range(30):
        name = f'evil-{number}"}}\n# TYPE x counter\nx 1'
        assert gateway.ask(
            "/v1/chat/completions", body | {"model": name, "user": f"user-{number}"}
        ).status in (
            400,
            404,
        )
    wait_for_minute(5)
    for _ in range(3):
        gateway.ask("/v1/chat/completions", body, token="wrong-token-of-somebody")
        gateway.ask("/v1/chat/completions", body, token=LIMITED)
    gateway.ask("/no/such/path/at/all")
    wanted = {"invalid_token": 3.0, "rate_limit_exceeded": 2.0}

    def is_counted() -> bool:
        samples = scrape(gateway)
        refused = {reason: total(samples, "refused_total", reason=reason) for reason in wanted}
        return refused == wanted and total(samples, "requests_total", route="", status="404") == 1

    wait_until(is_counted, 10, "not all refusals are counted")
    samples = scrape(gateway)
    # A worker that knows no list and has answered no request knows no name, either.
    named = (
        total(
            samples, "requests_total", model="m:latest", status="429", state="refused", upstream=""
        )
        or 0
    )
    nameless = total(samples, "requests_total", route="/v1/chat/completions", model="", upstream="")
    assert nameless == 30 + 3 + 2 - named
    assert {dict(labels).get("model", "") for _, labels in samples} <= {"", "m:latest"}
    assert not [name for name, _ in samples if name.startswith("x")]


def test_neither_tokens_nor_prompts_nor_users_are_shown(gateway: Gateway) -> None:
    message = [{"role": "user", "content": canary("prompt")}]
    body = FACES["openai chat"].body | {"messages": message, "user": canary("user")}
    headers = {"X-Request-Id": canary("id"), "User-Agent": canary("agent")}
    for model in ("m", canary("model")):
        gateway.ask("/v1/chat/completions", body | {"model": model}, token=SECRET, **headers)
        gateway.ask(f"/k/{SECRET}/v1/chat/completions", body | {"model": model}, token=None)
        gateway.ask(f"/{canary('path')}", body, token=canary("wrong"))
    wait_until(lambda: total(scrape(gateway), "requests_total") == 6, 10, "not all are counted")
    assert not leaks({"metrics": gateway.ask("/metrics", token=None).body.decode()})


def test_gauges_of_the_machine_are_there_once(gateway: Gateway) -> None:
    ask_all(gateway, 1)
    samples = wait_until_counted(gateway, 1)
    expected = {"slots": 50, "waiting": 0, "in_flight": 0, "upstream_up": 1, "breaker_open": 0}
    assert {name: total(samples, name, upstream="box1") for name in expected} == expected
    assert (total(samples, "coordinator_up"), total(samples, "build_info")) == (1, 1)
    assert 0 <= (total(samples, "event_loop_lag_seconds") or 0) < 5
    assert total(samples, "records_up") is total(samples, "spool_bytes") is None


def test_metrics_are_there_while_nothing_else_is(box: WorkBox) -> None:
    upstreams = [box.declared | {"base_url": "http://127.0.0.1:9"}]
    config = {"auth": AUTH, "upstreams": upstreams, "server": {"max_in_flight": 1}}
    with Gateway(config) as gateway:
        wait_until(
            lambda: total(scrape(gateway), "upstream_up", upstream="box1") == 0, 10, "it is up"
        )
        assert gateway.ask("/api/chat", FACES["native chat"].body).status == 503
        assert total(scrape(gateway), "upstream_up", upstream="box1") == 0


def test_the_last_request_of_a_worker_is_counted(gateway: Gateway, box: WorkBox) -> None:
    before = gateway.worker_pids()
    box.go.clear()
    try:
        body = FACES["native chat"].body
        with gateway.open("/api/chat", body, wait_for_head=False) as stream:
            wait_until(
                lambda: total(scrape(gateway), "in_flight", upstream="box1") == 1,
                10,
                "it is not in flight",
            )
            os.kill(gateway.pid, signal.SIGHUP)
            wait_until(lambda: len(gateway.worker_pids() - before) == 2, 30, "there are no others")
            wait_until(lambda: len(gateway.worker_pids() & before) == 1, 30, "the idle one stayed")
            box.go.set()
            stream.read_all(10)
        wait_until(lambda: not gateway.worker_pids() & before, 30, "the old one stayed")
        wait_until(
            lambda: total(scrape(gateway), "requests_total", route="/api/chat") == 1,
            5,
            "it is not counted",
        )
    finally:
        box.go.set()


def test_a_head_has_no_body(gateway: Gateway) -> None:
    answer = raw(
        gateway.port,
        encode_request(f"127.0.0.1:{gateway.port}", "HEAD", "/metrics", None, bearer(TOKEN)),
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (
        head.startswith(b"HTTP/1.1 200 ") and b"text/plain; version=0.0.4" in head and body == b""
    )


def test_behind_the_shipped_nginx_only_a_token_reads_them(gateway: Gateway, tmp_path: Path) -> None:
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}") as nginx:
        sent: list[dict[str, str]] = [{}, bearer(PLAIN), bearer(READER)]
        answers = [request(nginx.url, path="/metrics", headers=headers) for headers in sent]
        assert [answer.status for answer in answers] == [403, 403, 200]
        assert parse_metrics(answers[-1].body.decode())
        assert '"path":"/metrics"' in nginx.access_log.read_text()


def test_metrics_that_are_off_leave_nothing_behind(box: WorkBox) -> None:
    with Gateway(
        {"auth": AUTH, "upstreams": [box.declared], "metrics": {"enabled": False}}
    ) as gateway:
        assert gateway.ask("/metrics", token=None).status == 404
        for pid in gateway.worker_pids():
            assert "prometheus" not in Path(f"/proc/{pid}/maps").read_text()
            assert not [
                link for link in Path(f"/proc/{pid}/fd").iterdir() if "metrics" in os.readlink(link)
            ]


def test_a_stopped_gateway_takes_its_directory_along(gateway: Gateway) -> None:
    [lock] = {
        os.readlink(link)
        for link in Path(f"/proc/{gateway.pid}/fd").iterdir()
        if "ollama-proxy-metrics-" in os.readlink(link)
    }
    assert Path(lock).is_dir()
    assert gateway.stop() == 0
    assert not Path(lock).exists()
