"""Makes applications and their pages quickly. A process of tests makes thousands of applications
with the same routes and templates; werkzeug compiles two functions for each route, which is nine
tenths of what `create_app` takes, and Jinja each template for each application. Here all of that is
compiled once."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

from jinja2 import Environment
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


def compile_templates_once() -> None:
    """Share the code of templates between environments, which are all made by `create_app`."""
    compile_template = Environment.compile
    compiled: dict[tuple[Any, ...], CodeType] = {}

    def compile_once(
        environment: Environment,
        source: str,
        name: str | None = None,
        filename: str | None = None,
        **options: bool,
    ) -> Any:
        if filename is None or options:
            return compile_template(environment, source, name, filename, **options)
        key = (type(environment), *sorted(environment.extensions), source, name, filename)
        if key not in compiled:
            compiled[key] = compile_template(environment, source, name, filename)
        return compiled[key]

    Environment.compile = compile_once  # type: ignore[method-assign, assignment]
