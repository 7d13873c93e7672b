"""Usage, requests and changes on the pages: what they say is what the API says."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.html_tables import read_rows
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient
from tests.rig.postgres import PostgresServer
from tests.rig.records_view import CountingBox, tokens_of

OPERATOR = "operator-token-1"
#: What a browser would take for a part of the page, where others can choose a name.
CANARY = "<img src=x onerror=alert(1)>"
USER_HEADER, PROMPT = "X-User", "canary-prompt-1"
SUMS = "requests errors prompt_tokens cached_tokens completion_tokens gpu_seconds cost".split()
PAGES = [
    "/admin/usage",
    "/admin/usage/data",
    "/admin/requests",
    "/admin/requests/rows",
    "/admin/audit",
]


box = module_fixture(lambda: CountingBox("box1", ["m", "other"]))


def make_config(box: CountingBox, **more: Any) -> dict[str, Any]:
    member = {"name": "member", "token": TOKEN, "users": {"header": USER_HEADER}}
    auth = {"generate_tokens": [member], "admin_tokens": [{"name": "operator", "token": OPERATOR}]}
    return {"auth": auth, "upstreams": [box.declared | {"gpu_hour_price": 3600}], **more}


def ask(
    gateway: LocalGateway, number: int, model: str = "m", token: str = TOKEN, **headers: str
) -> int:
    """One request of the box, with its number; the status of the answer."""
    messages = [{"role": "user", "content": f"{PROMPT} request {number}"}]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"model": model, "messages": messages}
    return gateway.ask("/v1/chat/completions", body, token=token, **sent).status


def api(gateway: LocalGateway, path: str) -> Any:
    return gateway.ask(f"/admin/api/{path}", token=OPERATOR).json()


@pytest.fixture(scope="module")
def gateway(box: CountingBox) -> Iterator[LocalGateway]:
    """With seven requests of two models and three people, one of which names a
    model that does not exist."""
    with LocalGateway(make_config(box), records=True) as running:
        made = running.ask(
            "/admin/api/tokens", {"name": "a-key", "note": CANARY}, token=OPERATOR
        ).json()
        wait_until(lambda: ask(running, 0, token=made["token"]) == 200, 10, "the key has no effect")
        for number in range(1, 6):
            assert (
                ask(running, number, "m" if number < 4 else "other", X_User=f"person-{number % 2}")
                == 200
            )
        assert ask(running, 9, CANARY, X_User=CANARY) in (400, 404)
        wait_until(
            lambda: len(good_rows(running)) == 6 and len(rows_of(running)) >= 7,
            20,
            "not all are imported",
        )
        yield running
        assert not running.events("internal_error")


def rows_of(gateway: LocalGateway) -> list[dict[str, Any]]:
    return list(api(gateway, "requests")["rows"])


def good_rows(gateway: LocalGateway) -> list[dict[str, Any]]:
    return [row for row in rows_of(gateway) if row["state"] == "ok" and row["completion_tokens"]]


@pytest.fixture(scope="module")
def operator(gateway: LocalGateway) -> PageClient:
    client = PageClient(gateway)
    client.get("/admin")
    assert client.sign_in(OPERATOR).status == 303
    return client


def write(sums: dict[str, Any]) -> list[str]:
    """Sums of the API as the page writes them."""
    counts = [f"{sums[name]:,}".replace(",", " ") for name in SUMS[:5]]
    cost = (
        "0.00"
        if not sums["cost"]
        else f"{sums['cost']:.2f}"
        if sums["cost"] >= 0.01
        else f"{sums['cost']:.4f}"
    )
    return [*counts, f"{sums['gpu_seconds']:.1f}", cost]


@pytest.mark.parametrize(
    "by", [["token"], ["model"], ["user"], ["upstream"], ["day", "model"], ["user", "dialect"]]
)
def test_the_numbers_of_the_page_are_those_of_the_api(
    by: list[str], gateway: LocalGateway, operator: PageClient
) -> None:
    report = api(gateway, f"usage?by={','.join(by)}")
    assert report["total"]["requests"] >= 7
    then = f"&then={by[1]}" if by[1:] else ""
    head, *rows, total = read_rows(operator.get(f"/admin/usage?range=month&by={by[0]}{then}").text)
    assert head[-1] == "Cost, USD" and total[1:] == write(report["total"])
    assert sorted(rows) == sorted(
        [row[name] or "–" for name in by] + write(row) for row in report["rows"]
    )


def test_the_tokens_on_the_page_are_those_that_the_box_counted(operator: PageClient) -> None:
    rows = read_rows(operator.get("/admin/usage?range=month&by=model&then=user&token=member").text)
    found = {
        tuple(row[:2]): (int(row[4]), int(row[6]))
        for row in rows[1:]
        if row[1].startswith("person")
    }
    for key, numbers in {
        ("m", "person-1"): (1, 3),
        ("m", "person-0"): (2,),
        ("other", "person-0"): (4,),
    }.items():
        tokens = [tokens_of(number) for number in numbers]
        assert found[key] == (
            sum(each.prompt for each in tokens),
            sum(each.completion for each in tokens),
        )


def test_filters_and_the_csv_are_those_of_the_api(
    gateway: LocalGateway, operator: PageClient
) -> None:
    text = operator.get("/admin/usage?range=month&by=user&token=member&model=m").text
    rows = read_rows(text)
    assert {"person-1", "person-0"} <= {row[0] for row in rows[1:-1]}
    (href,) = re.findall(r'download href="([^"]+)"', text)
    answer = operator.get(unescape(href))
    assert answer.headers.get("content-type") == "text/csv; charset=utf-8"
    found = list(csv.DictReader(io.StringIO(answer.text)))
    expected = api(gateway, "usage?by=user&token=member&model=m")["rows"]
    assert {row["user"]: row["requests"] for row in found} == {
        row["user"]: str(row["requests"]) for row in expected
    }


def test_the_chart_adds_up_to_the_table(gateway: LocalGateway, operator: PageClient) -> None:
    total = api(gateway, "usage")["total"]
    for measure, sent in (("requests", total["requests"]), ("cost", total["cost"])):
        chart = operator.get(f"/admin/usage/data?range=month&by=model&measure={measure}").json()
        assert sum(map(sum, (each["values"] for each in chart["series"]))) == pytest.approx(sent)
        assert all(len(each["values"]) == len(chart["labels"]) for each in chart["series"])


def test_requests_are_those_of_the_api_and_say_nothing_of_prompts(
    gateway: LocalGateway, operator: PageClient
) -> None:
    text = operator.get("/admin/requests").text
    ids = re.findall(r"<dt>Request</dt><dd>([^<]+)</dd>", text)
    assert ids == [row["id"] for row in rows_of(gateway)][: len(ids)] and len(ids) >= 7
    assert PROMPT not in text and "Yes." not in text and TOKEN not in text and OPERATOR not in text


@pytest.mark.parametrize(
    "query", ["state=refused", "token=a-key", "model=other", "since=2026-01-01T00:00"]
)
def test_filters_of_requests_are_those_of_the_api(
    query: str, gateway: LocalGateway, operator: PageClient
) -> None:
    ids = re.findall(
        r"<dt>Request</dt><dd>([^<]+)</dd>", operator.get(f"/admin/requests?{query}").text
    )
    assert ids and ids == [row["id"] for row in api(gateway, f"requests?{query}")["rows"]]


def test_a_request_appears_for_who_follows(gateway: LocalGateway, operator: PageClient) -> None:
    assert ask(gateway, 2, X_Request_Id="the-new-one") == 200
    wait_until(
        lambda: "the-new-one" in operator.get("/admin/requests/rows").text,
        10,
        "the page does not follow",
    )


def test_changes_are_listed_with_their_values(operator: PageClient) -> None:
    rows = read_rows(operator.get("/admin/audit").text)
    (made,) = [row for row in rows if "tokens.a-key" in row[3]]
    assert made[1:3] == ["operator", "127.0.0.1"] and f"note {CANARY}" in made[4]


def test_names_that_others_choose_are_texts(operator: PageClient) -> None:
    for path in (
        "/admin/usage?by=user&then=model",
        "/admin/usage?by=token",
        "/admin/requests",
        "/admin/audit",
    ):
        text = operator.get(path).text
        assert "<img" not in text, path
    for path in ("/admin/usage?by=user", "/admin/requests", "/admin/audit"):
        assert unescape(operator.get(path).text).count(CANARY) >= 1, path
    assert "default-src 'self'" in str(
        operator.get("/admin/usage").headers.get("content-security-policy")
    )


@pytest.mark.parametrize("path", PAGES)
def test_members_may_not_see_it(path: str, gateway: LocalGateway) -> None:
    client = PageClient(gateway)
    client.get("/admin")
    client.sign_in(TOKEN)
    answer = client.get(path)
    assert answer.status == 403 and "person-1" not in answer.text and "a-key" not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_it_without_a_session(path: str, gateway: LocalGateway) -> None:
    assert "person-1" not in PageClient(gateway).get(path).text


def test_pages_stay_up_while_the_database_is_gone(box: CountingBox) -> None:
    with PostgresServer() as server:
        config = make_config(box, records={"url": server.new_database()})
        with LocalGateway(config, records=True) as gateway:
            assert ask(gateway, 1) == 200
            client = PageClient(gateway)
            client.get("/admin")
            client.sign_in(OPERATOR)
            wait_until(
                lambda: "member" in client.get("/admin/usage").text,
                20,
                "the request is not imported",
            )
            server.kill()
            for path in ("/admin/usage", "/admin/requests", "/admin/audit"):
                answer = client.get(path)
                assert answer.status == 200 and "The database of the records" in answer.text, path
                assert "<tbody" not in answer.text
            assert client.get("/admin/usage/data").status == 503
            assert ask(gateway, 2) == 200
            server.start()
            wait_until(lambda: read_total(client) == ["2"], 30, "the second request is not there")


def read_total(client: PageClient) -> list[str]:
    rows = read_rows(client.get("/admin/usage?by=token").text)
    return rows[-1][1:2] if rows else []


def test_without_records_pages_say_how_to_have_them(box: CountingBox) -> None:
    with LocalGateway(make_config(box), coordinated=True) as gateway:
        client = PageClient(gateway)
        client.get("/admin")
        client.sign_in(OPERATOR)
        for path in ("/admin/usage", "/admin/requests", "/admin/audit"):
            answer = client.get(path)
            assert answer.status == 200 and "records.url" in answer.text, path
