"""Settings: declared once, read from file and environment, refused with file,
line and a suggestion."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import date
from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import (
    Settings,
    config_path,
    effective_upstreams,
    load_settings,
    setting_names,
    variable_name,
)
from ollama_proxy.settings.types import SettingType
from ollama_proxy.settings.upstreams import PRESETS, Timeouts, UpstreamModel, UpstreamSettings
from ollama_proxy.settings.yaml_file import Entry

SMALLEST = """\
auth:
  generate_tokens: ["team-token-1", "team-token-2"]
service:
  base_url: "http://localhost:11434"
"""
EVERYTHING = """\
server:    {host: 127.0.0.1, port: 8081, trusted_proxies: [10.0.0.0/8, "::1"], allowed_hosts: [a.example],
            max_body: 1MiB}
auth:
  enabled: true
  generate_tokens:
    - {name: web-team, sha256: "HASH", scopes: [read, generate], models: ["qwen3*"], expires: 2027-01-31}
    - {name: plain, token: CANARY-2}
    - CANARY-3
  manage_tokens: [CANARY-4]
upstreams:
  - {name: box1, kind: ollama, base_url: "http://10.0.0.5:11434", weight: 2}
  - {name: deepseek, kind: deepseek, models: [deepseek-chat]}
  - {name: lab, kind: openai, base_url: "http://10.0.0.9:8000/v1", api_key_env: LAB_KEY, models: {gpt-lab: "org/model"},
     timeouts: {idle_s: 7}}
timeouts:  {connect_s: 1, first_byte_s: 2, idle_s: 3, total_s: 4, send_idle_s: 5.5}
stream:    {heartbeat_s: 6, always_include_usage: true}
models:
  coder: {target: "box1:qwen3:8b", hidden: true, options: {num_ctx: 8192}, think: high, keep_alive: 30m,
          request_timeout: 120000, exclude_reasoning: true, clamp: {num_ctx: 32768, num_predict: 4096, keep_alive: 1h},
          system: {prepend: "Be brief."}, pin_options: true, timeouts: {total_s: 9}}
  "qwen3:8b": {timeout_ms: 5}
default_model: coder
images:    {fetch: allowlist, allow: [10.0.0.0/8], max_bytes: 2MiB, timeout_s: 3}
cors:      {origins: ["https://chat.example"]}
logging:   {dir: /tmp/logs, level: warn, access: false, chat_logs: true}
""".replace("HASH", hashlib.sha256(b"CANARY-1").hexdigest())


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Load settings from a text, with nothing but the given environment; complaints
    call the file c.yaml."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str | bytes = SMALLEST, **environ: str) -> Settings:
        Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        Path("c.yaml").chmod(0o600)
        return load_settings(Path("c.yaml"), environ)

    return load_text


def complaints(load, text: str | bytes = SMALLEST, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None or "CANARY" not in str(caught.value.__cause__)
    return caught.value.complaints


def test_the_smallest_file_works_as_it_is(load) -> None:
    settings = load(SMALLEST)
    first, second = settings.auth.generate_tokens
    assert (first.name, second.name) == ("token-1", "token-2")
    assert first.digest == hashlib.sha256(b"team-token-1").digest()
    assert first.scopes == {"read", "generate", "manage"}
    assert effective_upstreams(settings) == (
        UpstreamSettings("ollama", "ollama", "http://localhost:11434"),
    )
    assert settings.source == Path("c.yaml").absolute()


def test_without_a_file_the_defaults_of_the_design_count(load) -> None:
    settings = load_settings(environ={})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.max_body) == (
        "0.0.0.0",
        8080,
        64 << 20,
    )
    assert settings.timeouts == Timeouts(3, 600, 120, 3600, 60)
    assert (settings.stream.heartbeat_s, settings.images.max_bytes, settings.cors.origins) == (
        15,
        10 << 20,
        ("*",),
    )
    assert settings.auth.manage_tokens is None
    assert settings.source is None


def test_every_name_of_the_contract_is_accepted(load) -> None:
    settings = load(EVERYTHING)
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.logging.level == "WARNING"
    coder = settings.models["coder"]
    assert (coder.target, coder.think, coder.keep_alive, coder.options) == (
        "box1:qwen3:8b",
        "high",
        "30m",
        {"num_ctx": 8192},
    )
    assert (coder.clamp.num_ctx, coder.clamp.keep_alive, coder.system.prepend) == (
        32768,
        3600.0,
        "Be brief.",
    )
    assert settings.models["qwen3:8b"].request_timeout == 5
    assert settings.timeouts.override({"idle_s": 1}, coder.timeouts) == Timeouts(1, 2, 1, 9, 5.5)


def test_tokens_are_kept_as_digests_with_their_rights(load) -> None:
    auth = load(EVERYTHING).auth
    assert [token.digest for token in auth.tokens()] == [
        hashlib.sha256(f"CANARY-{number}".encode()).digest() for number in (1, 2, 3, 4)
    ]
    assert [token.name for token in auth.tokens()] == [
        "web-team",
        "plain",
        "token-3",
        "manage-token-1",
    ]
    assert auth.generate_tokens[0].models == ("qwen3*",)
    assert auth.generate_tokens[0].expires == date(2027, 1, 31)


def test_generate_tokens_may_manage_until_there_are_manage_tokens(load) -> None:
    with_managers = (
        "auth:\n  generate_tokens: [aaa, {token: bbb, scopes: [read]}]\n"
        "  manage_tokens: [ccc, {token: ddd, scopes: [read]}]\n"
    )
    auth = load(with_managers).auth
    assert [sorted(token.scopes) for token in auth.tokens()] == [
        ["generate", "read"],
        ["read"],
        ["generate", "manage", "read"],
        ["read"],
    ]
    locked = load("auth: {generate_tokens: [aaa], manage_tokens: []}").auth
    assert locked.generate_tokens[0].scopes == {"read", "generate"}
    assert locked.manage_tokens == ()


def test_manage_has_one_place_once_there_are_manage_tokens(load) -> None:
    with pytest.raises(ConfigError, match="list the token there"):
        load(
            "auth:\n  generate_tokens: [{token: bbb, scopes: [read, manage]}]\n  manage_tokens: [ccc]\n"
        )


@pytest.mark.parametrize("show", [repr, str])
def test_no_token_is_ever_shown(load, show) -> None:
    settings = load(EVERYTHING)
    shown = (
        show(settings)
        + show(settings.auth.generate_tokens[1])
        + show(dataclasses.asdict(settings.auth)["enabled"])
    )
    assert "CANARY" not in shown
    assert settings.auth.generate_tokens[1].digest.hex() not in shown


def test_upstreams_know_what_their_kind_implies(load) -> None:
    box, deepseek, lab = effective_upstreams(load(EVERYTHING))
    assert (box.weight, box.models, box.key_variables) == (2, {}, ())
    assert deepseek.base_url == "https://api.deepseek.com"
    assert deepseek.models == {"deepseek-chat": UpstreamModel("deepseek-chat")}
    assert (deepseek.key_variables, deepseek.needs_key) == (("DEEPSEEK_API_KEY",), True)
    assert lab.models == {"gpt-lab": UpstreamModel("org/model")}
    assert (lab.key_variables, lab.timeouts, lab.drain) == (("LAB_KEY",), {"idle_s": 7}, False)


def test_what_is_known_of_an_upstreams_model_can_be_said(load) -> None:
    models = "{fast: org/m, big: {id: org/b, capabilities: [tools, vision], context_length: 8192}, own: {}}"
    (lab,) = load(f"upstreams: [{{name: lab, kind: vllm, models: {models}}}]").upstreams
    assert lab.models == {
        "fast": UpstreamModel("org/m"),
        "big": UpstreamModel("org/b", ("tools", "vision"), 8192),
        "own": UpstreamModel("own"),
    }


@pytest.mark.parametrize(
    "model", ["{capabilities: [dance]}", "{context_length: 0}", "{size: 7}", "7"]
)
def test_what_is_wrong_about_an_upstreams_model_is_said(load, model: str) -> None:
    with pytest.raises(ConfigError, match="upstreams"):
        load(f"upstreams: [{{name: lab, kind: vllm, models: {{m: {model}}}}}]")


@pytest.mark.parametrize(
    ("upstream", "needed"),
    [
        ("{name: x, kind: openai}", True),
        ("{name: x, kind: openai, base_url: 'http://h:1/v1'}", False),
        ("{name: x, kind: openai, base_url: 'http://h:1/v1', api_key_env: LAB_KEY}", True),
        ("{name: x, kind: anthropic}", True),
        ("{name: x, kind: anthropic, base_url: 'http://h:1'}", False),
        ("{name: x, kind: dashscope, base_url: 'https://dashscope-intl.example/v1'}", True),
        ("{name: x, kind: vllm}", False),
        ("{name: x, kind: ollama}", False),
    ],
)
def test_a_service_needs_a_key_and_a_server_of_ones_own_does_not(
    load, upstream: str, needed: bool
) -> None:
    (one,) = load(f"upstreams: [{upstream}]").upstreams
    assert one.needs_key is needed


@pytest.mark.parametrize("kind", PRESETS)
def test_every_kind_can_be_configured(load, kind: str) -> None:
    (upstream,) = load(
        f"upstreams: [{{name: x, kind: {kind}, base_url: 'http://h:1/v1'}}]"
    ).upstreams
    assert (upstream.kind, upstream.base_url) == (kind, "http://h:1/v1")


def test_demo_as_base_url_is_the_demo_upstream(load) -> None:
    (upstream,) = effective_upstreams(load(SMALLEST, OLLAMA_BASE_URL="demo:"))
    assert (upstream.name, upstream.kind) == ("demo", "demo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# c\n\nservce:\n  x: 1\n  base_url: u\n",
            'c.yaml:5: unknown setting "servce.base_url", did you mean "service.base_url"?',
        ),
        ("servce: 1\n", 'c.yaml:1: unknown setting "servce", did you mean "service"?'),
        (
            "server:\n  prot: 1\n",
            'c.yaml:2: unknown setting "server.prot", did you mean "server.port"?',
        ),
        ("base_url: x\n", 'c.yaml:1: unknown setting "base_url", did you mean "service.base_url"?'),
        (
            "generate_tokens:\n  - CANARY\n",
            'c.yaml:2: unknown setting "generate_tokens", did you mean "auth.generate_tokens"?',
        ),
        (
            "upstreams:\n  - {name: x, wieght: 2}\n",
            'c.yaml:2: unknown setting "upstreams[1].wieght", did you mean "upstreams[1].weight"?',
        ),
        (
            "models:\n  m: {clamp: {num_ctxt: 2}}\n",
            'c.yaml:2: unknown setting "models.m.clamp.num_ctxt", did you mean '
            '"models.m.clamp.num_ctx"?',
        ),
        ("timeouts:\n  xyzzy: 2\n", 'c.yaml:2: unknown setting "timeouts.xyzzy"'),
        (
            "auth:\n  generate_token: [CANARY]\n",
            'c.yaml:2: unknown setting in auth, did you mean "generate_tokens"?',
        ),
        (
            "auth:\n  generate_tokens:\n  - {CANARY: x}\n",
            "c.yaml:3: unknown setting in auth.generate_tokens[1]",
        ),
        ("auth:\n  CANARY:\n", "c.yaml:2: unknown setting in auth"),
        ("tokens:\n  CANARY:\n", 'c.yaml:2: unknown setting "tokens"'),
        (
            "upstreams: [{name: x, kind: olama}]",
            "c.yaml:1: upstreams[1].kind must be one of ollama",
        ),
        (
            "models: {m: {options: {num_ctx: a}}}",
            "c.yaml:1: models.m.options.num_ctx must be a whole number",
        ),
        (
            "models: {m: {options: {temperature: hot}}}",
            "c.yaml:1: models.m.options.temperature must be a number",
        ),
        (
            "models: {m: {options: {stop: x}}}",
            "c.yaml:1: models.m.options.stop must be a list of strings",
        ),
        (
            "models: {m: {think: 7}}",
            "c.yaml:1: models.m.think must be true, false, low, medium, high or max",
        ),
        (
            "service: {base_url: demo}",
            "c.yaml:1: service.base_url must be http://host[:port][/path] or https",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(load, text: str, expected: str) -> None:
    (line,) = complaints(load, text)
    assert line.startswith(expected)


#: Token lists that may not be used: what is in the list, and what is said about it.
BAD_TOKENS = {
    "number": ("[1234567]", "must be text: put quotes around it"),
    "octal": ("[0123]", "must be text: put quotes around it"),
    "time of day": ("[12:30:45]", "must be text: put quotes around it"),
    "boolean": ("[yes]", "must be text: put quotes around it"),
    "date": ("[2027-01-31]", "must be text: put quotes around it"),
    "null item": ("[null]", "is empty"),
    "empty item": ('[""]', "is empty"),
    "empty item in block style": ("\n  -", "is empty"),
    "text for list": ("CANARY", "must be a list"),
    "mapping for list": ("{CANARY: 1}", "must be a list"),
    "list in list": ("[[CANARY]]", "must be text"),
    "space": ('["CANARY 1"]', "must be a token"),
    "space around": ('[" CANARY"]', "must be a token"),
    "control character": (r'["CANARY\x07"]', "must be a token"),
    "line end": (r'["CANARY\n"]', "must be a token"),
    "not ASCII": ('["CANARYé"]', "must be a token"),
    "same token twice": ("[CANARY, CANARY]", "is the same token as auth.generate_tokens[1]"),
    "same token as text and mapping": ("[CANARY, {token: CANARY}]", "is the same token as"),
    "duplicate name": (
        "[{name: a, token: CANARY1}, {name: a, token: CANARY2}]",
        "has the same name as",
    ),
    "name of a numbered one": ("[{name: token-2, token: CANARY1}, CANARY2]", '): "token-2"'),
    "bad name": ("[{name: a b, token: CANARY}]", "must be a name"),
    "empty name": ('[{name: "", token: CANARY}]', "must be a name"),
    "number as name": ("[{name: 5, token: CANARY}]", "must be text: put quotes around it"),
    "neither form": ("[{name: a}]", "needs either token or sha256"),
    "both forms": ("[{token: CANARY, sha256: '%s'}]" % ("a" * 64), "needs either token or sha256"),
    "short digest": ("[{sha256: abcd}]", "must be 64 hexadecimal digits"),
    "digest of digits": ("[{sha256: %s}]" % ("1" * 64), "must be text: put quotes around it"),
    "digest of nothing": (
        f"[{{sha256: '{hashlib.sha256(b'').hexdigest()}'}}]",
        "is the digest of an empty string",
    ),
    "unknown scope": (
        "[{token: CANARY, scopes: [write]}]",
        "must be one of read, generate, manage",
    ),
    "no scope": ("[{token: CANARY, scopes: []}]", "is an empty list"),
    "no model": ("[{token: CANARY, models: []}]", "is an empty list"),
    "no date": ("[{token: CANARY, expires: soon}]", "must be a date"),
    "tag": ("[!x CANARY]", "tags"),
    "alias": ("[&x CANARY, *x]", "anchors and aliases"),
    "tab": ("\n\t- CANARY", "is not valid YAML"),
}


@pytest.mark.parametrize(("tokens", "problem"), BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_bad_token_list_is_refused_with_its_line(load, tokens: str, problem: str) -> None:
    found = complaints(load, f"# team\nauth:\n  generate_tokens: {tokens}\n")
    assert any(problem in line for line in found)
    assert all(line.startswith(("c.yaml:3: ", "c.yaml:4: ")) for line in found)


@pytest.mark.parametrize("nothing", ["", " null", " ~", " # nobody", "\n    # - team-token-1"])
@pytest.mark.parametrize("name", ["generate_tokens", "manage_tokens"])
def test_a_token_list_without_a_value_is_an_empty_one(load, name: str, nothing: str) -> None:
    assert load(f"auth:\n  {name}:{nothing}\n").auth == load(f"auth:\n  {name}: []\n").auth


def test_a_token_list_without_a_value_leaves_the_other_as_it_is(load) -> None:
    auth = load("auth:\n  generate_tokens: [CANARY]\n  manage_tokens:\n").auth
    assert [(token.name, "manage" in token.scopes) for token in auth.tokens()] == [
        ("token-1", False)
    ]
    auth = load("auth:\n  generate_tokens:\n  manage_tokens: [CANARY]\n").auth
    assert [token.name for token in auth.tokens()] == ["manage-token-1"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\xef\xbb\xbf" + SMALLEST.encode(),
        b"#" * (5 << 20),
        SMALLEST.encode("utf-16"),
    ],
)
def test_a_file_that_could_be_misread_as_a_whole_is_refused(load, content: bytes) -> None:
    (line,) = complaints(load, content)
    assert line.startswith("c.yaml:")


def test_windows_line_ends_make_the_same_tokens(load) -> None:
    assert load(SMALLEST.replace("\n", "\r\n")).auth == load(SMALLEST).auth


def test_a_token_may_not_be_in_both_lists(load) -> None:
    (line,) = complaints(
        load, "auth:\n  generate_tokens: [CANARY]\n  manage_tokens:\n    - CANARY\n"
    )
    assert (
        line
        == "c.yaml:4: auth.manage_tokens[1] is the same token as auth.generate_tokens[1] (c.yaml:2)"
    )


def test_all_complaints_come_at_once(load) -> None:
    found = complaints(
        load, "server: {port: x}\nauth: {generate_tokens: [1, 2]}\nfoo: 1\n", TIMEOUT="soon"
    )
    assert len(found) >= 5


@pytest.mark.parametrize(
    "text",
    [
        "server:",
        "auth:",
        "auth: {max_failed_logins: }",
        "auth: {generate_tokens: [{token: CANARY, scopes: }]}",
        "server: {trusted_proxies: }",
        "cors: {origins: }",
        "images: {allow: }",
        "server: 5",
        "server: [1]",
        "server: {port: 65536}",
        "server: {port: -1}",
        "server: {host: 'a b'}",
        "server: {trusted_proxies: [nginx]}",
        "server: {trusted_proxies: ['fe80::1%eth0']}",
        "server: {trusted_proxies: ['unix:/run/nginx.sock']}",
        "server: {trusted_proxies: 127.0.0.1}",
        "server: {max_body: 0}",
        "timeouts: {idle_s: 0}",
        "timeouts: {idle_s: '5'}",
        "service: {base_url: 'http://u:CANARY@h'}",
        "service: {base_url: 'localhost:11434'}",
        "upstreams: [{kind: ollama}]",
        "upstreams: [{name: a}, {name: a}]",
        "upstreams: [{name: 'a:b'}]",
        "upstreams: [{name: a, kind: llamacpp}]",
        "upstreams: [{name: a, weight: 0}]",
        "upstreams: [{name: a, base_url: 'demo:'}]",
        "upstreams: [{name: a, kind: openai, api_key_env: sk-CANARY}]",
        "models: {m: {keep_alive: '10'}}",
        "models: {m: {think: very}}",
        "models: {m: {clamp: {keep_alive: -1}}}",
        "models: {m: {request_timeout: 5, timeout_ms: 6}}",
        "models: {5: {hidden: true}}",
        "logging: {level: LOUD}",
        "images: {fetch: on}",
        "images: {fetch: no way}",
        "logging: {level: off}",
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(load, text: str) -> None:
    (line,) = complaints(load, text)
    assert line.startswith("c.yaml:1: ")


def test_off_needs_no_quotes(load) -> None:
    assert load("images: {fetch: off}").images.fetch == "off"
    assert load(OLLAMA_PROXY__IMAGES__FETCH="off").images.fetch == "off"


def test_default_file_environment_in_this_order(load) -> None:
    assert load("server: {port: 9001}").server.port == 9001
    assert load("server: {port: 9001}", PORT="9002").server.port == 9002
    assert (
        load("server: {port: 9001}", PORT="9002", OLLAMA_PROXY__SERVER__PORT="9003").server.port
        == 9003
    )
    assert load("server: {port: 9001}", PORT="").server.port == 9001


def test_the_short_variables_are_known(load) -> None:
    settings = load(
        HOST="::1",
        OLLAMA_URL="http://one",
        TIMEOUT="60.0",
        DEFAULT_MODEL="123",
        CHAT_LOGS="1",
        LOG_LEVEL="debug",
    )
    assert (settings.server.host, settings.service.base_url, settings.default_model) == (
        "::1",
        "http://one",
        "123",
    )
    assert (
        settings.timeouts.first_byte_s,
        settings.timeouts.idle_s,
        settings.timeouts.total_s,
    ) == (60, 60, 3600)
    assert (settings.logging.chat_logs, settings.logging.level) == (True, "DEBUG")
    assert (
        load(OLLAMA_URL="http://one", OLLAMA_BASE_URL="http://two").service.base_url == "http://two"
    )


def test_any_setting_can_be_given_by_a_variable(load) -> None:
    settings = load(
        OLLAMA_PROXY__AUTH__GENERATE_TOKENS='[CANARY, {name: b, token: "123"}]',
        OLLAMA_PROXY__DEFAULT_MODEL="coder",
        OLLAMA_PROXY__MODELS="{coder: {target: x}}",
    )
    assert [token.name for token in settings.auth.generate_tokens] == ["token-1", "b"]
    assert (settings.default_model, settings.models["coder"].target) == ("coder", "x")
    assert settings.origins["default_model"] == "environment variable OLLAMA_PROXY__DEFAULT_MODEL"


def test_every_setting_has_its_variable(load) -> None:
    found = {
        variable: complaints(load, **{variable: "{CANARY: 0"})
        for variable in map(variable_name, setting_names())
    }
    wrong = [
        f"{variable}: {lines}"
        for variable, lines in found.items()
        if len(lines) != 1 or not lines[0].startswith(f"environment variable {variable}: ")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        (
            "OLLAMA_PROXY__SERVCE__BASE_URL",
            "x",
            'unknown setting "servce.base_url", did you mean "service.base_url"?',
        ),
        ("OLLAMA_PROXY__SERVER", "{port: 1}", 'unknown setting "server"'),
        (
            "OLLAMA_PROXY__AUTH__GENERATE_TOKENS",
            "[12345]",
            "auth.generate_tokens[1] must be text: put quotes around it",
        ),
        ("PORT", "80a", "server.port must be a whole number"),
        ("OLLAMA_BASE_URL", "http://u:CANARY@h", "service.base_url must be http"),
        ("CHAT_LOGS", "maybe", "logging.chat_logs must be true or false"),
    ],
)
def test_a_bad_variable_is_named(load, variable: str, text: str, expected: str) -> None:
    (line,) = complaints(load, **{variable: text})
    assert line.startswith(f"environment variable {variable}: {expected}")


def test_provider_keys_are_not_read(load) -> None:
    assert "CANARY" not in repr(load(DEEPSEEK_API_KEY="CANARY"))


def test_the_file_is_chosen_by_argument_then_environment(load, tmp_path: Path) -> None:
    load()
    (tmp_path / "other.yaml").write_text("server: {port: 1}")
    environ = {"OLLAMA_PROXY_CONFIG": "other.yaml"}
    assert load_settings(environ=environ).server.port == 1
    assert load_settings(Path("c.yaml"), environ).server.port == 8080
    assert config_path({}) == Path("config/config.yaml")


def test_only_the_default_file_may_be_missing(load) -> None:
    with pytest.raises(ConfigError, match=r"^gone.yaml: cannot be read: No such file"):
        load_settings(environ={"OLLAMA_PROXY_CONFIG": "gone.yaml"})


def test_a_directory_in_place_of_the_file_is_named(load, tmp_path: Path) -> None:
    (tmp_path / "config" / "config.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"^config/config.yaml: is a directory"):
        load_settings(environ={})


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "box1"])
def test_an_open_gateway_must_be_said_twice(load, host: str) -> None:
    (line,) = complaints(load, "\nauth: {enabled: false}", HOST=host)
    assert line.startswith("c.yaml:2: auth.enabled is false")
    assert "auth.allow_open_network" in line
    assert not load("auth: {enabled: false, allow_open_network: true}", HOST=host).auth.enabled


def test_settings_are_frozen_and_remember_the_content(load) -> None:
    settings = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.server.port = 1
    assert settings.fingerprint == hashlib.sha256(SMALLEST.encode()).hexdigest()


def _declarations(section: type, name: str = "Settings"):
    for each in dataclasses.fields(section):
        yield f"{name}.{each.name}", each
        if "section" in each.metadata:
            yield from _declarations(each.metadata["section"], each.metadata["section"].__name__)


def test_every_setting_says_what_it_means() -> None:
    declared = {
        name: each.metadata for name, each in _declarations(Settings) if "kind" in each.metadata
    }
    assert declared
    assert [name for name, each in declared.items() if not each["text"].endswith(".")] == []
    for name, each in declared.items():
        assert isinstance(each["kind"], SettingType), name
        with pytest.raises(ConfigError):
            each["kind"].parse(Entry("x:1", name, "binary"))
