"""Keys of the tokens of another gateway: which are made, under which names, and which are not."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from ollama_proxy.records.audit import Actor
from ollama_proxy.records.foreign_tokens import ForeignToken
from ollama_proxy.records.token_import import ImportResult, import_tokens
from ollama_proxy.records.tokens import create_token, list_tokens, read_digests
from ollama_proxy.settings import token_digest

ACTOR: Actor = {"by": "cli:ann", "from": ""}


def foreign(token: str, name: str = "", **values: object) -> ForeignToken:
    found = ForeignToken("row 1", name, **values)  # type: ignore[arg-type]
    found.take_token(token)
    return found


def run(
    connection: Connection, *found: ForeignToken, enable_restricted: bool = False
) -> list[ImportResult]:
    in_file = {token_digest("sk-in-file").hex(): "of-file"}
    return list(
        import_tokens(
            connection, found, in_file=in_file, actor=ACTOR, enable_restricted=enable_restricted
        )
    )


def test_a_key_has_the_fields_and_the_digest_of_its_token(connection: Connection) -> None:
    fields = {"models": ["qwen3*"], "expires": "2100-01-31", "limits": {"requests_per_minute": 60}}
    [result] = run(connection, foreign("sk-CANARY-1", "web", fields=fields))
    assert (result.name, result.skipped, result.is_disabled) == ("web", "", False)
    [key] = list_tokens(connection)
    assert {name: key[name] for name in fields} == fields
    assert (key["prefix"], key["disabled"], key["note"], key["created_by"]) == (
        "sk-CANA",
        False,
        "imported",
        "cli:ann",
    )
    [stored] = read_digests(connection)
    assert stored["digest"] == token_digest("sk-CANARY-1").hex()


def test_a_token_that_is_there_already_is_skipped(connection: Connection) -> None:
    create_token(
        connection, name="old", fields={}, actor=ACTOR, digest=token_digest("sk-old").hex()
    )
    tokens = ("sk-old", "sk-in-file", "sk-new", "sk-new")
    results = run(connection, *(foreign(token, "web") for token in tokens))
    there = "it is there already, as "
    assert [result.skipped for result in results] == [
        f"{there}old",
        f"{there}of-file",
        "",
        f"{there}web",
    ]
    assert run(connection, foreign("sk-new", "other"))[0].name == "web"
    assert len(list_tokens(connection)) == 2


def test_names_are_those_of_keys_and_unique(connection: Connection) -> None:
    names = ("chat page", "chat-page", "张三", "", "of-file", "x" * 80, "张三's laptop")
    results = run(connection, *(foreign(f"sk-{number}", name) for number, name in enumerate(names)))
    expected = [
        "chat-page",
        "chat-page-2",
        "imported",
        "imported-2",
        "of-file-2",
        "x" * 59,
        "s-laptop",
    ]
    assert [result.name for result in results] == expected
    notes = {key["name"]: key["note"] for key in list_tokens(connection)}
    assert (notes["imported"], notes["imported-2"]) == ("imported as 张三", "imported")


@pytest.mark.parametrize("enable", [False, True])
def test_a_token_with_a_restriction_is_disabled_unless_it_may_lose_it(
    connection: Connection, enable: bool
) -> None:
    results = run(
        connection,
        foreign("sk-1", "narrow", restrictions=["addresses 10.0.0.0/8"]),
        foreign("sk-2", "off", fields={"disabled": True}),
        enable_restricted=enable,
    )
    assert [result.is_disabled for result in results] == [not enable, True]
    assert [key["disabled"] for key in list_tokens(connection)] == [not enable, True]


def test_what_is_not_valid_here_is_skipped_and_the_rest_is_made(connection: Connection) -> None:
    refused = ForeignToken("row 1", "gone", refusal="it expired on 2020-01-31")
    wrong = foreign("sk-1", "wrong", fields={"limits": {"requests_per_minute": 10**15}})
    results = run(connection, refused, wrong, foreign("sk-2", "good"))
    assert [bool(result.skipped) for result in results] == [True, True, False]
    assert results[1].skipped.startswith("limits.requests_per_minute must be")
    assert [key["name"] for key in list_tokens(connection)] == ["good"]
    assert connection.execute(text("SELECT count(*) FROM audit")).scalar() == 1
