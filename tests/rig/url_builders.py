"""Makes applications quickly: werkzeug compiles two functions for each route, which is nine tenths
of what `create_app` takes. A process of tests makes thousands of applications with the same routes,
so here they are compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


def compile_url_builders_once() -> None:
    """Share the functions that build URLs between rules that are equal."""
    compile_builder = Rule._compile_builder
    compiled: dict[tuple[Any, ...], Builder] = {}

    def compile_once(rule: Rule, append_unknown: bool = True) -> Builder:
        if rule.defaults:  # a function of its converters too
            return compile_builder(rule, append_unknown)
        key = (rule.rule, tuple(rule._trace), append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    Rule._compile_builder = compile_once  # type: ignore[method-assign]
