"""Identifiers that have been replaced by standard terms do not come back."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.rig.source_code import trees

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
    """Yield the line and the name of every definition but those of local variables, and whether it
    can be called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, False
        if isinstance(node, ast.Module | ast.ClassDef):
            assignments = (
                each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)
            )
            for name in (inner for each in assignments for inner in ast.walk(each)):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.lineno, name.id, False


def test_nothing_is_defined_with_a_retired_name() -> None:
    wrong = [
        f"{module or 'ollama_proxy'}:{line}: {name} is called {new} here"
        for module, tree in trees().items()
        for line, name, is_callable in definitions(tree)
        if (new := RETIRED.get(name) or (is_callable and RETIRED_CALLABLES.get(name)))
    ]
    wrong += [
        f"{module} is called {RETIRED_MODULES[name]} here"
        for module in trees()
        if (name := module.rpartition(".")[2]) in RETIRED_MODULES
    ]
    assert not wrong, "\n".join(wrong)
