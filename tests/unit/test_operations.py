"""docs/operations.md names every state, event and header that there is, and its numbers are
those of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ollama_proxy import errors
from ollama_proxy.gateway import retries
from ollama_proxy.gateway.exchange import DIAGNOSTIC_HEADERS
from ollama_proxy.server import watchdog, worker
from ollama_proxy.settings.provider_profiles import Profile
from ollama_proxy.telemetry import chat_log, redaction
from ollama_proxy.upstreams.fleet import balancer, breaker, health, model_index, model_list, node
from tests.configuration_page import shown_default
from tests.rig.source_code import module_name, trees
from tests.unit.test_documents import codes, prose, table_with

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/operations.md"


# Reading the package.


def texts(node_: ast.AST) -> list[str]:
    """Every text in a piece of code."""
    return [
        each.value
        for each in ast.walk(node_)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


class Event(NamedTuple):
    """A line of the log as the program writes it."""

    name: str
    fields: frozenset[str]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef))


@cache
def events() -> list[Event]:
    """What is logged, with the fields that can be read off the code."""
    found = [
        event
        for tree in trees().values()
        for function in functions(tree)
        for event in _events(function)
    ]
    return sorted({event for event in found if re.fullmatch("[a-z_]+", event.name)})


def _events(function: ast.FunctionDef) -> Iterator[Event]:
    values = {
        target.id: each.value
        for each in ast.walk(function)
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    for each in ast.walk(function):
        if isinstance(each, ast.Dict) and "event" in _keys(each):
            yield from (
                Event(name, _keys(each) - {"event", "time", "level"})
                for name in _names(each, values)
            )
        if isinstance(each, ast.Call) and (_is_log(each.func) or any(map(_is_log, each.args[:1]))):
            named = each.args[0] if _is_log(each.func) and not _is_note(each.func) else each.args[1]
            kept = _keys_within(each, values) | {
                word.arg for word in each.keywords if word.arg and word.arg not in _NO_FIELDS
            }
            yield from (Event(name, frozenset(kept)) for name in _names(named, values))


#: Words of the calls themselves.
_NO_FIELDS = ("extra", "exc_info")


def _is_log(function: ast.expr) -> bool:
    if _is_note(function):
        return True
    ours = (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
    )
    return ours and getattr(function, "attr", "") in ("info", "warning", "error")


def _is_note(function: ast.expr) -> bool:
    return (
        getattr(function, "id", None) == "note" or getattr(function, "attr", None) == "_note_event"
    )


def _keys(value: ast.Dict) -> frozenset[str]:
    return frozenset(str(key.value) for key in value.keys if isinstance(key, ast.Constant))


def _keys_within(code: ast.AST, values: Mapping[str, ast.expr]) -> set[str]:
    """The keys of the mappings in a piece of code, also of those that it only names."""
    found: set[str] = set()
    for each in ast.walk(code):
        if isinstance(each, ast.Dict):
            found |= _keys(each)
        elif isinstance(each, ast.Name) and isinstance(values.get(each.id), ast.Dict):
            found |= _keys_within(values[each.id], {})
    return found - {"fields"}


def _names(named: ast.AST, values: Mapping[str, ast.expr]) -> list[str]:
    """The names of events that an expression stands for."""
    if isinstance(named, ast.Dict):
        chosen = [
            value
            for key, value in zip(named.keys, named.values, strict=True)
            if texts(key or named) == ["event"]
        ]
        return [name for value in chosen for name in _names(value, values)]
    if isinstance(named, ast.Name):
        return texts(values[named.id]) if named.id in values else []
    return texts(named) if isinstance(named, ast.Constant) else []


def conditions() -> list[str]:
    """The states that a node can be in."""
    (found,) = [
        each for each in functions(trees()["upstreams.fleet.node"]) if each.name == "condition"
    ]
    named = {word for statement in found.body[1:] for word in texts(statement)}
    return sorted(named - {"open"})  # what its breaker calls being down


def headers() -> list[str]:
    """The headers of the gateway's own, those of requests and those of answers."""
    found = {
        name
        for tree in trees().values()
        for text in texts(tree)
        for name in re.findall(r"X-Ollama-[A-Z]\w+", text)
    }
    return sorted((found - {"X-Ollama-Proxy"}) | set(DIAGNOSTIC_HEADERS.values()))


# The page has them.


def rows(first: str) -> list[list[str]]:
    return table_with(PAGE, first)


def test_every_state_has_its_row_and_no_cell_is_empty() -> None:
    assert sorted(codes(row[0]) for row in rows("`up`")) == sorted(
        [state] for state in (*conditions(), "hidden")
    )
    assert [row for row in rows("`up`") if not all(row)] == []


def test_events_are_read_off_the_code() -> None:
    assert Event("upstream_down", frozenset({"upstream", "version", "reason"})) in events()
    assert Event("chat_log_behind", frozenset({"records", "effect"})) in events()
    assert Event("log_lines_dropped", frozenset({"lines"})) in events()


def test_every_event_has_its_row() -> None:
    named = [name for row in rows("`worker_started`") for name in codes(row[0])]
    assert sorted(named) == sorted({event.name for event in events()})


def test_fields_of_events_are_explained() -> None:
    explained = {
        name: set(codes(row[1])) for row in rows("`worker_started`") for name in codes(row[0])
    }
    wrong = [
        f"{event.name}: {sorted(event.fields - explained.get(event.name, set()))}"
        for event in events()
        if event.fields - explained.get(event.name, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_faults_of_upstreams_have_the_slugs_that_the_page_names() -> None:
    (row,) = [each for each in rows("`worker_started`") if codes(each[0]) == ["upstream_error"]]
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.UpstreamError)
    ]
    assert {kind.slug for kind in kinds} == set(codes(row[2])) - {"error"}


def test_every_header_is_explained() -> None:
    explained = {name for row in rows("`X-Ollama-Box`") for name in codes(row[0])}
    assert set(headers()) - explained == set()


# The numbers.

#: What the page says of the constants in these modules, with the numbers left out.
SAID: dict[str, tuple[ModuleType, ...]] = {
    "in lists that are at most {BELIEVED_FOR_S} s old": (model_index,),
    "Lists that are older than {SHOWN_FOR_S} s (a provider's: {PROVIDER_LIST_S} s more)": (
        model_index,
        model_list,
    ),
    "takes longer than {WAIT_S} s does not delay the answer": (model_index,),
    "adds {RETRY_SHARE}, a retry takes 1, and the budget holds at most {RETRY_STORE}": (balancer,),
    (
        "two checks {SECOND_LOOK_S} s apart fail, or {UNREACHED_AT_MOST} requests in a row "
        "cannot reach it"
    ): (health, node),
    "It is checked every second (a provider that refuses the key: every {PROVIDER_INTERVAL_S} s)": (
        health,
    ),
    "{FIRST_OPEN_S} s after it went down": (breaker,),
    "2, 4 and at most {LONGEST_OPEN_S} s later": (breaker,),
    "An attempt counts for {TRIAL_S} s at most": (breaker,),
    "a tenth of its usual share and reaches all of it after {SLOW_START_S} s": (breaker,),
    "After {FAILED_AT_MOST} failed answers in a row": (node,),
    "Ollama boxes are checked every {INTERVAL_S} s, providers every {PROVIDER_INTERVAL_S} s": (
        health,
    ),
    (
        "show nothing older than {FRESH_S} s: they wait up to {WAIT_S} s for a new result, or "
        "{SHORT_WAIT_S} s if another"
    ): (health,),
    "was requested within {WARM_S} s": (node,),
    "fewer than {SATURATED_AT} requests in flight per unit of `weight`": (node,),
    "at most {MOST_RETRIES} times": (retries,),
    "the same one, after {FIRST_PAUSE_S} s": (retries,),
    "if that is at most {LONGEST_PAUSE_S} s": (retries,),
    "requests that arrive later wait {DRAINING_S} s at most": (retries,),
    "at most {MOST_SAID} times in {SAID_IN_S} s": (health,),
    "New connections are accepted for {NOTICE_S} s more": (worker,),
    "idle for {SETTLED_S} s are closed": (worker,),
    "still running {TERMINATION_GRACE_S} s before the end of `GRACEFUL_TIMEOUT`": (worker,),
    "a second thread logs it after {BLOCKED_S} s": (watchdog,),
}

#: Sizes of what is kept in memory, and what the text above puts in words.
NOT_SAID = {
    "DRAINING_S",
    "MOST_MODELS",
    "MOST_KEPT",
    "MOST_BYTES",
    "LONGEST_KEPT",
    "QUICK_S",
    "_WARM_EXACT_S",
    "FIRST_SHARE",
    "DOWN_INTERVAL_S",
    "FAIR_AFTER",
    "RETRY_S",
    "BEAT_S",
    "FRAMES",
    "LAG_S",
    "WARM_EXACT_S",
}


def constants(*modules: ModuleType) -> dict[str, float]:
    """The numbers that a module declares itself."""
    found: dict[str, float] = {}
    for module in modules:
        assert module.__file__
        for each in trees()[module_name(Path(module.__file__))].body:
            names = {
                word.id
                for word in ast.walk(each)
                if isinstance(each, ast.Assign) and isinstance(word, ast.Name)
            }
            found |= {name: getattr(module, name) for name in names if name.isupper()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def flowing(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_numbers_are_those_of_the_program() -> None:
    page = flowing(prose(PAGE))
    true = [
        said.format_map({name: f"{value:g}" for name, value in constants(*modules).items()})
        for said, modules in SAID.items()
    ]
    wrong = [text for text in true if text not in page]
    assert not wrong, "not on the page:\n" + "\n".join(wrong)


def test_every_number_is_said() -> None:
    said = {
        (module, name)
        for text, modules in SAID.items()
        for module in modules
        for name in re.findall(r"{(\w+)}", text)
    }
    modules = {module for used in SAID.values() for module in used}
    missing = [
        f"{module.__name__}.{name}"
        for module in modules
        for name in constants(module).keys() - NOT_SAID
        if (module, name) not in said
    ]
    assert not missing, "\n".join(missing)


def test_words_for_numbers_are_true() -> None:
    assert (health.DOWN_INTERVAL_S, breaker.FIRST_SHARE) == (1.0, 0.1)
    assert model_index.HEALTH_CHECK_TIMEOUTS.total_s == 3.0
    assert "must arrive within 3 s" in flowing(prose(PAGE))


def test_sizes_of_chat_logs_are_those_of_the_program() -> None:
    kept, waiting = redaction.MAX_CHARS >> 20, chat_log.MAX_WAITING_BYTES >> 20
    page = flowing(prose(PAGE))
    assert f"at most {kept} MiB of each request and of each answer" in page
    assert f"more than {waiting} MiB waited" in page


def test_statuses_are_those_that_are_tried_again() -> None:
    busy, failed = (
        ", ".join(map(str, sorted(statuses)))
        for statuses in (node.BUSY, retries.RETRYABLE - node.BUSY)
    )
    page = flowing(prose(PAGE))
    assert f"busy: {busy}" in page
    assert f"It failed: {failed}" in page


# Switches.


#: Would be taken for HTML.
_TAG = re.compile(r"(</?\w+>)")


def switch_row(name: str, declared: Field[Any]) -> list[str]:
    """One row of the table of switches; a failing comparison prints what it should be."""
    return [
        f"`{name}`",
        shown_default(declared),
        declared.metadata["kind"].label,
        _TAG.sub(r"`\1`", declared.metadata["text"]),
    ]


def test_table_of_switches_is_that_of_the_program() -> None:
    assert rows("`limit_field`") == [switch_row(each.name, each) for each in fields(Profile)]
