"""English texts that the admin pages can translate."""

from __future__ import annotations

import ast

import orjson
import pytest

from ollama_proxy.errors import BadRequest, Conflict, NotFound
from ollama_proxy.texts import Translatable, text_from_json, text_to_json
from tests.rig.source_code import trees

INNER = Translatable("%(number)s boxes", number=4)
TEXT = Translatable("%(boxes)s of %(name)s are down", boxes=INNER, name="100 %(sure)s")


def test_it_is_its_english_text() -> None:
    assert (TEXT, f"{TEXT}") == (
        "4 boxes of 100 %(sure)s are down",
        "4 boxes of 100 %(sure)s are down",
    )
    assert orjson.loads(orjson.dumps({"what": TEXT})) == {
        "what": "4 boxes of 100 %(sure)s are down"
    }


def test_without_values_nothing_is_filled_in() -> None:
    assert Translatable("100 % of it") == "100 % of it"


def test_another_process_gets_the_same() -> None:
    sent = text_from_json(orjson.loads(orjson.dumps(text_to_json(TEXT))))
    assert isinstance(sent, Translatable)
    assert (sent, sent.message, sent.values) == (TEXT, TEXT.message, TEXT.values)
    assert isinstance(sent.values["boxes"], Translatable) and sent.values["boxes"].values == {
        "number": 4
    }


def test_any_other_text_stays_a_string() -> None:
    assert text_from_json(orjson.loads(orjson.dumps(text_to_json("plain")))) == "plain"


@pytest.mark.parametrize("error", [BadRequest(TEXT), Conflict(TEXT, param="name")])
def test_the_text_of_an_error_stays_translatable(error: BadRequest | Conflict) -> None:
    assert str(error) is TEXT
    assert isinstance(str(NotFound()), Translatable)


def is_call(node: ast.AST) -> bool:
    """Whether it makes a text that is translatable."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Translatable"
    )


def test_every_message_is_a_literal() -> None:
    """`make translations` reads the sources; tests/unit/admin/pages/test_language.py
    demands the translations."""
    calls = [
        (module, node)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if is_call(node)
    ]
    messages = [
        (f"{module}:{node.lineno}", node.args[0]) for module, node in calls if module != "texts"
    ]  # type: ignore[attr-defined]
    assert len(messages) > 50
    assert [
        place for place, each in messages if not (isinstance(each, ast.Constant) and each.value)
    ] == []


#: What passes the texts of others on, by module; their own tests check these.
PASSED_ON = {"gateway.gateway": {"fault", "UPGRADE"}, "admin.status": {"each['mend']"}}


def test_every_problem_of_the_status_is_translatable() -> None:
    wrong = [
        f"{module}: {text}"
        for module in trees()
        if not module.startswith("cli.")
        for text in fixed_texts(module)
    ]
    assert not wrong, "\n".join(wrong)


def fixed_texts(module: str) -> list[str]:
    """Return the texts of problems in a module that can't be translated."""
    nodes = list(ast.walk(trees()[module]))
    assigned = [
        (name.id, node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for name in find_names(node)
    ]
    names = {name for name, _ in assigned} - {
        name for name, value in assigned if not is_call(value)
    }
    known = names | PASSED_ON.get(module, set())
    return [
        ast.unparse(text)
        for text in find_texts(nodes)
        if not is_call(text) and ast.unparse(text) not in known
    ]


def find_names(node: ast.Assign) -> list[ast.Name]:
    return [each for each in node.targets if isinstance(each, ast.Name)]


def find_texts(nodes: list[ast.AST]) -> list[ast.expr]:
    """The values of `what` and `mend` in dicts that have both."""
    dicts = [
        {
            key.value: value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
        for node in nodes
        if isinstance(node, ast.Dict)
    ]
    return [
        each[name] for each in dicts if {"what", "mend"} <= each.keys() for name in ("what", "mend")
    ]


def test_problems_are_found() -> None:
    """Else the test above would say nothing."""
    found = {module for module, tree in trees().items() if find_texts(list(ast.walk(tree)))}
    assert found > {
        "admin.status",
        "coordination.client",
        "records.service",
        "records.spool",
        "server.app",
    }
