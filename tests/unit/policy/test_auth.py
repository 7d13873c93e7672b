"""Tokens to principals: every accepted form, and everything that only looks like one."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.errors import AuthError, MissingToken, TooManyGuesses
from ollama_proxy.policy.auth import (
    ANYONE,
    PATH_BOX_KEY,
    PATH_TOKEN_KEY,
    SCOPES,
    Authenticator,
    PathPrefix,
    Principal,
    is_valid,
    principal_of,
    sent_tokens,
)
from ollama_proxy.policy.brute_force import AuthFailureLimiter
from ollama_proxy.settings.schema import settings_from
from ollama_proxy.settings.sharing import TokenDefaults
from ollama_proxy.settings.state_dir import with_first_token
from ollama_proxy.settings.tokens import Auth, Token, Users
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row

TOKEN, OTHER, OLD = "sk-team-token:1", "sk-other", "sk-old"


def token(text: str, name: str, **fields: Any) -> Token:
    return Token(name, hashlib.sha256(text.encode()).digest(), **fields)


AUTH = Auth(
    generate_tokens=(
        token(TOKEN, "team", scopes=frozenset({"read"}), models=("m*",)),
        token(OTHER, "other"),
        token(OLD, "old", expires=date(2020, 1, 1)),
    )
)


def basic(password: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


FORMS: dict[str, dict[str, Any]] = {
    "raw": {"HTTP_AUTHORIZATION": TOKEN},
    "bearer": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"},
    "bearer in lower case": {"HTTP_AUTHORIZATION": f"bearer {TOKEN}"},
    "bearer with more spaces": {"HTTP_AUTHORIZATION": f"Bearer   {TOKEN} "},
    "x-api-key": {"HTTP_X_API_KEY": TOKEN},
    "api-key": {"HTTP_API_KEY": TOKEN},
    "basic": {"HTTP_AUTHORIZATION": basic(TOKEN)},
    "basic without user": {"HTTP_AUTHORIZATION": basic(TOKEN, "")},
    "path": {PATH_TOKEN_KEY: TOKEN},
}


@each_row("environ", FORMS.values())
def test_every_form_gives_the_same_principal(environ: dict[str, Any]) -> None:
    expected = Principal("team", frozenset({"read"}), ("m*",))
    assert Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate(environ) == expected


def test_one_token_in_all_forms_at_once_is_one_token() -> None:
    environ = {"HTTP_AUTHORIZATION": basic(TOKEN), "HTTP_X_API_KEY": TOKEN, "HTTP_API_KEY": TOKEN}
    assert (
        Authenticator(AUTH, clock=SYSTEM_CLOCK)
        .authenticate({**environ, PATH_TOKEN_KEY: TOKEN})
        .name
        == "team"
    )


@each_row("second", ["HTTP_X_API_KEY", "HTTP_API_KEY", PATH_TOKEN_KEY])
@each_row("other", [OTHER, "unknown"])
def test_two_different_tokens_are_refused_even_when_one_or_both_are_valid(
    second: str, other: str
) -> None:
    with pytest.raises(AuthError, match="two different tokens"):
        Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate(
            {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", second: other}
        )


NO_TOKEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "empty": {"HTTP_AUTHORIZATION": ""},
    "blank": {"HTTP_AUTHORIZATION": "   "},
    "only Bearer": {"HTTP_AUTHORIZATION": "Bearer"},
    "Bearer and a blank": {"HTTP_AUTHORIZATION": "Bearer  "},
    "empty api keys": {"HTTP_X_API_KEY": "", "HTTP_API_KEY": ""},
    "basic without password": {"HTTP_AUTHORIZATION": basic("")},
}


@each_row("environ", NO_TOKEN.values())
def test_a_request_without_a_token_is_told_so(environ: dict[str, Any]) -> None:
    with pytest.raises(MissingToken, match="未提供认证token"):
        Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate(environ)


WRONG: dict[str, dict[str, Any]] = {
    "unknown": {"HTTP_AUTHORIZATION": "Bearer nope"},
    "prefix": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN[:-1]}"},
    "longer": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}x"},
    "other case": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN.upper()}"},
    "other scheme": {"HTTP_AUTHORIZATION": f"Token {TOKEN}"},
    "digest instead of the token": {"HTTP_X_API_KEY": hashlib.sha256(TOKEN.encode()).hexdigest()},
    "bearer inside an api key": {"HTTP_X_API_KEY": f"Bearer {TOKEN}"},
    "comma list": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN},Bearer {TOKEN}"},
    "tab for the space": {"HTTP_AUTHORIZATION": f"Bearer\t{TOKEN}"},
    "non-ASCII": {"HTTP_AUTHORIZATION": "Bearer \xe4\xff"},
    "no-break space behind": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}\xa0"},
    "next-line character behind": {"HTTP_X_API_KEY": f"{TOKEN}\x85"},
    "basic that is no base64": {"HTTP_AUTHORIZATION": "Basic %%%"},
    "basic without colon": {
        "HTTP_AUTHORIZATION": "Basic " + base64.b64encode(OTHER.encode()).decode() + "!"
    },
    "junk far behind": {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}" + " " * 5000 + "junk"},
    "expired": {"HTTP_AUTHORIZATION": f"Bearer {OLD}"},
}


@each_row("environ", WRONG.values())
def test_what_is_not_exactly_a_token_is_refused(environ: dict[str, Any]) -> None:
    with pytest.raises(AuthError) as refused:
        Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate(environ)
    assert str(refused.value).startswith("非授权访问")


def test_unknown_and_expired_look_alike() -> None:
    refusals = []
    for sent in ("nope", OLD):
        with pytest.raises(AuthError) as refused:
            Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate({"HTTP_X_API_KEY": sent})
        refusals.append(
            (str(refused.value), refused.value.slug, refused.value.status, type(refused.value))
        )
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(("days_left", "expired"), [(-1, True), (0, False), (1, False)])
def test_a_token_works_through_its_last_day(
    clock: ManualClock, days_left: int, expired: bool
) -> None:
    last_day = clock.now(UTC).date() + timedelta(days_left)
    assert is_valid(token(TOKEN, "t", expires=last_day), clock) is not expired


def test_a_token_without_a_last_day_never_expires(clock: ManualClock) -> None:
    clock.advance(7000 * 365 * 86400)
    assert is_valid(token(TOKEN, "t"), clock)


def test_manage_tokens_are_tokens_too() -> None:
    both = Auth(generate_tokens=(token(TOKEN, "team"),), manage_tokens=(token(OTHER, "boss"),))
    assert (
        Authenticator(both, clock=SYSTEM_CLOCK).authenticate({"HTTP_API_KEY": OTHER}).name == "boss"
    )


def test_without_authentication_everybody_may_do_everything() -> None:
    assert Authenticator(Auth(enabled=False), clock=SYSTEM_CLOCK).authenticate({}) is ANYONE
    assert ANYONE.scopes == SCOPES


def test_an_empty_token_list_lets_nobody_in() -> None:
    with pytest.raises(AuthError):
        Authenticator(Auth(), clock=SYSTEM_CLOCK).authenticate({"HTTP_AUTHORIZATION": "Bearer x"})


def test_tokens_in_the_query_do_not_count() -> None:
    assert (
        sent_tokens(
            {"QUERY_STRING": f"token={TOKEN}&api_key={TOKEN}", "REQUEST_URI": f"/?key={TOKEN}"}
        )
        == []
    )


def behind(path: str, raw: str) -> dict[str, Any]:
    """The environ that the application sees behind the middleware."""
    seen: dict[str, Any] = {}
    PathPrefix(lambda environ, start: seen.update(environ))(
        {"PATH_INFO": path, "RAW_URI": raw}, None
    )
    return seen


@each_row(
    ("path", "raw", "path_behind", "raw_behind"),
    [
        ("/k/tok/api/chat", "/k/tok/api/chat", "/api/chat", "/api/chat"),
        ("/k/tok/", "/k/tok/", "/", "/"),
        ("/k/tok", "/k/tok", "/", "/"),
        ("/k/tok/v1/models", "/k/tok/v1/models?a=1", "/v1/models", "/v1/models?a=1"),
        ("/k/tok/api/tags", "/k/%74%6Fk/api/tags", "/api/tags", "/api/tags"),
    ],
)
def test_the_token_is_taken_off_the_path(
    path: str, raw: str, path_behind: str, raw_behind: str
) -> None:
    seen = behind(path, raw)
    assert (seen[PATH_TOKEN_KEY], seen["PATH_INFO"], seen["RAW_URI"]) == (
        "tok",
        path_behind,
        raw_behind,
    )


@each_row(
    ("raw", "token", "box", "behind_it"),
    [
        ("/k/tok/box/box-1/api/pull", "tok", "box-1", "/api/pull"),
        ("/box/box-1/api/pull?a=1", None, "box-1", "/api/pull?a=1"),
        ("/box/b%6Fx-1/api/pull", None, "box-1", "/api/pull"),
        ("/box/box-1", None, "box-1", "/"),
        ("/box/box-1/k/tok/api/pull", None, "box-1", "/k/tok/api/pull"),
        ("/box//api/pull", None, None, "/box//api/pull"),
        ("/k/box/box/box/box/x", "box", "box", "/box/x"),
    ],
)
def test_the_server_is_taken_off_the_path(
    raw: str, token: str | None, box: str | None, behind_it: str
) -> None:
    seen = behind(unquote(raw.partition("?")[0]), raw)
    assert (seen.get(PATH_TOKEN_KEY), seen.get(PATH_BOX_KEY), seen["RAW_URI"]) == (
        token,
        box,
        behind_it,
    )
    assert seen["PATH_INFO"] == behind_it.partition("?")[0]


@each_row("path", ["/api/chat", "/", "/kk/tok/api/tags", "/K/tok/", "/x/k/tok/", "/boxes/box-1/"])
def test_other_paths_stay_as_they_are(path: str) -> None:
    seen = behind(path, path)
    assert (seen["PATH_INFO"], seen["RAW_URI"], PATH_TOKEN_KEY in seen) == (path, path, False)


@pytest.mark.parametrize(
    "raw", ["/%6b/tok/api/tags", "//k/tok/api/tags", "/k/other/api/tags", "http://h/k/tok/api"]
)
def test_a_raw_path_that_means_something_else_is_not_passed_on(raw: str) -> None:
    assert behind("/k/tok/api/tags", raw)["RAW_URI"] == "/%"


@pytest.mark.parametrize("path", ["/k//api/tags", "/k/", "/k"])
def test_an_empty_path_token_is_none(path: str) -> None:
    seen = behind(path, path)
    assert (seen["PATH_INFO"], PATH_TOKEN_KEY in seen) == (path, False)
    with pytest.raises(MissingToken):
        Authenticator(AUTH, clock=SYSTEM_CLOCK).authenticate(seen)


DEFAULTS = TokenDefaults(
    3.0, "background", {"requests_per_minute": 60, "concurrent": 8, "cost_per_day": None}
)
OWN = {"requests_per_minute": 5, "concurrent": None, "tokens_per_day": 9}


@pytest.mark.parametrize(
    ("fields", "weight", "is_background", "limits"),
    [
        ({}, 3.0, True, {"requests_per_minute": 60, "concurrent": 8}),
        (
            {"weight": 0.5, "priority": "normal"},
            0.5,
            False,
            {"requests_per_minute": 60, "concurrent": 8},
        ),
        ({"limits": OWN}, 3.0, True, {"requests_per_minute": 5, "tokens_per_day": 9}),
    ],
)
def test_what_a_token_does_not_say_is_the_default(
    fields: dict[str, Any], weight: float, is_background: bool, limits: dict[str, float]
) -> None:
    principal = principal_of(token(TOKEN, "team", **fields), Auth(defaults=DEFAULTS))
    assert (principal.weight, principal.is_background, principal.limits) == (
        weight,
        is_background,
        limits,
    )
    assert (principal.user_limits, principal.user_key) == ({}, "")


def test_users_behind_a_token_have_limits_of_their_own() -> None:
    users = Users("X-OpenWebUI-User-Email", {"concurrent": 1, "cost_per_day": None})
    principal = principal_of(token(TOKEN, "page", users=users), Auth(defaults=DEFAULTS))
    assert (principal.user_key, principal.user_limits) == (
        "HTTP_X_OPENWEBUI_USER_EMAIL",
        {"concurrent": 1},
    )


@pytest.mark.parametrize("gone", [{"disabled": True}, {"expires": date(2020, 1, 1)}])
def test_a_token_that_is_not_valid_any_more_is_refused_and_not_logged(gone: dict[str, Any]) -> None:
    principal = Authenticator(
        Auth(generate_tokens=(token(TOKEN, "team"),)), clock=SYSTEM_CLOCK
    ).authenticate({"HTTP_X_API_KEY": TOKEN})
    now = Authenticator(
        Auth(managed_tokens=(token(TOKEN, "team", **gone), token(OTHER, "other"))),
        clock=SYSTEM_CLOCK,
    )
    with pytest.raises(AuthError):
        now.authenticate({"HTTP_X_API_KEY": TOKEN})
    assert (now.knows(principal), now.is_token(TOKEN)) == (False, True)
    assert now.knows(now.authenticate({"HTTP_X_API_KEY": OTHER}))


def test_principals_are_built_once() -> None:
    authenticator = Authenticator(
        Auth(generate_tokens=(token(TOKEN, "team"),), defaults=DEFAULTS), clock=SYSTEM_CLOCK
    )
    first, second = (authenticator.authenticate({"HTTP_X_API_KEY": TOKEN}) for _ in range(2))
    assert first is second
    assert (first.weight, hash(first)) == (3.0, hash(second))


def test_without_authentication_nobody_is_limited() -> None:
    principal = Authenticator(
        Auth(enabled=False, defaults=DEFAULTS), clock=SYSTEM_CLOCK
    ).authenticate({})
    assert (principal.weight, principal.is_background, principal.limits) == (1.0, False, {})


@pytest.mark.parametrize("lists", ["", f", generate_tokens: ['{TOKEN}']"])
def test_defaults_apply_to_the_first_token_and_to_plain_strings(tmp_path: Path, lists: str) -> None:
    text = f"auth: {{defaults: {{weight: 2, limits: {{concurrent: 3}}}}{lists}}}"
    loaded = settings_from(text.encode(), tmp_path / "c.yaml", {})
    settings, first = with_first_token(loaded, {"STATE_DIRECTORY": str(tmp_path)})
    principal = Authenticator(settings.auth, clock=SYSTEM_CLOCK).authenticate(
        {"HTTP_X_API_KEY": first.text if first else TOKEN}
    )
    assert (principal.name, principal.weight) == ("first-start" if first else "token-1", 2.0)
    assert principal.limits == {"concurrent": 3}


class Door:
    """The password check of an authenticator, with few guesses allowed."""

    def __init__(self, password_hash: str = "hash-1") -> None:
        self.failures = AuthFailureLimiter(3, clock=SYSTEM_CLOCK)
        self.checks = 0
        self.authenticator = Authenticator(
            AUTH, self.failures, password_hash=password_hash, clock=SYSTEM_CLOCK
        )

    def try_password(self, password: str, client: str = "192.0.2.1", user: str = "admin") -> str:
        """How it went."""

        def is_right() -> bool:
            self.checks += 1
            return (user, password) == ("admin", "right")

        try:
            self.authenticator.check_password(user, password, is_right, client)
        except AuthError:
            return "wrong"
        except TooManyGuesses:
            return "refused"
        return "right"


def test_guesses_of_a_password_are_limited_for_their_address() -> None:
    door = Door()
    assert [door.try_password(f"guess {number}") for number in range(5)] == ["wrong"] * 3 + [
        "refused"
    ] * 2
    assert door.try_password("right") == "refused"
    assert door.checks == 3


def test_guesses_from_many_addresses_are_limited_together() -> None:
    door = Door()
    assert door.try_password("right", "192.0.2.9") == "right"
    results = [door.try_password(f"guess {number}", f"192.0.2.{number}") for number in range(5)]
    assert results == ["wrong"] * 3 + ["refused"] * 2
    # Else the right password would be the one guess that is not refused.
    assert door.try_password("right", "192.0.2.77") == "refused"
    assert door.try_password("right", "192.0.2.9") == "right"


def test_users_that_do_not_exist_are_no_way_around_the_limit() -> None:
    door = Door()
    assert [door.try_password("right", user=name) for name in ("root", "Admin", "x", "y")] == [
        "wrong"
    ] * 3 + ["refused"]


def test_a_wrong_password_that_is_sent_again_costs_nothing() -> None:
    door = Door()
    assert [door.try_password("wrong") for _ in range(9)] == ["wrong"] * 9
    assert door.checks == 1


def test_a_password_that_was_wrong_may_be_that_of_the_next_hash() -> None:
    door = Door()
    assert door.try_password("new") == "wrong"
    door.authenticator = Authenticator(
        AUTH, door.failures, password_hash="hash-2", clock=SYSTEM_CLOCK
    )
    assert door.try_password("new") == "wrong"
    assert door.checks == 2


def test_who_has_signed_in_with_the_password_is_known_until_it_changes() -> None:
    administrator = Door().authenticator.administrator
    assert administrator is not None and administrator.scopes == SCOPES
    assert Door().authenticator.find(administrator.digest) == administrator
    assert Door("hash-2").authenticator.find(administrator.digest) is None
    assert Authenticator(AUTH, clock=SYSTEM_CLOCK).find(administrator.digest) is None


def test_a_name_stands_for_a_valid_token() -> None:
    day = datetime.now(UTC).date() - timedelta(days=1)
    tokens = (
        token("a", "anna"),
        token("b", "bert", disabled=True),
        token("c", "cleo", expires=day),
    )
    authenticator = Authenticator(Auth(generate_tokens=tokens), clock=SYSTEM_CLOCK)
    found = {
        name: authenticator.find_named(name) is not None
        for name in ("anna", "bert", "cleo", "Anna", "")
    }
    assert found == {"anna": True, "bert": False, "cleo": False, "Anna": False, "": False}
