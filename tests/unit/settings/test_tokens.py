"""Tokens as the configuration writes them."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.tokens import AUTH, SCOPES, USUAL_SCOPES, Auth, Users, shape_of
from ollama_proxy.settings.yaml_file import parse_value
from tests.rig.tables import each_row

SECRET = "team-token-1"
DIGEST = hashlib.sha256(SECRET.encode()).digest()


def read(text: str) -> Auth:
    auth = AUTH.parse(parse_value(text, "line 1", "auth"))
    assert isinstance(auth, Auth)
    return auth


def test_a_text_is_a_token_with_the_usual_scopes() -> None:
    [token] = read(f"{{generate_tokens: [{SECRET}]}}").tokens()
    assert (token.name, token.digest, token.scopes, token.plain_in_file) == (
        "token-1",
        DIGEST,
        USUAL_SCOPES,
        True,
    )
    assert token.shape == shape_of(SECRET)
    assert SECRET not in repr(token)


def test_a_mapping_says_more() -> None:
    more = f"{{name: ci, sha256: {DIGEST.hex()}, scopes: [read], models: [qwen3*], expires: 2027-01-31}}"
    [token] = read(f"{{generate_tokens: [{more}]}}").tokens()
    assert (token.name, token.digest, token.scopes) == ("ci", DIGEST, {"read"})
    assert (token.models, token.expires, token.plain_in_file, token.shape) == (
        ("qwen3*",),
        date(2027, 1, 31),
        False,
        None,
    )


def test_a_token_names_the_header_with_its_users() -> None:
    [token] = read(
        "{generate_tokens: [{token: aaa, truncate: true, users: {header: X-OpenWebUI-User-Email}}]}"
    ).tokens()
    assert (token.truncate, token.users.header) == (True, "X-OpenWebUI-User-Email")


def test_what_a_token_sets_of_its_share_and_limits() -> None:
    [plain, more] = read(
        "{defaults: {weight: 3, limits: {concurrent: 4}}, generate_tokens: [aaa, {token: bbb, "
        "weight: 0.5, priority: background, limits: {requests_per_minute: 60, concurrent: null}, "
        "users: {header: X-User, limits: {concurrent: 1}}}]}"
    ).tokens()
    assert (plain.weight, plain.priority, plain.limits, plain.users) == (None, None, {}, Users())
    assert (more.weight, more.priority) == (0.5, "background")
    assert more.limits == {"requests_per_minute": 60, "concurrent": None}
    assert more.users == Users("X-User", {"concurrent": 1})


@each_row(
    ("field", "complaint"),
    [
        ("weight: 0", "weight must be a number from 0.001 to 1000"),
        ("weight: heavy", "weight must be a number from 0.001 to 1000, without quotes"),
        ("priority: low", "priority must be one of normal, background"),
        (
            "limits: {tokens_per_day: 0}",
            "limits.tokens_per_day must be a whole number from 1 to 1000000000000",
        ),
        (
            "limits: {gpu_seconds_per_day: 0}",
            "limits.gpu_seconds_per_day must be a number from 0.001 to 1000000000",
        ),
        (
            "users: {limits: {concurrent: 1}}",
            "users.limits needs users.header, which says who the user is",
        ),
        (
            "users: {header: X-User, limits: {concurrent: x}}",
            "users.limits.concurrent must be a whole number",
        ),
    ],
)
def test_complaint_about_a_share_or_a_limit_names_it(field: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(f"{{generate_tokens: [{{token: aaa, {field}}}]}}")
    [line] = raised.value.complaints
    assert line.startswith(f"line 1: auth.generate_tokens[1].{complaint}")


def test_an_unknown_limit_gets_a_suggestion_and_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as raised:
        read("{generate_tokens: [{token: aaa, limits: {token_per_day: 1}}]}")
    assert raised.value.complaints == [
        'line 1: unknown setting in auth.generate_tokens[1].limits, did you mean "tokens_per_day"?'
    ]


def test_a_list_for_managers_takes_the_right_from_the_others() -> None:
    auth = read("{generate_tokens: [aaa], manage_tokens: [bbb]}")
    assert [token.scopes for token in auth.tokens()] == [USUAL_SCOPES - {"manage"}, USUAL_SCOPES]


@each_row(
    ("lists", "scopes"),
    [
        ("{generate_tokens: [aaa]}", [SCOPES]),
        ("{generate_tokens: [{token: aaa, scopes: [read, metrics]}]}", [{"read", "metrics"}]),
        ("{generate_tokens: [{token: aaa, scopes: [admin]}]}", [{"admin", "metrics"}]),
        ("{generate_tokens: [aaa], manage_tokens: [bbb]}", [{"read", "generate"}, SCOPES]),
        (
            "{generate_tokens: [aaa], manage_tokens: [bbb], admin_tokens: [ccc, {token: ddd, scopes: [admin]}]}",
            [{"read", "generate"}, USUAL_SCOPES, SCOPES, {"admin", "metrics"}],
        ),
        ("{generate_tokens: [aaa], admin_tokens: []}", [USUAL_SCOPES]),
    ],
)
def test_who_may_do_what_depends_on_the_lists(lists: str, scopes: list[set[str]]) -> None:
    auth = read(lists)
    assert [auth.scopes_of(token) for token in auth.tokens()] == scopes


def test_empty_lists_refuse_all_and_absent_ones_do_not() -> None:
    assert read("{generate_tokens: []}").refuses_all
    assert read("{generate_tokens: null}").refuses_all
    assert not read("{max_failed_logins: 5}").refuses_all
    assert not read("{generate_tokens: [], enabled: false}").refuses_all


@each_row(
    "text",
    [
        "{generate_tokens: team-token-1}",
        "{generate_tokens: ['']}",
        "{generate_tokens: ['a b']}",
        "{generate_tokens: [{name: x}]}",
        f"{{generate_tokens: [{{token: a, sha256: {DIGEST.hex()}}}]}}",
        "{generate_tokens: [aaa, aaa]}",
        f"{{generate_tokens: [{{sha256: {hashlib.sha256(b'').hexdigest()}}}]}}",
        "{generate_tokens: [{token: aaa, scopes: []}]}",
        "{generate_tokens: [{token: aaa, scopes: [manage]}], manage_tokens: [bbb]}",
        "{generate_tokens: [{token: aaa, scopes: [admin]}], manage_tokens: [bbb]}",
        "{manage_tokens: [{token: aaa, scopes: [manage, admin]}], admin_tokens: [bbb]}",
        "{admin_tokens: [{token: aaa, scopes: [read]}]}",
        "{manage_tokens: [aaa], admin_tokens: [aaa]}",
        "{generate_tokens: [{token: aaa, name: x}, {token: bbb, name: x}]}",
        "{generate_tokens: [{token: bbb, users: X-User}]}",
        "{generate_tokens: [{token: bbb, users: {headers: X-User}}]}",
        "{generate_tokens: [{token: bbb, users: {header: X_User}}]}",
        *(
            f"{{generate_tokens: [{{token: bbb, users: {{header: {name}}}}}]}}"
            for name in ("Authorization", "proxy-authorization", "Cookie", "X-Api-Key", "api-key")
        ),
    ],
)
def test_complaint(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert all("aaa" not in line and SECRET not in line for line in raised.value.complaints)
