"""Wrong tokens are counted by address; past the limit none is looked at that was not
good from there before."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.errors import AuthError, MissingToken, TooManyGuesses
from ollama_proxy.policy import brute_force as guesses_module
from ollama_proxy.policy.auth import Authenticator, Principal
from ollama_proxy.policy.brute_force import MOST_REPEATED, WINDOW_S, AuthFailureLimiter, origin_of
from ollama_proxy.settings.tokens import Auth, Token
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row

LIMIT = 3
HOME, OFFICE = "198.51.100.7", "203.0.113.9"


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


AUTH = Auth(
    generate_tokens=(
        Token("team", digest("team-token")),
        Token("other", digest("other-token")),
        Token("old", digest("old-token"), expires=date(2020, 1, 1)),
    )
)


class Office:
    """An authenticator with its guesses, a clock that stands still, and what was told."""

    def __init__(self, limit: int = LIMIT, seen: bytearray | None = None) -> None:
        self.clock = ManualClock()
        self.told: list[tuple[str, int]] = []
        self.guesses = AuthFailureLimiter(
            limit, tell=lambda *what: self.told.append(what), seen=seen, clock=self.clock
        )
        self.authenticator = Authenticator(AUTH, self.guesses, clock=self.clock)

    def ask(self, token: str, address: str = OFFICE) -> Principal:
        return self.authenticator.authenticate(
            {"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}, address
        )

    def guess(self, times: int, address: str = OFFICE, name: str = "guess") -> None:
        """So many different wrong tokens, each of which is looked at."""
        for number in range(times):
            with pytest.raises(AuthError):
                self.ask(f"{name}-{number}", address)


@pytest.fixture
def office() -> Office:
    return Office()


def test_guesses_are_looked_at_up_to_the_limit_and_not_beyond(office: Office) -> None:
    office.guess(LIMIT)
    for token in ("guess-more", "other-token"):
        with pytest.raises(TooManyGuesses):
            office.ask(token)


def test_below_the_limit_a_right_token_is_right(office: Office) -> None:
    office.guess(LIMIT - 1)
    assert office.ask("team-token").name == "team"


def test_a_token_that_was_good_from_there_stays_good(office: Office) -> None:
    assert office.ask("team-token").name == "team"
    office.guess(LIMIT)
    assert office.ask("team-token").name == "team"
    with pytest.raises(TooManyGuesses):
        office.ask("other-token")


def test_a_token_that_was_good_elsewhere_is_a_guess_here(office: Office) -> None:
    office.ask("team-token", HOME)
    office.guess(LIMIT)
    with pytest.raises(TooManyGuesses):
        office.ask("team-token")
    assert office.ask("team-token", HOME).name == "team"


def test_another_address_does_not_pay_for_it(office: Office) -> None:
    office.guess(LIMIT)
    office.guess(LIMIT, HOME)
    assert [told for told, _ in office.told] == [OFFICE, HOME]


def test_after_a_minute_it_is_over(office: Office) -> None:
    office.guess(1, name="first")
    office.clock.advance(WINDOW_S - 1)
    office.guess(LIMIT - 1)
    with pytest.raises(TooManyGuesses) as refused:
        office.ask("team-token")
    assert refused.value.retry_after_s == 1
    office.clock.advance(1)
    assert office.ask("team-token").name == "team"
    office.guess(LIMIT, name="again")
    with pytest.raises(TooManyGuesses):
        office.ask("other-token")


@pytest.mark.parametrize(("passed", "wait"), [(0, 60), (0.5, 60), (30.7, 30), (59.9, 1)])
def test_a_refusal_says_how_long_to_wait(office: Office, passed: float, wait: int) -> None:
    office.guess(LIMIT)
    office.clock.advance(passed)
    with pytest.raises(TooManyGuesses) as refused:
        office.ask("guess-more")
    assert (refused.value.retry_after_s, refused.value.status, refused.value.slug) == (
        wait,
        429,
        "rate_limited",
    )
    assert str(refused.value).startswith("非授权访问次数过多: too many wrong tokens")


def test_trying_on_does_not_make_it_longer(office: Office) -> None:
    office.guess(LIMIT)
    for _ in range(10):
        office.clock.advance(5)
        with pytest.raises(TooManyGuesses):
            office.ask("guess-more")
    office.clock.advance(10)
    assert office.ask("team-token").name == "team"


def test_it_is_told_once_a_minute(office: Office) -> None:
    for minute in range(2):
        office.guess(LIMIT, name=f"minute-{minute}")
        for _ in range(5):
            with pytest.raises(TooManyGuesses):
                office.ask("guess-more")
        office.clock.advance(WINDOW_S)
    assert office.told == [(OFFICE, LIMIT)] * 2


def test_the_same_old_token_again_and_again_counts_once(office: Office) -> None:
    """A client whose token was withdrawn must not lock out those who share its address."""
    for _ in range(50):
        with pytest.raises(AuthError):
            office.ask("withdrawn")
    assert office.ask("team-token").name == "team"


def test_many_old_tokens_in_turn_are_guesses() -> None:
    office = Office(limit=3 * (MOST_REPEATED + 1))
    for _ in range(3):
        office.guess(MOST_REPEATED + 1)
    with pytest.raises(TooManyGuesses):
        office.ask("guess-0")


def test_an_expired_token_counts_like_an_unknown_one(office: Office) -> None:
    office.guess(LIMIT - 1)
    with pytest.raises(AuthError):
        office.ask("old-token")
    with pytest.raises(TooManyGuesses):
        office.ask("team-token")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTP_AUTHORIZATION": "Bearer "},
        {"HTTP_AUTHORIZATION": "Bearer a", "HTTP_X_API_KEY": "b"},
        {"HTTP_X_API_KEY": "x" * 5000},
    ],
    ids=["none", "empty", "two", "too long"],
)
def test_what_tries_out_nothing_does_not_count(office: Office, environ: dict[str, str]) -> None:
    for _ in range(5 * LIMIT):
        with pytest.raises(AuthError):
            office.authenticator.authenticate(environ, OFFICE)
    assert office.ask("team-token").name == "team"


def test_whoever_sends_no_token_is_told_that_also_while_others_guess(office: Office) -> None:
    office.guess(LIMIT)
    with pytest.raises(MissingToken):
        office.ask("")


def test_a_good_token_that_is_withdrawn_looks_like_a_guess(office: Office) -> None:
    office.ask("team-token")
    office.guess(LIMIT)
    office.authenticator = Authenticator(Auth(), office.guesses, clock=office.clock)
    for _ in range(2):
        with pytest.raises(TooManyGuesses):
            office.ask("team-token")


def test_another_token_list_does_not_begin_anew(office: Office) -> None:
    office.guess(LIMIT)
    office.authenticator = Authenticator(AUTH, office.guesses, clock=office.clock)
    with pytest.raises(TooManyGuesses):
        office.ask("team-token")


def test_the_limit_can_be_changed_while_it_runs(office: Office) -> None:
    office.guess(LIMIT)
    office.guesses.limit = LIMIT + 1
    office.guess(1, name="one-more")
    with pytest.raises(TooManyGuesses):
        office.ask("team-token")
    office.guesses.limit = 0
    assert office.ask("team-token").name == "team"


def test_0_switches_it_off() -> None:
    office = Office(limit=0)
    office.guess(300)
    assert (office.ask("team-token").name, office.told) == ("team", [])


def test_without_guesses_nobody_counts() -> None:
    authenticator = Authenticator(AUTH, clock=SYSTEM_CLOCK)
    for number in range(300):
        with pytest.raises(AuthError) as refused:
            authenticator.authenticate({"HTTP_X_API_KEY": f"guess-{number}"}, OFFICE)
        assert refused.type is AuthError


def test_nobody_is_counted_where_no_token_is_asked_for(office: Office) -> None:
    open_to_all = Authenticator(Auth(enabled=False), office.guesses, clock=office.clock)
    assert {
        open_to_all.authenticate({"HTTP_X_API_KEY": str(n)}, OFFICE).name for n in range(50)
    } == {"anyone"}


@each_row(
    ("address", "origin"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_address_belongs_to_whoever_has_its_network(address: str, origin: str) -> None:
    assert origin_of(address) == origin


def test_other_addresses_of_the_same_network_are_no_way_around_it(office: Office) -> None:
    for number in range(LIMIT):
        office.guess(1, f"2001:db8::{number}", name=f"from-{number}")
    with pytest.raises(TooManyGuesses):
        office.ask("team-token", "2001:db8::ffff")
    assert office.ask("team-token", "2001:db8:0:1::1").name == "team"


def test_memory_is_bounded_and_the_oldest_goes_first(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses_module, "MOST_KEPT", 4)
    for number in range(6):
        office.guess(LIMIT, f"198.51.100.{number}")
    assert len(office.guesses._windows) == 4
    assert office.ask("team-token", "198.51.100.1").name == "team"
    with pytest.raises(TooManyGuesses):
        office.ask("team-token", "198.51.100.2")


def test_a_token_that_was_good_in_one_worker_is_known_to_the_others() -> None:
    seen = bytearray(guesses_module.SEEN_BITS // 8)
    one, two = Office(seen=seen), Office(seen=seen)
    one.ask("team-token")
    two.guess(LIMIT)
    assert two.ask("team-token").name == "team"
    with pytest.raises(TooManyGuesses):
        two.ask("other-token")


def test_what_was_right_and_what_was_wrong_is_known_for_each_address() -> None:
    office = Office()
    guesses = office.guesses
    guesses.note_right(HOME, digest("right"))
    assert (
        guesses.has_passed(HOME, digest("right")),
        guesses.has_passed(OFFICE, digest("right")),
    ) == (True, False)
    guesses.note_wrong(HOME, digest("wrong"))
    assert (
        guesses.has_failed(HOME, digest("wrong")),
        guesses.has_failed(OFFICE, digest("wrong")),
    ) == (True, False)
    assert not guesses.has_failed(HOME, digest("right"))
    office.clock.advance(WINDOW_S)
    assert not guesses.has_failed(HOME, digest("wrong"))


def test_a_full_window_is_closed_to_everything() -> None:
    guesses = Office().guesses
    guesses.check(HOME)
    for number in range(LIMIT):
        guesses.note_wrong(HOME, digest(str(number)))
    guesses.note_right(HOME, digest("right"))
    guesses.check(HOME, digest("right"))
    with pytest.raises(TooManyGuesses):
        guesses.check(HOME)
