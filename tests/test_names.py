"""Identifiers that have been replaced by standard terms do not come back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ollama_proxy"

#: Names that nothing may have: functions, classes, attributes, constants and parameters.
RETIRED = {
    "Alarm": "WaitTimer",
    "BOXES": "OLLAMA_PROTOCOLS",
    "Catalogue": "ModelAliases",
    "ErrorFace": "ErrorRenderer",
    "FACES": "ERROR_RENDERERS",
    "Facts": "TtlCache",
    "Fated": "RequestField",
    "Feed": "WorkerStream",
    "Guesses": "AuthFailureLimiter",
    "Kind": "SettingType",
    "LAST_WORDS_S": "ERROR_FLUSH_TIMEOUT_S, TERMINATION_GRACE_S",
    "LIMITS": "HEALTH_CHECK_TIMEOUTS",
    "LastWords": "ErrorFrameRenderer",
    "PATIENCE": "MANAGEMENT_TIMEOUTS",
    "Passage": "OpenAIPassthrough",
    "Place": "ImageLocation, Slot",
    "Plan": "ResolvedModel",
    "REMARKS": "DIAGNOSTIC_HEADERS",
    "Spoken": "Transcript",
    "TeamModel": "ModelAlias",
    "UpstreamDeniesUs": "UpstreamAuthError",
    "_drawn": "render_response",
    "_on_node": "bind_to_node",
    "bad": "raise_invalid",
    "body_s": "body_timeout_s",
    "carried": "passthrough_fields",
    "catalogue": "model_aliases",
    "drawn_stream": "stream_response",
    "drawn_whole": "single_response",
    "fate": "handling",
    "prepared_chat": "prepare_chat",
    "prepared_completion": "prepare_completion",
    "prepared_native": "prepare_native",
    "passed_through": "respond_with_reply",
    "give_turn": "yield_to_loop",
    "hear": "feed",
    "is_box": "is_ollama_node",
    "is_kept_waiting": "is_upload_stalled",
    "max_failures": "max_failed_logins",
    "note_done": "record_usage",
    "note_end": "record_stream_end",
    "on_one_line": "escape_line_separators",
    "own": "upstream_model",
    "own_name": "upstream_model",
    "pass_on": "try_passthrough",
    "passes": "can_pass_through",
    "patient": "long_running",
    "plan": "resolve_model",
    "room": "capacity",
    "without_strangers": "drop_not_found",
}
#: Names that no function, method or class may have; for a variable they are good.
RETIRED_CALLABLES = {"fail": "record_failure", "fault": "log_internal_error", "part": "section"}
#: Modules.
RETIRED_MODULES = {"spoken": "transcript"}


def definitions(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """The line and the name of everything that is defined, and whether it can be called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, False
        if isinstance(node, ast.Module | ast.ClassDef):
            for each in node.body:
                targets = (
                    each.targets
                    if isinstance(each, ast.Assign)
                    else [getattr(each, "target", None)]
                )
                names = (
                    inner for target in targets if target is not None for inner in ast.walk(target)
                )
                yield from (
                    (name.lineno, name.id, False) for name in names if isinstance(name, ast.Name)
                )


def retired_in(source: str) -> list[str]:
    """A complaint for each definition with a retired name."""
    found = []
    for line, name, is_callable in definitions(ast.parse(source)):
        if new := RETIRED.get(name) or (RETIRED_CALLABLES.get(name) if is_callable else None):
            found.append(f"line {line}: {name} is called {new} here")
    return found


def test_nothing_is_defined_with_a_retired_name() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 100
    found = [
        f"{path.relative_to(PACKAGE)}, {complaint}"
        for path in modules
        for complaint in retired_in(path.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert [path for path in modules if path.stem in RETIRED_MODULES] == []


@pytest.mark.parametrize(
    "source",
    [
        "def plan(): pass",
        "class C:\n    def fail(self): pass",
        "class Spoken: pass",
        "def f(own): pass",
        "def f(*, patient=False): pass",
        "f = lambda fate: 1",
        "class C:\n    carried: int = 1",
        "class C:\n    def f(self):\n        self.catalogue = 1",
        "LIMITS = 1",
        "a, BOXES = 1, 2",
    ],
)
def test_a_retired_name_is_found(source: str) -> None:
    assert len(retired_in(source)) == 1


@pytest.mark.parametrize(
    "source", ["def f(part): pass", "def f():\n    own = 1", "x.plan()", "def planned(): pass"]
)
def test_other_names_are_allowed(source: str) -> None:
    assert retired_in(source) == []
