"""What workers may ask for: every call runs with the arguments that its callers send."""

from __future__ import annotations

from inspect import Parameter, signature

from ollama_proxy.records.calls import CALLS
from tests.rig.tables import each_row


@each_row("name", CALLS)
def test_call_takes_a_connection_and_arguments_that_a_frame_can_have(name: str) -> None:
    first, *others = signature(CALLS[name].function).parameters.values()
    assert first.name == "connection"
    kinds = {Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
    assert {other.kind for other in others} <= kinds


def test_what_changes_something_says_so() -> None:
    verbs = {name.partition("_")[0] for name, call in CALLS.items() if call.writes}
    assert verbs == {"create", "change", "rotate", "delete", "put", "add"}
    assert not verbs & {name.partition("_")[0] for name, call in CALLS.items() if not call.writes}
