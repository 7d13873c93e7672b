"""Tokens of the configuration are found in whatever a client sends, and what is no
token stays as it is."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest

from ollama_proxy.policy.configured_tokens import GATEWAY_SHAPE, REDACTED, ConfiguredTokens
from ollama_proxy.settings.state_dir import new_token
from ollama_proxy.settings.tokens import shape_of
from tests.rig.tables import check_rows, each_row

PLAIN = [
    "team-token-1",
    "s3cret.with+marks/in=it",
    "op_" + "4Zz" * 12 + "xy",
    "abcdef",
    "p" * 512,
    "a:b&c%d",
]


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def known(*tokens: str) -> ConfiguredTokens:
    """Tokens that the file has in plain text."""
    configured = ConfiguredTokens()
    configured.replace({digest(token): shape_of(token) for token in tokens})
    return configured


def hashed(*tokens: str) -> ConfiguredTokens:
    """Tokens of which the file has the digest only."""
    configured = ConfiguredTokens()
    configured.replace({digest(token): None for token in tokens})
    return configured


AROUND = [
    "{}",
    "x{}",
    "{}x",
    "xyz{}abc",
    "/foo={}",
    "?key={}&x=1",
    "Bearer {}",
    "{}{}",
    "a b {} c",
    "é{}é",
    "{0} {0}",
]


def test_a_plain_token_is_found_anywhere() -> None:
    def check(token: str, around: str) -> None:
        text = around.format(token, token)
        shown = known(*PLAIN).redact(text)
        assert token not in shown
        assert REDACTED in shown
        assert known(*PLAIN).is_in(text)

    check_rows(product(PLAIN, AROUND), check)


def test_a_hashed_token_is_found_between_marks() -> None:
    def check(token: str, around: str) -> None:
        assert token not in hashed(token).redact(around.format(token))

    marks = ("{}", "/foo={}", "?key={}&x=1", "Bearer {}", "a b {} c", '{{"{}"}}', "x:{}", "({})")
    check_rows(product(PLAIN[:4], marks), check)


def test_a_hashed_token_is_found_anywhere_once_it_was_used() -> None:
    def check(token: str, around: str) -> None:
        tokens = hashed(token)
        assert tokens.learn(digest(token), token)
        assert not tokens.learn(digest(token), token)
        assert token not in tokens.redact(around.format(token, token))
        tokens.replace({digest(token): None, digest("other"): None})
        assert token not in tokens.redact(around.format(token, token))

    check_rows(product(PLAIN, AROUND), check)


@each_row("around", AROUND)
def test_a_token_that_the_gateway_made_is_found_anywhere_though_hashed(around: str) -> None:
    token = new_token()
    assert shape_of(token) == GATEWAY_SHAPE
    assert token not in hashed(token).redact(around.format(token, token))


@pytest.mark.parametrize("token", ["abc", "x1", "q"])
def test_a_short_token_is_found_where_it_stands_alone(token: str) -> None:
    for tokens in (known(token), hashed(token)):
        assert tokens.redact(token) == REDACTED
        assert token not in tokens.redact(f"/2/{token}/2").replace(REDACTED, "")
        assert tokens.redact(f"2{token}2") == f"2{token}2"


def test_a_withdrawn_token_is_forgotten_and_an_unknown_one_never_learned() -> None:
    tokens = known("team-token-1")
    tokens.replace({digest("team-token-2"): shape_of("team-token-2")})
    assert tokens.redact("team-token-1") == "team-token-1"
    assert not tokens.learn(digest("team-token-3"), "team-token-3")
    assert tokens.redact("team-token-3") == "team-token-3"


def test_a_text_that_was_clean_is_looked_at_again_after_a_change() -> None:
    tokens = known("another-token")
    assert tokens.redact("my team-token-1") == "my team-token-1"
    tokens.replace({digest("team-token-1"): shape_of("team-token-1")})
    assert tokens.redact("my team-token-1") == f"my {REDACTED}"


@each_row(
    "text", ["/api/chat", "qwen3:8b", "POST", "", "hf.co/org/Model-GGUF:Q4_K_M", "模型", "\ud800"]
)
@each_row("tokens", [known(*PLAIN), hashed(*PLAIN), ConfiguredTokens()])
def test_other_texts_stay_the_same_object(tokens: ConfiguredTokens, text: str) -> None:
    assert tokens.redact(text) is text
    assert tokens.shown(text, 100) == text


def test_no_part_of_a_token_is_left_by_a_cut() -> None:
    token = "zy" * 250

    def check(place: int) -> None:
        shown = known(token).shown("." * place + token + "." * 900, 100)
        assert "zy" not in shown
        assert len(shown) <= 100
        assert "zy" not in known(token).shown("." * place + token, 100)

    check_rows([(place,) for place in range(60, 101)], check)


def test_one_token_inside_another_leaves_nothing_of_either() -> None:
    shown = known("token-one", "token-one-and-more").redact("x token-one-and-more y token-one")
    assert shown == f"x {REDACTED} y {REDACTED}"


def test_what_is_remembered_is_bounded() -> None:
    tokens = known("team-token-1")
    for number in range(5000):
        tokens.redact(f"a name of a model {number}")
    tokens.redact("y" * 10_000)
    assert len(tokens._clean) <= 1024
    assert max(map(len, tokens._clean)) <= 256
