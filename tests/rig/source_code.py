"""The source code of the package, read once for every test that checks it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import ollama_proxy

PACKAGE = Path(ollama_proxy.__file__).parent


def module_name(path: Path) -> str:
    """`upstreams.base` for upstreams/base.py, `upstreams` for its __init__.py, ""
    for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> Mapping[str, ast.Module]:
    """The syntax tree of every module, by its name."""
    return {
        module_name(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
