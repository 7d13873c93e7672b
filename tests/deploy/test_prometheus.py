"""The alert rules and the dashboard, checked by Prometheus' own tools and against a
scrape of a real gateway."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.boxes import WorkBox, running
from tests.rig.calls import FACES, TOKEN
from tests.rig.deadline import wait_until
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.metrics import scrape, total
from tests.rig.programs import require_program
from tests.rig.prometheus import Prometheus, run_prometheus
from tests.rig.tables import check_rows

RULES = PROJECT / "deploy" / "prometheus" / "alerts.yml"
TESTS = RULES.with_name("alerts_test.yml")
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((PROJECT / "deploy" / "grafana" / "ollama-proxy.json").read_text())
PAGE = (PROJECT / "docs" / "metrics.md").read_text()

#: What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$upstream": ".*", "$model": ".*"}
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
#: Names of the contract, which queries may use; those of histograms without their endings.
NAMES = set(re.findall(r"`(ollama_proxy_\w+)`", PAGE))


def filled(query: str) -> str:
    """A query as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def labels_of(expression: str) -> dict[str, set[str]]:
    """By each metric of an expression: the labels that it is selected by, and
    those that its sums have."""
    grouped = {
        name for found in re.findall(r"\bby \(([^)]*)\)", expression) for name in found.split(", ")
    }
    metrics = re.findall(r"\b(ollama_proxy_\w+|up)\b(?:\{([^}]*)\})?", expression)
    return {
        name: grouped | set(re.findall(r"(\w+)\s*(?:=~|!=|=|!~)", selector))
        for name, selector in metrics
    }


@pytest.mark.parametrize("command", [("check", "rules", RULES), ("test", "rules", TESTS)])
def test_rules_are_valid_and_pass_their_tests(command: tuple[str, str, Path]) -> None:
    done = subprocess.run(
        [require_program("promtool"), *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires_and_says_what_to_do() -> None:
    tests = [
        each
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for each in test["alert_rule_test"]
    ]
    assert {each["alertname"] for each in tests if each["exp_alerts"]} == {
        rule["alert"] for rule in ALERTS
    }
    for rule in ALERTS:
        assert rule["annotations"].keys() == {"summary", "action"} and rule["labels"]["severity"]


def test_ids_and_places_of_panels_are_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) == 23


# A real scrape.


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway that has something of everything to tell: waits, loads, cost,
    refusals and records."""
    box = WorkBox("box1", ["m"], slots=1, takes_s=0.2)
    with (
        running(box),
        Gateway(
            {
                "auth": {"generate_tokens": [TOKEN]},
                "upstreams": [
                    box.declared | {"gpu_hour_price": 2},
                    {"name": "demo", "kind": "demo"},
                ],
                "models": {"m": {"price": {"input": 1, "output": 2}}},
            },
            records=True,
        ) as started,
    ):
        body = FACES["openai chat"].body | {"stream": False}
        clients = [
            threading.Thread(
                target=started.ask, args=("/v1/chat/completions", body), kwargs={"timeout": 60}
            )
            for _ in range(6)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        started.ask("/v1/chat/completions", body, token="wrong-token")
        wait_until(lambda: total(scrape(started), "requests_total") == 7, 20, "not all are counted")
        wait_until(lambda: total(scrape(started), "records_up") == 1, 30, "there are no records")
        yield started


@pytest.fixture(scope="module")
def prometheus(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the configuration that the page shows, but for the address and
    the place of the rules."""
    shown = re.search(r"```yaml\n(scrape_configs:.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    text = (
        shown[1]
        .replace("localhost:8080", f"localhost:{gateway.port}")
        .replace("/opt/ollama-proxy", str(PROJECT))
    )
    assert str(gateway.port) in text and str(RULES) in text
    with run_prometheus(
        tmp_path_factory.mktemp("prometheus"), f"global: {{scrape_interval: 1s}}\n{text}"
    ) as server:
        wait_until(lambda: server.query("ollama_proxy_build_info"), 30, "nothing was scraped")
        yield server


def test_a_scrape_has_the_names_of_the_page_and_no_others(gateway: Gateway) -> None:
    samples = scrape(gateway)
    ending = re.compile(r"_(bucket|sum|count)$")
    assert {f"ollama_proxy_{ending.sub('', name)}" for name, _ in samples} == NAMES


def test_a_scrape_has_the_labels_of_the_page(gateway: Gateway) -> None:
    samples = scrape(gateway)
    for names, labels in re.findall(r"^\| (`ollama_proxy_[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE):
        for name in re.findall(r"`ollama_proxy_(\w+)`", names):
            found = {
                frozenset(dict(each)) - {"le"}
                for has, each in samples
                if has.removesuffix("_count") == name
            } - {frozenset()}
            assert found <= {frozenset(re.findall(r"`(\w+)`", labels))}, name


def test_a_scrape_pleases_the_linter(gateway: Gateway) -> None:
    text = gateway.ask("/metrics", token=None).body
    done = subprocess.run(
        [require_program("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_example_scrapes_the_gateway_and_loads_the_rules(prometheus: Prometheus) -> None:
    [target] = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["labels"]["job"]) == ("up", "ollama-proxy")
    [group] = prometheus.get("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} == {rule["alert"] for rule in ALERTS}
    wait_until(
        lambda: all(each["health"] == "ok" for each in _rules(prometheus)),
        90,
        lambda: str(_rules(prometheus)),
    )


def _rules(prometheus: Prometheus) -> list[Any]:
    [group] = prometheus.get("rules")["groups"]
    return list(group["rules"])


def test_queries_of_the_dashboard_use_what_is_there(prometheus: Prometheus) -> None:
    def check(name: str, query: str) -> None:
        assert "$" not in query
        prometheus.query(query)
        check_names(prometheus, query)

    check_rows([(name, filled(query)) for name, query in QUERIES.items()], check)


def test_alerts_use_what_is_there_and_a_healthy_gateway_has_none(prometheus: Prometheus) -> None:
    def check(alert: str, expression: str) -> None:
        check_names(prometheus, expression)
        if alert != "OllamaProxyTokensGuessed":
            # A machine that stood still is seen as a lag of the loop, for half a minute.
            wait_until(lambda: not prometheus.query(expression), 60, "it fires")

    check_rows([(rule["alert"], rule["expr"]) for rule in ALERTS], check)


def check_names(prometheus: Prometheus, expression: str) -> None:
    """Raises AssertionError unless every metric in an expression is there, with the labels
    that it is used with."""
    for name, labels in labels_of(expression).items():
        series = prometheus.get("series", **{"match[]": name})
        assert series, f"there is no {name}"
        missing = labels - set().union(*series)
        # Labels that are empty are not stored.
        assert missing <= ({"model"} if name.startswith("ollama_proxy_breaker_open") else set()), (
            name,
            missing,
        )


def test_variables_of_the_dashboard_have_values(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert found is not None and variable["query"]["query"] == variable["definition"]
        assert prometheus.get(f"label/{found[2]}/values", **{"match[]": found[1]})
