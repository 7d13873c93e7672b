"""The documents say what is true: examples run as printed, tables are those of the program."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from marshmallow import Schema

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.admin import SCOPES as ADMIN_SCOPES
from ollama_proxy.cli.commands import banner, main
from ollama_proxy.cli.exposure import Probe
from ollama_proxy.dialects import DIALECTS, all_routes
from ollama_proxy.dialects.native.blueprint import REFUSED as REFUSED_ROUTES
from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from ollama_proxy.dialects.schema_fields import CARRIED, REFUSED
from ollama_proxy.errors import ConfigError
from ollama_proxy.policy import PUBLIC
from ollama_proxy.server.app import create_app
from ollama_proxy.server.metrics import SCOPES as METRICS_SCOPES
from ollama_proxy.server.ops import SCOPES as OPS_SCOPES
from ollama_proxy.settings.schema import Settings, load_settings
from ollama_proxy.settings.state_dir import FirstToken, new_token
from ollama_proxy.settings.upstreams import CAPABILITIES, PRESETS, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.registry import build_fleet
from ollama_proxy.version import VERSION
from tests.rig import http_client
from tests.rig.fault_upstream import FaultUpstream, Json, Lines
from tests.rig.gateway import Gateway
from tests.rig.programs import require_program
from tests.rig.provider import Provider, row
from tests.rig.source_code import trees

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh.md")
DOCUMENTS = tuple(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "deploy/*.md", "benchmarks/*.md", "tests/*.md")
    for path in sorted(ROOT.glob(pattern))
)
API, CLIENTS, ERRORS = "docs/api.md", "docs/clients.md", "docs/errors.md"
OPERATIONS, PROVIDERS = "docs/operations.md", "docs/providers.md"
#: The address that the examples are written for.
EXAMPLE_URL = "http://localhost:8080"
TOKEN = "team-token-1"

_FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str | None = None) -> list[Block]:
    found = [Block(language, text) for _, language, text in _FENCE.findall(read(name))]
    return [block for block in found if language in (None, block.language)]


def prose(name: str) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", read(name))


def headings(name: str) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in _HEADING.findall(prose(name))]


def tables(name: str) -> list[list[list[str]]]:
    """Every table as rows of cells, without the line under its head."""
    found: list[list[list[str]]] = [[]]
    for line in prose(name).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[head, *rows[1:]] for head, *rows in filter(None, found)]


def table_with(name: str, cell: str) -> list[list[str]]:
    """The body of the one table that has `cell` in its first column."""
    (found,) = [table for table in tables(name) if any(row[0] == cell for row in table)]
    return found[1:]


def codes(text: str) -> list[str]:
    return _CODE.findall(text)


# Shape.


def test_both_readmes_have_the_same_outline() -> None:
    english, chinese = map(headings, READMES)
    assert [level for level, _ in english] == [level for level, _ in chinese]


def test_both_readmes_have_the_same_blocks() -> None:
    english, chinese = map(blocks, READMES)
    assert english == chinese


def test_both_readmes_have_tables_of_the_same_size() -> None:
    english, chinese = map(tables, READMES)
    assert [[len(row) for row in table] for table in english] == [
        [len(row) for row in table] for table in chinese
    ]


def test_first_two_commands_start_the_gateway_and_run_the_tests() -> None:
    first, second = blocks("README.md", "sh")[:2]
    assert first == Block(
        "sh", "git clone <repository> ollama-proxy && cd ollama-proxy && make run\n"
    )
    assert second == Block("sh", "make test\n")


# What is generated or compared with the program.


def test_every_setting_of_an_upstream_is_explained() -> None:
    explained = [codes(row[0]) for row in table_with(PROVIDERS, "`drain`")]
    assert explained == [[each.name] for each in fields(UpstreamSettings)]


def test_what_can_be_said_of_a_model_of_an_upstream_is_named() -> None:
    (row,) = [row for row in table_with(PROVIDERS, "`drain`") if row[0] == "`models`"]
    words = {*CAPABILITIES, *(each.name for each in fields(UpstreamModel))}
    assert words - set(codes(row[1])) == set()


def kind_row(kind: str) -> list[str]:
    """What the table of kinds says of one, but for its last column."""
    preset = PRESETS[kind]
    address = f"`{preset.base_url}`" if preset.base_url else "–"
    return [f"`{kind}`", address, ", ".join(f"`{each}`" for each in preset.key_variables) or "–"]


def test_table_of_kinds_has_their_addresses_and_keys() -> None:
    assert [row[:3] for row in table_with(PROVIDERS, "`openrouter`")] == [
        kind_row(kind) for kind in PRESETS
    ]


def test_every_key_of_a_provider_has_its_line_in_the_example_of_variables() -> None:
    named = re.findall(r"^#(\w+_API_KEY)=$", read(".env.example"), re.MULTILINE)
    assert named == [name for preset in PRESETS.values() for name in preset.key_variables[:1]]


def served_routes() -> list[list[str]]:
    """Path, methods and scope of every route that is not refused; HEAD goes without saying where
    there is a GET. Those of the admin API are in its OpenAPI document, and pages have links."""
    refused = ("native.refused", "responses.stored", *ADMIN_SCOPES, *PAGE_SCOPES)
    rules = [
        rule for rule in create_app(Settings()).url_map.iter_rules() if rule.endpoint not in refused
    ]
    return sorted(
        [_path(rule.rule), _methods(rule.methods or set()), _scope(rule.endpoint)] for rule in rules
    )


def _path(rule: str) -> str:
    return "`" + re.sub("<(?:path:)?([a-z]+)>", r"{\1}", rule) + "`"


def _methods(methods: set[str]) -> str:
    return ", ".join(sorted(methods - ({"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"})))


def _scope(endpoint: str) -> str:
    scopes = {
        name: scope for routes in all_routes(DIALECTS) for name, scope in routes.scopes.items()
    }
    scope = (OPS_SCOPES | METRICS_SCOPES | scopes)[endpoint]
    return "–" if scope == PUBLIC else f"`{scope}`"


def test_every_route_is_documented_with_its_methods_and_scope() -> None:
    assert sorted(row[:3] for row in table_with(API, "`/api/chat`")) == served_routes()


def test_refused_routes_are_named() -> None:
    refused = {re.sub("<path:[a-z]+>", "...", path) for path, _ in REFUSED_ROUTES}
    assert refused - set(codes(prose(API))) == set()


def fields_with(fate: str, *schemas: Schema) -> set[str]:
    return {
        name
        for schema in schemas
        for name, field in schema.fields.items()
        if getattr(field, "handling", "") == fate
    }


def test_fields_without_effect_are_those_that_the_schemas_carry() -> None:
    listed = set(codes(paragraph_with(API, "`X-Ollama-Proxy-Ignored`", "`verbosity`")))
    carried = fields_with(CARRIED, ChatSchema(), CompletionSchema())
    assert carried <= listed
    assert {"tool_choice", "X-Ollama-Proxy-Approximated"} <= set(
        codes(paragraph_with(API, "`tool_choice`"))
    )


def test_refused_fields_are_those_that_the_schemas_refuse() -> None:
    public = {
        each
        for each in fields_with(REFUSED, ChatSchema(), CompletionSchema())
        if not each.startswith("_")
    }
    assert public <= set(codes(paragraph_with(API, "`audio`")))


def paragraph_with(name: str, *texts: str) -> str:
    """The one paragraph or list item that has all the texts."""
    (found,) = [
        each
        for each in re.split(r"\n\s*\n|\n(?=- )", prose(name))
        if all(text in each for text in texts)
    ]
    return found


def test_banner_is_the_one_that_is_printed() -> None:
    shown = next(
        block.text
        for block in blocks("README.md", "text")
        if block.text.startswith("ollama-proxy ")
    )
    token = next(word for word in shown.split() if word.startswith("op_"))
    kept = next(word for word in shown.split() if word.endswith("first-token:"))
    first = FirstToken(token, Path(kept.removesuffix(":")), True)
    expected = banner(Settings(), first, Probe("", "llama3.2:latest"))
    assert shown.splitlines()[1:] == expected[1:]
    assert shown.startswith(f"ollama-proxy {VERSION} on {EXAMPLE_URL}")
    assert len(token) == len(new_token())


# Texts that people look for.


@cache
def sentences() -> tuple[re.Pattern[str], ...]:
    """Every text in the package that could be shown to somebody, with `.*`
    where a value is put in."""
    found: set[str] = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            found.update(_pattern(node))
    return tuple(re.compile(each, re.DOTALL) for each in found)


def _pattern(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts = re.split(r"%\(\w+\)s", node.value)
        if sum(map(len, parts)) > 12:
            yield ".*".join(map(re.escape, parts))
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        # A template of hardly anything but values would fit any text.
        if sum(len(part) for part in parts if isinstance(part, str)) > 12:
            yield "".join(re.escape(part) if isinstance(part, str) else ".*" for part in parts)


def is_said(text: str) -> bool:
    """Whether the program has such a text, or one that says what is wrong and one
    that says what helps."""
    wrong, _, help_ = text.partition(": ")
    whole = _is_sentence(text) or (_is_sentence(wrong) and _is_sentence(help_))
    return whole or text in read("deploy/nginx/ollama-proxy.conf")


def _is_sentence(text: str) -> bool:
    return any(sentence.fullmatch(text) for sentence in sentences())


def quoted_errors(name: str) -> list[str]:
    return [codes(row[0])[0] for row in table_with(name, "`model 'llama3.2' not found`")]


def test_quoted_errors_are_those_that_the_gateway_gives() -> None:
    wrong = [text for text in quoted_errors(ERRORS) if not is_said(text)]
    assert not wrong, "\n".join(wrong)


def test_a_text_that_nothing_says_is_noticed() -> None:
    assert not is_said("Failed to connect to the service of somebody else")


# Examples run as they are printed.


def configurations() -> list[Block]:
    """The gateway's own; a list is a file of another program, and scrapes
    are those of Prometheus."""
    return [
        block
        for name in DOCUMENTS
        for block in blocks(name, "yaml")
        if not block.text.startswith(("- ", "scrape_configs:"))
    ]


def mistake_in(example: Block, path: Path) -> str:
    """Return why a gateway can't be run with a configuration, or an empty string."""
    path.write_text(example.text, encoding="utf-8")
    try:
        settings = load_settings(path, {})
        build_fleet(settings, {"DEEPSEEK_API_KEY": "sk-1", "LAB_KEY": "sk-2"}).close()
    except ConfigError as error:
        return str(error)
    return "" if settings.auth.tokens() else "it has no token"


def test_configuration_examples_load_and_can_be_served(tmp_path: Path) -> None:
    found = {each.text: mistake_in(each, tmp_path / "config.yaml") for each in configurations()}
    wrong = [f"{mistake} in:\n{text}" for text, mistake in found.items() if mistake]
    assert not wrong, "\n".join(wrong)


def cli_commands() -> list[str]:
    lines = "".join(block.text for block in blocks(OPERATIONS, "sh")).splitlines()
    return [line.partition("#")[0].strip() for line in lines if "-m ollama_proxy.cli" in line]


@pytest.mark.parametrize(
    "command", [each for each in cli_commands() if not each.endswith("cli run")]
)
def test_command_line_example_works(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OLLAMA_PROXY_CONFIG", raising=False)
    monkeypatch.setattr(sys, "stdin", StringIO("some-token\n"))
    words = shlex.split(command)
    arguments = words[words.index("ollama_proxy.cli") + 1 :]
    # Where no Ollama runs there is nothing to check, and the doctor says what is missing.
    statuses = {"check-exposure": (0, 3), "doctor": (0, 1, 2)}.get(arguments[0], (0,))
    assert main(arguments) in statuses
    assert capsys.readouterr().out


@pytest.fixture(scope="module")
def demo() -> Iterator[Gateway]:
    """What a newcomer without Ollama has: the demo model behind the gateway."""
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": "demo:"}}
    with Gateway(config, workers=1) as gateway:
        yield gateway


def run_example(command: list[str], directory: Path) -> str:
    """Runs an example with the token of the gateway in TOKEN; returns what it printed."""
    environ = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=environ | {"TOKEN": TOKEN},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.strip()
    return done.stdout.decode()


def aimed(text: str, gateway: Gateway) -> str:
    assert EXAMPLE_URL in text
    return text.replace(EXAMPLE_URL, gateway.url)


def curl_examples(name: str) -> list[str]:
    return [block.text for block in blocks(name, "sh") if block.text.startswith("curl ")]


#: The documents whose requests are sent.
EXAMPLES = ("README.md", CLIENTS, PROVIDERS, OPERATIONS)
#: What only an example has that is meant for several upstreams.
SEVERAL = re.compile(r"box\d|qwen3|deepseek|/health")


def run_curl(example: str, gateway: Gateway, directory: Path) -> str:
    require_program("curl")
    strict = 'curl() { command curl --fail "$@"; }\n'
    printed = run_example(["sh", "-ec", strict + aimed(example, gateway)], directory)
    assert '"error":{' not in printed and '"error":"' not in printed
    return printed


@pytest.mark.parametrize(
    "example",
    [each for name in EXAMPLES for each in curl_examples(name) if not SEVERAL.search(each)],
)
def test_curl_example_gets_an_answer(example: str, demo: Gateway, tmp_path: Path) -> None:
    run_curl(example, demo, tmp_path)


class Fleet(NamedTuple):
    """Three boxes and DeepSeek, as docs/providers.md sets them up."""

    ollama_nodes: list[FaultUpstream]
    provider: Provider
    gateway: Gateway


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """The configuration of docs/providers.md, at addresses of this machine."""
    config = yaml.safe_load(
        next(block.text for block in blocks(PROVIDERS, "yaml") if "box3" in block.text)
    )
    with ExitStack() as running:
        boxes = [running.enter_context(FaultUpstream()) for _ in range(3)]
        for box in boxes:
            box.script("/api/tags", [Json({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]})])
            box.script(
                "/api/pull", [Lines([{"status": "pulling manifest"}, {"status": "success"}])]
            )
        provider = running.enter_context(Provider(row("deepseek-chat"), key="sk-of-the-example"))
        for upstream, url in zip(
            config["upstreams"], [*(box.url for box in boxes), provider.base_url], strict=True
        ):
            upstream["base_url"] = url
        # At another address than DeepSeek's own its key has to be named.
        config["upstreams"][-1]["api_key_env"] = "DEEPSEEK_API_KEY"
        env = {"DEEPSEEK_API_KEY": "sk-of-the-example"}
        yield Fleet(boxes, provider, running.enter_context(Gateway(config, workers=1, env=env)))


@pytest.mark.parametrize(
    "example",
    [each for name in EXAMPLES for each in curl_examples(name) if SEVERAL.search(each)],
)
def test_curl_example_for_several_upstreams_gets_an_answer(
    example: str, fleet: Fleet, tmp_path: Path
) -> None:
    printed = run_curl(example, fleet.gateway, tmp_path)
    assert "qwen3:8b" in printed or "deepseek" in printed or "success" in printed


def test_example_for_several_upstreams_reaches_the_one_that_it_names(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.provider.clear()
    (to_box,) = [each for each in curl_examples(PROVIDERS) if "box2/" in each]
    (to_provider,) = [each for each in curl_examples(PROVIDERS) if "deepseek:" in each]
    before = [_chats(box) for box in fleet.ollama_nodes]
    run_curl(to_box, fleet.gateway, tmp_path)
    run_curl(to_provider, fleet.gateway, tmp_path)
    assert [_chats(box) for box in fleet.ollama_nodes] == [before[0], before[1] + 1, before[2]]
    assert [body["model"] for body in fleet.provider.bodies()] == ["deepseek-chat"]


def _chats(box: FaultUpstream) -> int:
    return sum(request.path == "/api/chat" for request in box.requests)


#: The others belong to tests/clients, which has the packages that they need.
OWN_EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$", read(CLIENTS).partition("\n## Coding assistants\n")[0], re.M | re.S
)


@pytest.mark.parametrize("number", range(len(OWN_EXAMPLES)))
def test_python_example_prints_an_answer(number: int, demo: Gateway, tmp_path: Path) -> None:
    text = OWN_EXAMPLES[number]
    for module in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE):
        pytest.importorskip(module, reason=f"{module} is not among the packages of the tests")
    script = tmp_path / "example.py"
    script.write_text(aimed(text, demo), encoding="utf-8")
    run_example([sys.executable, str(script)], tmp_path)


@pytest.mark.parametrize("number", range(len(blocks(CLIENTS, "js"))))
def test_javascript_example_prints_an_answer(number: int, demo: Gateway, tmp_path: Path) -> None:
    node = require_program("node")
    modules = ROOT / "tests/node/node_modules"
    if not (modules / "openai").is_dir():
        pytest.skip("the packages for Node are not installed: npm ci in tests/node")
    (tmp_path / "node_modules").symlink_to(modules)
    script = tmp_path / "example.mjs"
    script.write_text(aimed(blocks(CLIENTS, "js")[number].text, demo), encoding="utf-8")
    run_example([node, str(script)], tmp_path)


@pytest.mark.parametrize(("method", "path"), [("HEAD", ""), ("GET", "api/tags")])
def test_base_url_for_the_ollama_program_works(method: str, path: str, demo: Gateway) -> None:
    assert f"OLLAMA_HOST={EXAMPLE_URL}/k/$TOKEN" in read(CLIENTS)
    assert http_client.request(demo.url, method, f"/k/{TOKEN}/{path}").status == 200


# The other documents.


def test_changelog_has_the_newest_version_first() -> None:
    versions = [title.split()[0] for level, title in headings("CHANGELOG.md") if level == 2]
    assert versions[0] == VERSION
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert all(newer > older for newer, older in pairwise(numbers))


def named_targets(name: str) -> list[str]:
    shell = "".join(block.text for block in blocks(name, "sh"))
    return re.findall(r"`make ([a-z]+)`", prose(name)) + re.findall(
        r"\bmake ([a-z]+)$", shell, re.MULTILINE
    )


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    wrong = [
        f"{name}: make {target}"
        for name in DOCUMENTS
        for target in named_targets(name)
        if target not in targets
    ]
    assert not wrong, "\n".join(wrong)
