"""The shape of the package: imports point one way, past no public interface, and pure modules
stay pure."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from ollama_proxy.cli import main
from ollama_proxy.dialects import DIALECTS
from tests.rig.source_code import PACKAGE, module_name, trees

PROJECT = Path(__file__).resolve().parents[1]

#: Packages from left to right; a module imports from its own package and from
#: those to the left of it.
ORDER = (
    "version texts clock errors hub | wire | settings | policy | upstreams | coordination | gateway | "
    "telemetry | records | dialects | admin | server | cli"
)
RANK = {name: rank for rank, names in enumerate(ORDER.split(" | ")) for name in names.split()}

#: Pure values and text: these import neither the web framework, nor a client library, nor
#: greenlets.
PURE = (
    "coordination.coordinator",
    "coordination.documents",
    "coordination.frames",
    "coordination.limits",
    "coordination.reasons",
    "coordination.scheduler",
    "coordination.shared_state",
    "coordination.state",
    "dialects.*.load",
    "dialects.*.messages",
    "dialects.*.render",
    "dialects.*.schemas",
    "dialects.content_parts",
    "dialects.native.model_documents",
    "dialects.responses.events",
    "dialects.responses.input_items",
    "dialects.tools",
    "errors",
    "gateway.media",
    "gateway.passthrough.edits",
    "hub",
    "settings.provider_profiles",
    "telemetry.redaction",
    "telemetry.transcript",
    "texts",
    "upstreams.*.codec",
    "upstreams.*.messages",
    "upstreams.*.schema",
    "upstreams.fleet.breaker",
    "upstreams.ollama.versions",
    "upstreams.openai.pieces",
    "upstreams.openai.requests",
    "wire.*",
)
IMPURE = {"flask", "werkzeug", "requests", "gevent", "gunicorn", "socket"}

#: These ask a running gateway and a running Ollama from outside.
ASKERS = {
    "cli.exposure",
    "cli.doctor.door",
    "cli.doctor.proxy",
    "cli.doctor.upstreams",
    "server.worker",
}
HTTP_CLIENTS = {"requests", "urllib3", "httpx", "aiohttp", "http", "urllib"}
NO_CLIENTS = {"urllib.parse", "http.cookiejar", "http.HTTPStatus"}

TREES = trees()
MODULES = sorted(TREES.keys() - {""})


@cache
def imports_of(module: str) -> set[str]:
    """Return the full names of what a module imports, such as `ollama_proxy.hub` and `flask`, also
    inside functions and TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import in line {node.lineno}"
            found |= {_target(node.module or "", alias.name) for alias in node.names}
    return found


def _target(source: str, name: str) -> str:
    inside = f"{source}.{name}".removeprefix("ollama_proxy.")
    if source.startswith("ollama_proxy") and inside in TREES:
        return f"ollama_proxy.{inside}"
    # Only some parts of these are clients.
    return f"{source}.{name}" if source in ("http", "urllib") else source


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports, without the package's name."""
    ours = {name for name in imports_of(module) if name.split(".")[0] == "ollama_proxy"}
    return {name.removeprefix("ollama_proxy").removeprefix(".") for name in ours} - {""}


def foreign_imports(module: str) -> set[str]:
    """Return the other packages that a module imports."""
    return {name.split(".")[0] for name in imports_of(module)} - {"ollama_proxy"}


def package_of(module: str) -> str:
    """Return `upstreams` for `upstreams.fleet.node`."""
    return module.partition(".")[0]


def dialect_of(module: str) -> str | None:
    """Return `dialects.openai` for a module of that dialect."""
    parts = module.split(".")
    inside = (
        parts[0] == "dialects" and len(parts) > 1 and (PACKAGE / "dialects" / parts[1]).is_dir()
    )
    return ".".join(parts[:2]) if inside else None


def test_every_package_has_its_place() -> None:
    assert {package_of(module) for module in MODULES} == RANK.keys()


def test_imports_point_to_the_left() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in sorted(own_imports(module))
        if RANK[package_of(name)] > RANK[package_of(module)]
    ]
    assert not wrong, "\n".join(wrong)


def names_from_other_packages(module: str) -> Iterator[str]:
    """Yield `upstreams.Call` for `from ollama_proxy.upstreams import Call`; past its interface:
    `upstreams.call.Call`."""
    for node in ast.walk(TREES[module]):
        found = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{each.name}" for each in node.names]
        for name in found:
            inside = name.removeprefix("ollama_proxy.")
            if inside != name and package_of(inside) not in (package_of(module), *SINGLE_MODULES):
                yield inside


def public_names(package: str) -> Iterator[str]:
    """Yield what the `__all__` of a package's `__init__` lists: `upstreams.Call`."""
    for node in TREES[package].body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            yield from (f"{package}.{name}" for name in ast.literal_eval(node.value))


#: Modules beside the packages: whatever is public in these may be imported.
SINGLE_MODULES = tuple(
    sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
)
PUBLIC_NAMES = {
    name for package in RANK if package not in SINGLE_MODULES for name in public_names(package)
}


def test_every_package_has_a_public_interface() -> None:
    assert {package_of(name) for name in PUBLIC_NAMES} == RANK.keys() - set(SINGLE_MODULES)


def test_no_module_imports_past_a_public_interface() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in names_from_other_packages(module)
        if name not in PUBLIC_NAMES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_goes_in_a_circle() -> None:
    remaining = {module: own_imports(module) - {module} for module in MODULES}
    while remaining:
        free = {module for module, needed in remaining.items() if not needed & remaining.keys()}
        assert free, f"a circle among {sorted(remaining)}"
        remaining = {module: needed for module, needed in remaining.items() if module not in free}


def may_import(module: str, client: str) -> bool:
    """Return whether a module may use an HTTP client."""
    if client.startswith("requests"):
        return module == "upstreams.transport.session"
    return module in ASKERS


def test_http_clients_are_only_where_they_belong() -> None:
    used = [
        (module, name)
        for module in MODULES
        for name in imports_of(module) - NO_CLIENTS
        if name.split(".")[0] in HTTP_CLIENTS
    ]
    assert ("upstreams.transport.session", "requests") in used
    wrong = [f"{module} imports {name}" for module, name in used if not may_import(module, name)]
    assert not wrong, "\n".join(wrong)


def test_pure_modules_know_no_framework_and_no_socket() -> None:
    pure = {pattern: [m for m in MODULES if fnmatchcase(m, pattern)] for pattern in PURE}
    assert [pattern for pattern, modules in pure.items() if not modules] == []
    wrong = [
        f"{module} imports {name}"
        for modules in pure.values()
        for module in modules
        for name in foreign_imports(module) & IMPURE
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_registry_names_two_dialects() -> None:
    named = {
        module: {dialect_of(name) for name in {*own_imports(module), module}} - {None}
        for module in MODULES
    }
    assert [module for module, dialects in named.items() if len(dialects) > 1] == [
        "dialects.registry"
    ]


#: Upstreams and their settings have kinds of the same names.
WITH_KINDS = ("settings", "upstreams")


def test_only_the_directory_of_a_dialect_has_its_name() -> None:
    names = {dialect.name for dialect in DIALECTS}
    written = {
        (module, node.value)
        for module in MODULES
        if package_of(module) not in WITH_KINDS
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    wrong = [
        f"{module}: {text!r}"
        for module, text in written
        if text.partition(".")[0] in names
        and dialect_of(module) != f"dialects.{text.partition('.')[0]}"
    ]
    assert not wrong, "\n".join(wrong)


def test_dependencies_are_the_declared_ones() -> None:
    names = {
        "flask_cors": "flask-cors",
        "flask_smorest": "flask-smorest",
        "flask_wtf": "flask-wtf",
        "wtforms": "flask-wtf",
        "webargs": "flask-smorest",
        "opentelemetry": "opentelemetry-sdk",
        "prometheus_client": "prometheus-client",
        "yaml": "pyyaml",
        "werkzeug": "flask",
        "markupsafe": "flask",
        "PIL": "pillow",
    }
    used = {name for module in MODULES for name in foreign_imports(module)} - set(
        sys.stdlib_module_names
    )
    text = (PROJECT / "setup.cfg").read_text(encoding="utf-8")
    declared = set(re.findall(r"^    ([a-z0-9-]+)(?:\[\w+\])?>=", text, re.MULTILINE))
    assert {name for name in used if names.get(name, name) not in declared} == set()


def test_the_shipped_configuration_is_what_the_settings_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["settings"]) == 0
    assert (PROJECT / "config" / "config.yaml").read_text(
        encoding="utf-8"
    ) == capsys.readouterr().out


def test_broad_excepts_say_why() -> None:
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        silent += [
            f"{path.relative_to(PACKAGE)}:{node.lineno}"
            for node in ast.walk(TREES[module_name(path)])
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or getattr(node.type, "id", "") == "Exception")
            and "#" not in lines[node.lineno - 1]
        ]
    assert not silent, "\n".join(silent)


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "manager", "helper", "helpers", "misc", "core", "common"}
    assert [module for module in TREES if vague & set(re.split("[._]", module))] == []
