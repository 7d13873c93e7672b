"""The audit trail through the API."""

from __future__ import annotations

from tests.unit.admin.conftest import Api


def test_changes_are_listed_page_by_page_newest_first(api: Api) -> None:
    token = api.ask("POST", "tokens", {"name": "web", "note": "first"}, status=201)["token"]
    api.ask("PATCH", "tokens/web", {"note": "second"})
    api.ask("DELETE", "tokens/web", status=204)
    page = api.ask("GET", "audit?limit=2")
    rest = api.ask("GET", f"audit?limit=2&cursor={page['cursor']}")
    rows = [*page["rows"], *rest["rows"]]
    assert [(row["action"], row["subject"], row["by"], row["from"]) for row in rows] == [
        (action, "tokens.web", "operator", "127.0.0.1") for action in ("delete", "change", "create")
    ]
    assert (rows[1]["before"], rows[1]["after"]) == ({"note": "first"}, {"note": "second"})
    assert rest["cursor"] is None and token not in str(rows)
    assert api.ask("GET", "audit?limit=0", status=400)["error"]["param"] == "limit"
    assert api.ask("GET", "audit?cursor=x", status=400)["error"]["param"] == "cursor"
