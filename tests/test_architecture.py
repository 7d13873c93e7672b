"""What the package promises of its own shape: imports that point one way, and the house numbers."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
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

#: Pure values and text: these know neither the web framework, nor a client library, nor greenlets.
PURE = (
    "dialects.*.load",
    "dialects.*.messages",
    "dialects.*.render",
    "dialects.*.schemas",
    "coordination.coordinator",
    "coordination.documents",
    "coordination.frames",
    "coordination.limits",
    "coordination.reasons",
    "coordination.scheduler",
    "coordination.shared_state",
    "coordination.state",
    "dialects.content_parts",
    "dialects.tools",
    "upstreams.*.codec",
    "upstreams.*.messages",
    "upstreams.*.schema",
    "wire.*",
    "dialects.native.model_documents",
    "dialects.responses.events",
    "dialects.responses.input_items",
    "errors",
    "gateway.media",
    "gateway.passthrough.edits",
    "hub",
    "settings.provider_profiles",
    "telemetry.redaction",
    "telemetry.transcript",
    "texts",
    "upstreams.anthropic.codec",
    "upstreams.fleet.breaker",
    "upstreams.ollama.versions",
    "upstreams.openai.requests",
    "upstreams.openai.pieces",
)
IMPURE = {"flask", "werkzeug", "requests", "gevent", "gunicorn", "socket"}

MAX_FUNCTION_LINES, MAX_FILE_LINES, MAX_COMPLEXITY, MIN_DOCUMENTED = 60, 600, 12, 0.9

BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.comprehension,
    ast.match_case,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


TREES = trees()
LINES = {
    module_name(path): len(path.read_text(encoding="utf-8").splitlines())
    for path in PACKAGE.rglob("*.py")
}


def imported(module: str) -> set[str]:
    """Full names of what a module imports: `ollama_proxy.hub`, `flask`; also inside
    functions and TYPE_CHECKING."""
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
    # Of these only some parts are clients.
    return f"{source}.{name}" if source in ("http", "urllib") else source


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports, without the package's name."""
    ours = {name for name in imported(module) if name.split(".")[0] == "ollama_proxy"}
    return {name.removeprefix("ollama_proxy").removeprefix(".") for name in ours}


def foreign_imports(module: str) -> set[str]:
    """The other packages that a module imports."""
    return {name.split(".")[0] for name in imported(module)} - {"ollama_proxy"}


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def dialect_of(module: str) -> str | None:
    """`dialects.openai` for a module of that dialect."""
    parts = module.split(".")
    inside = (
        parts[0] == "dialects" and len(parts) > 1 and (PACKAGE / "dialects" / parts[1]).is_dir()
    )
    return ".".join(parts[:2]) if inside else None


MODULES = sorted(TREES.keys() - {""})


def package_of(module: str) -> str:
    """`upstreams` for `upstreams.fleet.node`."""
    return module.partition(".")[0]


def test_every_package_has_its_place() -> None:
    assert {package_of(module) for module in TREES if module} == RANK.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_the_left(module: str) -> None:
    right = {
        name
        for name in own_imports(module) - {""}
        if RANK[package_of(name)] > RANK[package_of(module)]
    }
    assert not right


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_past_a_public_interface(module: str) -> None:
    assert not {name for name in names_from_other_packages(module) if name not in PUBLIC_NAMES}


def names_from_other_packages(module: str) -> Iterator[str]:
    """`upstreams.Call` for `from ollama_proxy.upstreams import Call`; past its interface:
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
    """What the `__all__` of a package's `__init__` lists: `upstreams.Call`."""
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


def test_no_import_goes_in_a_circle() -> None:
    remaining = {module: own_imports(module) - {module} for module in MODULES}
    while remaining:
        free = {module for module, needed in remaining.items() if not needed & remaining.keys()}
        assert free, f"a circle among {sorted(remaining)}"
        remaining = {module: needed for module, needed in remaining.items() if module not in free}


def test_only_the_transport_imports_requests() -> None:
    assert [module for module in MODULES if "requests" in foreign_imports(module)] == [
        "upstreams.transport.session"
    ]


def test_nothing_imports_another_http_client() -> None:
    others = {"urllib3", "httpx", "aiohttp", "http", "urllib"}
    found = {
        (module, name)
        for module in MODULES
        for name in imported(module)
        if name.split(".")[0] in others
    }
    allowed, askers = (
        {"urllib.parse", "http.cookiejar", "http.HTTPStatus"},
        (
            "cli.exposure",
            "cli.doctor.door",
            "cli.doctor.proxy",
            "cli.doctor.upstreams",
            "server.worker",
        ),
    )
    # These ask a running gateway and a running Ollama from outside the package's own paths.
    assert {
        (module, name) for module, name in found if name not in allowed and module not in askers
    } == set()


@pytest.mark.parametrize("module", [name for name in MODULES if matches(name, PURE)])
def test_pure_modules_know_no_framework_and_no_socket(module: str) -> None:
    assert not foreign_imports(module) & IMPURE


@pytest.mark.parametrize("part", ["policy", "upstreams", "ledger"])
def test_policy_and_upstreams_know_no_dialect(part: str) -> None:
    modules = [name for name in MODULES if name == part or name.startswith(f"{part}.")]
    guilty = {
        name for name in modules for other in own_imports(name) if other.startswith("dialects")
    }
    assert not guilty


def test_the_gateway_knows_no_dialect_by_name() -> None:
    named = {
        dialect_of(name)
        for module in ("gateway.gateway", "gateway.responses", "server.admission", "server.request")
        for name in own_imports(module)
    }
    assert named == {None}


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
    guilty = {(module, text) for module, text in written if text.partition(".")[0] in names}
    assert {
        (module, text)
        for module, text in guilty
        if dialect_of(module) != f"dialects.{text.partition('.')[0]}"
    } == set()


def test_only_the_registry_names_two_dialects() -> None:
    naming = {
        module: {dialect_of(name) for name in own_imports(module)} | {dialect_of(module)} - {None}
        for module in MODULES
    }
    between = {
        (dialect_of(module), other)
        for module, named in naming.items()
        for other in named
        if dialect_of(module) and other not in (None, dialect_of(module))
    }
    assert not between
    outside = {
        module
        for module, named in naming.items()
        if not dialect_of(module) and len(named - {None}) > 1
    }
    assert outside == {"dialects.registry"}


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


# House numbers.


def functions(module: str) -> Iterator[Function]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, Function):
            yield node


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def length(function: Function) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return lines


def complexity(function: Function) -> int:
    """One, plus one per branch and per further operand of and/or."""
    nodes = list(own_nodes(function))
    operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + sum(isinstance(node, BRANCHES) for node in nodes) + operands


ALL_FUNCTIONS = [
    (f"{module}:{node.lineno} {node.name}", module, node)
    for module in TREES
    for node in functions(module)
]


def test_no_function_is_long() -> None:
    assert [where for where, _, node in ALL_FUNCTIONS if length(node) > MAX_FUNCTION_LINES] == []


def test_most_functions_are_short() -> None:
    sizes = sorted(length(node) for _, _, node in ALL_FUNCTIONS)
    assert (sizes[len(sizes) // 2] <= 8, sizes[len(sizes) * 9 // 10] <= 30) == (True, True)


def test_no_function_is_tangled() -> None:
    assert [where for where, _, node in ALL_FUNCTIONS if complexity(node) > MAX_COMPLEXITY] == []


def test_no_file_is_long() -> None:
    assert {module: lines for module, lines in LINES.items() if lines > MAX_FILE_LINES} == {}


def public_functions(body: list[ast.stmt]) -> Iterator[Function]:
    """Functions that others can call by name: not those with an underscore, and none
    inside another function."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if isinstance(node, ast.ClassDef):
                yield from public_functions(node.body)
            else:
                yield node


def test_public_functions_are_documented() -> None:
    public = [
        (module, node) for module, tree in TREES.items() for node in public_functions(tree.body)
    ]
    undocumented = [
        f"{module}:{node.lineno} {node.name}"
        for module, node in public
        if not ast.get_docstring(node)
    ]
    assert 1 - len(undocumented) / len(public) >= MIN_DOCUMENTED, undocumented


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(TREES[module])


def test_every_parameter_has_a_type() -> None:
    untyped = []
    for where, _, node in ALL_FUNCTIONS:
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        untyped += [
            where
            for each in parameters
            if each.annotation is None and each.arg not in ("self", "cls")
        ]
        untyped += [where] if node.returns is None and node.name != "__init__" else []
    assert untyped == []


def test_imports_are_at_the_top() -> None:
    late = [
        where
        for where, module, node in ALL_FUNCTIONS
        if module != "cli.commands"
        and any(isinstance(each, ast.Import | ast.ImportFrom) for each in own_nodes(node))
    ]
    assert late == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or getattr(handler.type, "id", "") == "Exception"


def test_broad_excepts_are_rare_and_say_why() -> None:
    silent, count = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(TREES[module_name(path)]):
            if isinstance(node, ast.ExceptHandler) and is_broad(node):
                count += 1
                silent += [] if "#" in lines[node.lineno - 1] else [f"{path.name}:{node.lineno}"]
    assert silent == []
    assert count <= max(1, sum(LINES.values()) // 1000)


@pytest.mark.parametrize(
    "word", ["utils", "util", "manager", "helper", "helpers", "misc", "core", "common"]
)
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert [module for module in TREES if word in module.replace("_", ".").split(".")] == []
