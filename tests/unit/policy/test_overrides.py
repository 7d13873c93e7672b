"""The operator's rules for a model: options, limits, leases, system prompts, time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.policy.overrides import (
    edited_system,
    limits,
    merged_keep_alive,
    merged_options,
    with_system,
)
from ollama_proxy.settings.schema import Clamp, ModelSettings, SystemPrompt
from ollama_proxy.settings.upstreams import Timeouts
from tests.rig.tables import each_row

Options = dict[str, Any]


def options(
    asked: Options,
    given: Options | None = None,
    *,
    loaded: int | None = None,
    pin: bool = False,
    **clamp: int,
) -> tuple[Options, list[str]]:
    """What is sent, and what was clamped."""
    clamped: list[str] = []
    rules = ModelSettings(options=given or {}, clamp=Clamp(**clamp), pin_options=pin)
    return merged_options(asked, rules, loaded, clamped), clamped


@each_row(
    ("asked", "given", "sent"),
    [
        ({}, {}, {}),
        ({"seed": 1}, {}, {"seed": 1}),
        ({}, {"num_ctx": 8192, "temperature": 0.1}, {"num_ctx": 8192, "temperature": 0.1}),
        ({"num_ctx": 4096}, {"num_ctx": 8192}, {"num_ctx": 4096}),
        ({"temperature": 0}, {"temperature": 0.7}, {"temperature": 0}),
        ({"num_ctx": None}, {"num_ctx": 8192}, {"num_ctx": 8192}),
        ({"seed": None}, {}, {}),
        ({"stop": []}, {"stop": ["x"]}, {"stop": []}),
        ({"new_one": {"a": 1}}, {"mirostat": 2}, {"new_one": {"a": 1}, "mirostat": 2}),
    ],
)
def test_S2_27_the_callers_options_come_before_the_operators(
    asked: Options, given: Options, sent: Options
) -> None:
    assert options(asked, given) == (sent, [])


CLAMPED: dict[str, tuple[Options, Options, dict[str, int], Options, list[str]]] = {
    "context above": (
        {"num_ctx": 65536},
        {},
        {"num_ctx": 32768},
        {"num_ctx": 32768},
        ["num_ctx=32768"],
    ),
    "context at it": ({"num_ctx": 32768}, {}, {"num_ctx": 32768}, {"num_ctx": 32768}, []),
    "context below": ({"num_ctx": 16}, {}, {"num_ctx": 32768}, {"num_ctx": 16}, []),
    "context as a fraction": (
        {"num_ctx": 32768.5},
        {},
        {"num_ctx": 32768},
        {"num_ctx": 32768},
        ["num_ctx=32768"],
    ),
    "context not asked for": ({}, {}, {"num_ctx": 32768}, {}, []),
    "context of another type": ({"num_ctx": "65536"}, {}, {"num_ctx": 1}, {"num_ctx": "65536"}, []),
    "context that is true": ({"num_ctx": True}, {}, {"num_ctx": 1}, {"num_ctx": True}, []),
    "operator's own context": ({}, {"num_ctx": 9}, {"num_ctx": 8}, {"num_ctx": 8}, ["num_ctx=8"]),
    "length above": (
        {"num_predict": 9},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length at it": ({"num_predict": 8}, {}, {"num_predict": 8}, {"num_predict": 8}, []),
    "length without end": (
        {"num_predict": -1},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length to fill the context": (
        {"num_predict": -2},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length of 0, no limit": (
        {"num_predict": 0},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length that is cut to 0": (
        {"num_predict": 0.5},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length of one and a half": (
        {"num_predict": 1.5},
        {},
        {"num_predict": 8},
        {"num_predict": 1.5},
        [],
    ),
    "length not asked for": ({}, {}, {"num_predict": 8}, {"num_predict": 8}, ["num_predict=8"]),
    "length that is null": (
        {"num_predict": None},
        {},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "operator's null": (
        {},
        {"num_predict": None},
        {"num_predict": 8},
        {"num_predict": 8},
        ["num_predict=8"],
    ),
    "length of another type": (
        {"num_predict": "9"},
        {},
        {"num_predict": 8},
        {"num_predict": "9"},
        [],
    ),
    "both": (
        {"num_predict": 99, "num_ctx": 99},
        {},
        {"num_predict": 8, "num_ctx": 16},
        {"num_predict": 8, "num_ctx": 16},
        ["num_ctx=16", "num_predict=8"],
    ),
}


@each_row("case", CLAMPED)
def test_limits_hold_and_say_so(case: str) -> None:
    asked, given, clamp, sent, said = CLAMPED[case]
    assert options(asked, given, **clamp) == (sent, said)


PINNED: dict[str, tuple[Options, Options, int | None, Options, list[str]]] = {
    "loaded, and nothing asked": ({}, {}, 4096, {"num_ctx": 4096}, []),
    "loaded with what is asked": ({"num_ctx": 4096}, {}, 4096, {"num_ctx": 4096}, []),
    "loaded with less": ({"num_ctx": 8192}, {}, 4096, {"num_ctx": 4096}, ["num_ctx=4096"]),
    "loaded with more": ({"num_ctx": 2048}, {}, 4096, {"num_ctx": 4096}, ["num_ctx=4096"]),
    "loaded by somebody else": ({}, {"num_ctx": 8192}, 4096, {"num_ctx": 4096}, []),
    "not loaded": ({"num_ctx": 8192}, {}, None, {"num_ctx": 8192}, []),
    "not loaded, the operator's counts": (
        {"num_ctx": 8192},
        {"num_ctx": 4},
        None,
        {"num_ctx": 4},
        ["num_ctx=4"],
    ),
    "other options that load": (
        {"num_gpu": 1, "use_mmap": True, "draft_num_predict": 2, "seed": 7},
        {"num_gpu": 99},
        None,
        {"num_gpu": 99, "seed": 7},
        ["draft_num_predict=default", "num_gpu=99", "use_mmap=default"],
    ),
    "options that load nothing": (
        {"temperature": 0, "num_predict": 5},
        {},
        8,
        {"temperature": 0, "num_predict": 5},
        [],
    ),
}


@each_row("case", PINNED)
def test_pinned_options_never_load_a_model_again(case: str) -> None:
    asked, given, loaded, expected, said = PINNED[case]
    if loaded:
        expected = {"num_ctx": loaded} | expected
    assert options(asked, given, loaded=loaded, pin=True) == (expected, said)


@pytest.mark.parametrize(
    ("asked", "loaded", "sent", "said"),
    [
        ({"num_ctx": 99}, 64, 64, ["num_ctx=64"]),
        ({}, 64, 64, []),
        ({"num_ctx": 99}, None, 32, ["num_ctx=32"]),
    ],
)
def test_what_is_loaded_comes_before_the_limit_which_would_load_it_again(
    asked: Options, loaded: int | None, sent: int, said: list[str]
) -> None:
    assert options(asked, loaded=loaded, pin=True, num_ctx=32) == ({"num_ctx": sent}, said)


def test_answer_that_is_no_text_has_no_length() -> None:
    clamped: list[str] = []
    rules = ModelSettings(clamp=Clamp(num_ctx=16, num_predict=8))
    assert merged_options({"num_ctx": 99}, rules, None, clamped, has_length=False) == {
        "num_ctx": 16
    }
    assert clamped == ["num_ctx=16"]


# --- keep_alive -----------------------------------------------------------------------------------


@each_row(
    ("asked", "given", "limit_s", "sent", "said"),
    [
        (None, None, None, None, []),
        (None, None, 3600.0, None, []),
        (None, "30m", None, "30m", []),
        ("10m", "30m", None, "10m", []),
        (0, "30m", None, 0, []),
        (600, None, 3600.0, 600, []),
        ("1h", None, 3600.0, "1h", []),
        ("61m", None, 3600.0, 3600.0, ["keep_alive=3600s"]),
        (3601, None, 3600.0, 3600.0, ["keep_alive=3600s"]),
        (-1, None, 3600.0, 3600.0, ["keep_alive=3600s"]),
        ("-1m", None, 2_592_000.0, 2_592_000.0, ["keep_alive=2592000s"]),
        (None, "2h", 90.5, 90.5, ["keep_alive=90.5s"]),
        ("24h", "-1m", 86400.0, "24h", []),
    ],
)
def test_lease_of_the_caller_comes_first_and_has_a_limit(
    asked: str | float | None,
    given: str | None,
    limit_s: float | None,
    sent: str | float | None,
    said: list[str],
) -> None:
    clamped: list[str] = []
    rules = ModelSettings(keep_alive=given, clamp=Clamp(keep_alive=limit_s))
    assert merged_keep_alive(asked, rules, clamped) == sent
    assert clamped == said


@each_row("lease", ["+5m", ".5m", "1.m", "5000000µs", "5000000μs", "+0", "-0", "1h2m3.5s"])
def test_a_lease_in_any_of_gos_notations_can_be_compared(lease: str) -> None:
    assert merged_keep_alive(lease, ModelSettings(clamp=Clamp(keep_alive=7200.0)), []) == lease


# --- System prompts -------------------------------------------------------------------------------

SYSTEM: dict[str, tuple[list[str], SystemPrompt, list[str | None]]] = {
    "no rules": (["You are A."], SystemPrompt(), ["You are A."]),
    "all removed": (["You are A."], SystemPrompt(remove=True), [None]),
    "nothing removed": (["You are A."], SystemPrompt(remove=False), ["You are A."]),
    "a passage removed": (
        ["Secret. You are A."],
        SystemPrompt(remove=("Secret.",)),
        ["You are A."],
    ),
    "every time it is there": (["x A x"], SystemPrompt(remove=("x",)), ["A"]),
    "the only passage removed": (["x"], SystemPrompt(remove=("x",)), [None]),
    "a text in its place": (["A"], SystemPrompt(replace="B"), ["B"]),
    "a text in the place of several": (["A", "C"], SystemPrompt(replace="B"), ["B", None]),
    "a text where there was none": ([], SystemPrompt(replace="B"), ["B"]),
    "passages replaced": (["A and C"], SystemPrompt(replace={"A": "B", "C": "D"}), ["B and D"]),
    "passages where there is none": ([], SystemPrompt(replace={"A": "B"}), []),
    "a text in front": (["A"], SystemPrompt(prepend="P"), ["P\n\nA"]),
    "a text in front of the first": (["A", "B"], SystemPrompt(prepend="P"), ["P\n\nA", "B"]),
    "a text in front of nothing": ([], SystemPrompt(prepend="P"), ["P"]),
    "only the text in front": (["A"], SystemPrompt(remove=True, prepend="P"), ["P"]),
    "in this order": (
        ["x A"],
        SystemPrompt(remove=("x",), replace={"A": "B"}, prepend="P"),
        ["P\n\nB"],
    ),
    "replaced in what is left": (["A"], SystemPrompt(remove=True, replace={"A": "B"}), [None]),
}


@each_row("case", SYSTEM)
def test_rules_on_system_prompts(case: str) -> None:
    texts, rules, expected = SYSTEM[case]
    assert edited_system(texts, rules) == expected


def placed(messages: list[tuple[str, str]], **rules: Any) -> list[tuple[str, str]]:
    return list(
        with_system(
            messages,
            SystemPrompt(**rules),
            text_of=lambda message: message[1] if message[0] == "system" else None,
            with_text=lambda message, text: ((message or ("system",))[0], text),
        )
    )


@each_row(
    ("messages", "rules", "expected"),
    [
        ([("user", "u")], {"prepend": "P"}, [("system", "P"), ("user", "u")]),
        ([("user", "u")], {"remove": True}, [("user", "u")]),
        ([("system", "S"), ("user", "u")], {"remove": True}, [("user", "u")]),
        ([("system", "S"), ("user", "u")], {"prepend": "P"}, [("system", "P\n\nS"), ("user", "u")]),
        (
            [("user", "u"), ("system", "S"), ("user", "v"), ("system", "x T")],
            {"remove": ("x",), "prepend": "P"},
            [("user", "u"), ("system", "P\n\nS"), ("user", "v"), ("system", "T")],
        ),
        (
            [("system", "S"), ("user", "u"), ("system", "T")],
            {"replace": "R"},
            [("system", "R"), ("user", "u")],
        ),
    ],
)
def test_system_messages_keep_their_places(
    messages: list[tuple[str, str]], rules: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert placed(messages, **rules) == expected


def test_chat_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(
        BadRequest, match="messages: must contain more than system prompts"
    ) as refused:
        placed([("system", "S"), ("system", "T")], remove=True)
    assert refused.value.param == "messages"


def test_system_prompts_are_placed_in_linear_time() -> None:
    began = time.process_time()
    assert len(placed([("system", "S")] * 400_000, replace={"S": "T"})) == 400_000
    assert time.process_time() - began < 2


# --- Time -----------------------------------------------------------------------------------------

GENERAL = Timeouts(first_byte_s=600, idle_s=120, total_s=3600)


@each_row(
    ("given", "asked_ms", "waits", "said"),
    [
        ({}, None, (600, 120, 3600), []),
        ({}, 5000, (5, 5, 5), []),
        ({}, 1_800_000, (1800, 1800, 1800), []),
        ({}, 3_600_000, (3600, 3600, 3600), []),
        ({}, 3_600_001, (3600, 3600, 3600), ["request_timeout=3600000"]),
        ({}, 10**300, (3600, 3600, 3600), ["request_timeout=3600000"]),
        ({"request_timeout": 99_999_999}, None, (99_999.999,) * 3, []),
        ({"request_timeout": 2000}, None, (2, 2, 2), []),
        ({"request_timeout": 2000}, 500, (0.5, 0.5, 0.5), []),
        ({"request_timeout": 2000}, 2001, (2, 2, 2), ["request_timeout=2000"]),
        ({"timeouts": {"idle_s": 7.0}}, None, (600, 7, 3600), []),
        ({"timeouts": {"total_s": 60.0}}, 90_000, (60, 60, 60), ["request_timeout=60000"]),
        ({"timeouts": {"connect_s": 1.0}, "request_timeout": 2000}, None, (2, 2, 2), []),
    ],
)
def test_S2_28_time_of_an_answer(
    given: dict[str, Any], asked_ms: int | None, waits: tuple[float, float, float], said: list[str]
) -> None:
    clamped: list[str] = []
    allowed = limits(GENERAL, ModelSettings(**given), asked_ms, clamped)
    assert (allowed.first_byte_s, allowed.idle_s, allowed.total_s) == waits
    assert allowed.send_idle_s == GENERAL.send_idle_s
    assert clamped == said
