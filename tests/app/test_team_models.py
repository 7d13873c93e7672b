"""`models` of the configuration: names, lists and rights, seen from every API."""

from __future__ import annotations

import json
from itertools import product

import pytest

from tests.app import team
from tests.app.team import (
    ALIAS_ONLY,
    EVERY,
    NOBODY,
    TARGET_ONLY,
    Document,
    ask,
    each_one,
    each_text,
    each_vector,
    named,
    sent,
)
from tests.golden.face import TOKEN, forwarded, get, post
from tests.rig.calls import FACES
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Replay, recording
from tests.rig.tables import check_rows

gateway, stocked = team.gateway, team.stocked


# --- Names ----------------------------------------------------------------------------------------

SPELLINGS = [
    "coder",
    "Coder",
    "coder:latest",
    "library/coder",
    "registry.ollama.ai/library/coder:LATEST",
]


@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
@each_text
def test_S2_07_an_alias_is_answered_by_its_target_under_its_own_name(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, name, "coder", stream=stream)
    assert answer.status == 200
    assert sent(upstream, name)["model"] == "qwen3:8b"
    assert named(answer) == {"coder"}
    assert b"qwen3" not in answer.body
    assert b"upstream" in answer.body


@each_vector
def test_S2_07_an_alias_can_be_embedded_with(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, name, "coder")
    assert (answer.status, sent(upstream, name)["model"]) == (200, "qwen3:8b")
    assert named(answer) <= {"coder"}


def test_G12_the_answer_spells_an_alias_as_the_client_does(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, spelling: str) -> None:
        answer = ask(gateway, name, spelling)
        assert (answer.status, named(answer)) == (200, {spelling})
        assert sent(upstream, name)["model"] == "qwen3:8b"

    check_rows(product(FACES, SPELLINGS), check)


def test_G12_a_model_without_an_alias_is_asked_for_and_echoed_as_it_is_spelled(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, spelling: str) -> None:
        answer = ask(gateway, name, spelling)
        assert (named(answer), sent(upstream, name)["model"]) == ({spelling}, spelling)

    check_rows(product(FACES, ("other", "Other:LATEST", "library/other")), check)


@pytest.mark.parametrize("model", ["other", "plainly"])
@pytest.mark.parametrize("name", ["native chat", "native generate", "native embed"])
def test_native_bodies_pass_byte_for_byte_where_no_rule_changes_them(
    name: str, model: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    face = EVERY[name]
    body = b'{ "model" :"%s", %s ,"x":1.50}' % (
        model.encode(),
        json.dumps(face.body).encode()[1:-1],
    )
    body = body.replace(b'"model": "m", ', b"").replace(b'"model":"m",', b"")
    answered = b'{"model":"%s" , "x":1.50,"done":true}' % model.encode()
    upstream.script(
        face.upstream_path, [Head(200, {"Content-Type": "application/json"}), Chunk(answered)]
    )
    answer = gateway.ask(face.path, body, **{"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (200, answered)
    assert upstream.wait_for_request(path=face.upstream_path).body == body


@each_one
def test_default_model_may_be_an_alias(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, name, "")
    assert (answer.status, sent(upstream, name)["model"]) == (200, "qwen3:8b")
    assert named(answer) <= {"coder"}


@pytest.mark.parametrize("field", ["model", "name"])
def test_B10_show_tells_of_the_target(
    field: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/show", [Replay(recording("show"))])
    answer = post(gateway, "/api/show", {field: "CODER"})
    assert answer.json() == json.loads(recording("show").response)
    assert upstream.wait_for_request(path="/api/show").json()["model"] == "qwen3:8b"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/pull", {"model": "coder"}),
        ("POST", "/api/push", {"name": "coder"}),
        ("POST", "/api/create", {"model": "mine", "from": "coder"}),
        ("POST", "/api/copy", {"source": "coder", "destination": "mine"}),
        ("DELETE", "/api/delete", {"model": "coder"}),
    ],
)
def test_work_on_models_means_the_name_itself(
    method: str, path: str, body: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(path, [Json({"status": "success"})])
    assert gateway.ask(path, body, method=method).status == 200
    assert upstream.wait_for_request(path=path).json() == body


# --- Lists ----------------------------------------------------------------------------------------

SEEN: dict[str, list[str]] = {
    TOKEN: [
        "qwen3:8b",
        "coder",
        "Team Model",
        "tiny-test:latest",
        "shadowed",
        "pinned",
        "other:latest",
    ],
    ALIAS_ONLY: ["coder"],
    TARGET_ONLY: ["qwen3:8b", "coder", "Team Model"],
    NOBODY: [],
}
LISTS = {
    "tags": ("/api/tags", "models", "name", {}),
    "ps": ("/api/ps", "models", "name", {}),
    "openai": ("/v1/models", "data", "id", {}),
    "anthropic": ("/v1/models", "data", "id", {"anthropic-version": "2023-06-01"}),
}


def test_lists_show_the_names_of_the_team_that_a_token_may_use(gateway: LocalGateway) -> None:
    def check(kind: str, token: str) -> None:
        path, key, name, headers = LISTS[kind]
        answer = gateway.request(path=path, headers={**bearer(token), **headers})
        assert sorted(row[name] for row in answer.json()[key]) == sorted(SEEN[token])

    check_rows(product(LISTS, SEEN), check)


def test_alias_in_the_native_list_is_its_target_by_another_name(gateway: LocalGateway) -> None:
    rows = {row["name"]: row for row in get(gateway, "/api/tags").json()["models"]}
    assert rows["coder"] == rows["qwen3:8b"] | {"name": "coder", "model": "coder"}


@pytest.mark.parametrize("asked", ["coder", "CODER", "coder:latest", "library%2Fcoder"])
def test_alias_can_be_looked_up_by_every_spelling(asked: str, gateway: LocalGateway) -> None:
    answer = get(gateway, f"/v1/models/{asked}")
    assert (answer.status, answer.json()["id"]) == (200, asked.replace("%2F", "/"))


@pytest.mark.parametrize(
    "headers", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"]
)
@pytest.mark.parametrize(
    ("asked", "status"), [("ghost", 200), ("secret", 200), ("tiny-test", 200), ("nowhere", 404)]
)
def test_hidden_model_can_be_looked_up_by_its_name(
    asked: str, status: int, headers: dict[str, str], gateway: LocalGateway
) -> None:
    answer = gateway.request(path=f"/v1/models/{asked}", headers={**bearer(TOKEN), **headers})
    assert answer.status == status
    assert status == 404 or answer.json()["id"] == asked


def test_hidden_model_is_not_there_for_a_token_that_may_not_use_it(gateway: LocalGateway) -> None:
    assert gateway.ask("/v1/models/ghost", token=ALIAS_ONLY).status == 404


def test_rights_on_an_alias_are_no_rights_to_manage_a_real_model_of_its_name(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """The token may use qwen3, which `coder` stands for; a model of the server's that is
    called coder is another."""
    upstream.script("/api/delete", [Json({})])
    answer = gateway.ask("/api/delete", {"model": "coder"}, method="DELETE", token=TARGET_ONLY)
    assert answer.status == 404
    assert not forwarded(upstream)


@each_one
def test_error_of_the_model_server_calls_an_alias_by_its_name(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(EVERY[name].upstream_path, [Json({"error": "model 'qwen3:8b' not found"}, 404)])
    answer = ask(gateway, name, "Team Model")
    assert answer.status == 404
    assert "model 'Team Model' not found" in answer.text
    assert "qwen3" not in answer.text


@each_one
def test_name_that_a_pattern_covers_is_its_target(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = ask(gateway, name, "claude-opus-4-1")
    assert (answer.status, sent(upstream, name)["model"]) == (200, "qwen3:8b")
    assert "qwen3" not in answer.text


@pytest.mark.parametrize(
    "headers", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"]
)
def test_name_that_a_pattern_covers_can_be_looked_up(
    headers: dict[str, str], gateway: LocalGateway
) -> None:
    assert get(gateway, "/v1/models/claude-opus-4-1", **headers).json()["id"] == "claude-opus-4-1"


def test_hidden_model_can_be_used(gateway: LocalGateway) -> None:
    def check(name: str, model: str) -> None:
        assert ask(gateway, name, model).status == 200

    check_rows(product(EVERY, ("ghost", "secret")), check)


@each_text
def test_alias_shadows_a_real_model_of_its_name(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert ask(gateway, name, "shadowed").status == 200
    assert sent(upstream, name)["model"] == "tiny-test"


# --- Rights ---------------------------------------------------------------------------------------


def test_B10_a_token_for_the_alias_may_use_it_however_it_is_spelled(
    gateway: LocalGateway,
) -> None:
    def check(name: str, spelling: str) -> None:
        assert ask(gateway, name, spelling, ALIAS_ONLY).status == 200

    check_rows(product(EVERY, SPELLINGS), check)


def test_B10_a_token_for_the_alias_may_not_use_the_target_or_any_other_model(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, spelling: str) -> None:
        before = len(forwarded(upstream))
        answer = ask(gateway, name, spelling, ALIAS_ONLY)
        assert answer.status == 404
        assert spelling in answer.text
        assert forwarded(upstream)[before:] == []

    target = ("qwen3:8b", "QWEN3:8B", "library/qwen3:8b")
    others = ("other", "tiny-test", "coder:8b", "ns/coder")
    check_rows(product(EVERY, target + others), check)


def test_B10_a_token_for_the_target_may_use_its_aliases(gateway: LocalGateway) -> None:
    def check(name: str, spelling: str) -> None:
        assert ask(gateway, name, spelling, TARGET_ONLY).status == 200

    spellings = ("qwen3:8b", "Qwen3:8B", "coder", "Team Model", "library/coder")
    check_rows(product(EVERY, spellings), check)


@pytest.mark.parametrize("field", ["model", "name"])
@pytest.mark.parametrize(
    ("model", "status"), [("coder", 200), ("library/Coder", 200), ("qwen3:8b", 404)]
)
def test_B10_rights_count_for_show_by_either_field(
    field: str, model: str, status: int, gateway: LocalGateway
) -> None:
    assert gateway.ask("/api/show", {field: model}, token=ALIAS_ONLY).status == status


def test_B11_a_cloud_model_is_refused(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    def check(name: str, model: str) -> None:
        before = len(forwarded(upstream))
        answer = ask(gateway, name, model)
        assert answer.status == 403
        assert "cloud is disabled" in answer.text
        assert forwarded(upstream)[before:] == []

    models = ("gpt-oss:20b-cloud", "m:cloud", "M:CLOUD", "library/gpt-oss:20b-cloud")
    check_rows(product(EVERY, (*models, "qwen3:cloud", "covered:cloud")), check)


#: Models of the cloud, and the name under which each is asked for.
CLOUD = {
    "gpt-oss:120b-cloud": "gpt-oss:120b-cloud",
    "library/GPT-OSS:120b-cloud": "library/GPT-OSS:120b-cloud",
    "big": "kimi:cloud",
}


def test_B11_a_cloud_model_that_the_operator_names_may_be_used(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, model: str) -> None:
        assert ask(gateway, name, model).status == 200
        assert sent(upstream, name)["model"] == CLOUD[model]

    check_rows(product(EVERY, CLOUD), check)


@each_text
def test_B11_the_name_of_an_alias_of_a_cloud_model_opens_no_other(
    name: str, gateway: LocalGateway
) -> None:
    assert ask(gateway, name, "kimi:cloud").status == 403
