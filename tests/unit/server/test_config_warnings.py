"""What an operator is told of settings that work: open doors, files open to others,
settings without effect."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.settings.schema import Settings, load_settings

TOKENS = "auth: {generate_tokens: [CANARY-1, CANARY-2]}\n"
DIGEST = f"auth: {{generate_tokens: [{{sha256: '{hashlib.sha256(b'x').hexdigest()}'}}]}}\n"
PLAIN = "c.yaml: 2 plain token(s) in the file; `ollama-proxy token hash` makes the sha256 form"

Warned = Callable[..., list[str]]


@pytest.fixture
def warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warned:
    """What is said of a configuration file c.yaml with this text and mode, and of a state
    directory that is `state`."""
    monkeypatch.chdir(tmp_path)

    def told(text: str, mode: int = 0o600, **environ: str) -> list[str]:
        Path("c.yaml").write_text(text)
        Path("c.yaml").chmod(mode)
        found = settings_warnings(load_settings(Path("c.yaml"), environ), environ)
        assert "CANARY" not in "".join(found)
        return found

    return told


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "box1"])
def test_gateway_without_tokens_in_the_network_is_said(warned: Warned, host: str) -> None:
    (said,) = warned("auth: {enabled: false, allow_open_network: true}", HOST=host)
    assert said == f"anyone who reaches {host}:8080 can use the models: auth is off"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_gateway_without_tokens_on_this_machine_is_said(warned: Warned, host: str) -> None:
    (said,) = warned("auth: {enabled: false}", HOST=host)
    assert said.startswith(
        "auth.enabled is false: every program on this machine can use the models"
    )
    assert "web pages" in said and "server.allowed_hosts" in said


def test_origins_have_no_effect_without_auth(warned: Warned) -> None:
    said = warned("auth: {enabled: false}\ncors: {origins: ['*']}", HOST="127.0.0.1")
    assert [each for each in said if each.startswith("cors.origins (") and "has no effect" in each]


def test_option_that_ollama_does_not_have_is_said(warned: Warned) -> None:
    (said,) = warned("models: {m: {options: {temprature: 0.2, top_k: 4}}}")
    assert said == 'models.m.options: Ollama has no option temprature, did you mean "temperature"?'


def test_expired_tokens_and_idle_settings_are_said(warned: Warned) -> None:
    text = "auth: {generate_tokens: [{name: old, token: x, expires: 2020-01-01}]}\nupstreams: [{name: a}]"
    said = warned(text, OLLAMA_BASE_URL="http://x")
    assert "the token old has expired on 2020-01-01" in said
    assert (
        "service.base_url (environment variable OLLAMA_BASE_URL) has no effect, because "
        "upstreams are configured" in said
    )


@pytest.mark.parametrize(
    "lists", ["generate_tokens: []", "manage_tokens: []", "generate_tokens: [], manage_tokens: []"]
)
def test_empty_list_of_tokens_is_said(warned: Warned, lists: str) -> None:
    assert "every call is refused" in " ".join(warned(f"auth: {{{lists}}}\n"))


@pytest.mark.parametrize(
    "lists", ["", "enabled: false, generate_tokens: []", "manage_tokens: [admin-1]"]
)
def test_no_list_and_one_that_nobody_asks_are_not_taken_for_an_empty_one(
    warned: Warned, lists: str
) -> None:
    text = f"server: {{host: 127.0.0.1}}\nauth: {{{lists}}}\n"
    assert "every call is refused" not in " ".join(warned(text))


def test_address_of_the_only_upstream_has_an_effect(warned: Warned) -> None:
    assert warned(DIGEST, OLLAMA_BASE_URL="http://x") == []


# The file.


@pytest.fixture
def other_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files belong to this user, and to a group that is not the one of the process."""
    own = os.getegid()
    monkeypatch.setattr(os, "getegid", lambda: own + 1)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_plain_tokens_that_the_gateway_alone_may_read_are_said_to_be_plain(
    warned: Warned, mode: int
) -> None:
    assert warned(TOKENS, mode) == [PLAIN]


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_plain_tokens_that_everybody_may_read_are_said(warned: Warned, mode: int) -> None:
    assert warned(TOKENS, mode) == [
        PLAIN,
        f"c.yaml: others may read its plain tokens (mode {mode:04o}); chmod o= c.yaml",
    ]


@pytest.mark.parametrize("mode", [0o640, 0o644])
def test_plain_tokens_that_another_group_may_read_are_said(
    warned: Warned, other_group: None, mode: int
) -> None:
    assert warned(TOKENS, mode)[1:] == [
        f"c.yaml: others may read its plain tokens (mode {mode:04o}); chmod go= c.yaml"
    ]


def test_remedy_never_shuts_the_gateway_out(
    warned: Warned, other_group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted file that it can read only as everybody can."""
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert warned(TOKENS, 0o644)[1:] == [
        (
            f"c.yaml: others may read its plain tokens (mode 0644); chgrp {os.getegid()} c.yaml; chmod 640 c.yaml"
        )
    ]


@pytest.mark.parametrize(
    "text", [TOKENS, DIGEST, "server: {port: 1}"], ids=["plain", "digests", "none"]
)
@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_file_that_everybody_may_write_is_said_whatever_is_in_it(
    warned: Warned, text: str, mode: int
) -> None:
    assert (
        warned(text, mode)[-1]
        == f"c.yaml: others may change who is let in (mode {mode:04o}); chmod o= c.yaml"
    )


def test_file_that_another_group_may_write_is_said(warned: Warned, other_group: None) -> None:
    assert warned(DIGEST, 0o660) == [
        "c.yaml: others may change who is let in (mode 0660); chmod go= c.yaml"
    ]


def test_digests_and_tokens_of_the_environment_may_be_read(warned: Warned) -> None:
    assert warned(DIGEST, 0o644, OLLAMA_PROXY__AUTH__MANAGE_TOKENS="[CANARY]") == []


def test_without_a_file_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert settings_warnings(Settings(), {"STATE_DIRECTORY": str(tmp_path / "state")}) == []


def test_file_that_has_gone_since_is_no_fault(warned: Warned) -> None:
    warned(TOKENS)
    settings = load_settings(Path("c.yaml"), {})
    Path("c.yaml").unlink()
    assert settings_warnings(settings, {}) == [PLAIN]


REDIS = "state: {url: 'redis://:CANARY@redis1/0'}\n"
UNENCRYPTED = (
    "state.url: the password for redis://********@redis1/0 is sent unencrypted to another "
    "machine; use rediss://"
)


def test_file_with_a_password_that_everybody_may_read_is_said(warned: Warned) -> None:
    assert warned(DIGEST + REDIS, 0o600) == [UNENCRYPTED]
    assert warned(DIGEST + REDIS, 0o644)[0] == (
        "c.yaml: others may read its password for Redis (mode 0644); chmod o= c.yaml"
    )
    assert (
        "others may read its plain tokens and its password for Redis"
        in warned(TOKENS + REDIS, 0o644)[1]
    )
    assert warned(DIGEST, 0o644, OLLAMA_PROXY__STATE__URL="rediss://:CANARY@redis1") == []


# The queue, limits and prices.


@pytest.mark.parametrize(
    ("url", "is_said"),
    [
        ("redis://:CANARY@redis1/0", True),
        ("redis://redis1?password=CANARY", True),
        ("redis://redis1/0", False),
        ("rediss://:CANARY@redis1/0", False),
        ("redis://:CANARY@127.0.0.1:6380/0", False),
        ("unix://:CANARY@/run/redis.sock", False),
    ],
)
def test_password_that_crosses_the_network_unencrypted_is_said(
    warned: Warned, url: str, is_said: bool
) -> None:
    said = warned(DIGEST, OLLAMA_PROXY__STATE__URL=url)
    assert [each.startswith("state.url: the password for redis://") for each in said] == [
        True
    ] * is_said


DEFAULT_COST = "auth: {defaults: {limits: {cost_per_day: 5}}, manage_tokens: []}\nservice: {base_url: 'demo:'}\n"
COSTS = f"""\
auth:
  generate_tokens:
    - {{name: a, sha256: "{"a" * 64}", limits: {{cost_per_day: 5}},
       users: {{header: X-U, limits: {{cost_per_day: null}}}}}}
    - {{name: b, sha256: "{"b" * 64}", limits: {{cost_per_month: null, tokens_per_day: 5}}}}
    - {{name: c, sha256: "{"c" * 64}", users: {{header: X-U, limits: {{cost_per_day: 1}}}}}}
"""


def test_limits_of_cost_without_a_price_are_said(warned: Warned) -> None:
    said = "limits of cost have no effect (%s), because no model and no upstream has a price"
    assert warned(COSTS) == [said % "a, c"]
    assert warned(DEFAULT_COST)[-1] == said % "auth.defaults"


@pytest.mark.parametrize(
    "priced", ["models: {m: {price: {output: 1.1}}}", "upstreams: [{name: a, gpu_hour_price: 1.8}]"]
)
def test_limits_of_cost_with_a_price_are_fine(warned: Warned, priced: str) -> None:
    assert warned(COSTS + priced) == []


QUEUE = f"""\
auth: {{defaults: {{weight: 2}}, generate_tokens: [{{name: a, sha256: "{"a" * 64}", priority: background}}]}}
queue: {{max_waiting: 7}}
"""


@pytest.mark.parametrize("upstreams", ["", "upstreams: [{name: box}]"])
def test_queue_that_can_not_form_is_said(warned: Warned, upstreams: str) -> None:
    no_queue = "no effect, because no upstream has a concurrency"
    assert warned(QUEUE + upstreams) == [
        f"auth.defaults.weight (c.yaml:1) has {no_queue}",
        f"queue.max_waiting (c.yaml:2) has {no_queue}",
        f"weight and priority of a have {no_queue}",
    ]
    assert (
        warned(
            QUEUE
            + "upstreams: [{name: box, concurrency: 2}, {name: other, base_url: 'http://o:1'}]"
        )
        == []
    )


def test_defaults_of_tokens_have_no_effect_without_auth(warned: Warned) -> None:
    said = warned("auth: {enabled: false, defaults: {limits: {concurrent: 2}}}", HOST="127.0.0.1")
    assert "auth.defaults has no effect, because auth is off: there are no tokens" in said


# The state directory.


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o711])
def test_state_directory_that_is_open_to_others_is_said(warned: Warned, mode: int) -> None:
    Path("state").mkdir()
    Path("state").chmod(mode)
    state = Path("state").absolute()
    assert warned(DIGEST) == [
        f"{state} contains secrets and is open to others (mode {mode:04o}); chmod go= {state}"
    ]


def test_state_directory_may_be_named_by_the_environment(warned: Warned, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere").chmod(0o755)
    (said,) = warned(DIGEST, STATE_DIRECTORY=str(tmp_path / "elsewhere"))
    assert said.startswith(f"{tmp_path / 'elsewhere'} contains secrets")


def test_state_for_the_owner_alone_and_no_state_at_all_are_fine(warned: Warned) -> None:
    assert warned(DIGEST) == []
    Path("state").mkdir(mode=0o700)
    assert warned(DIGEST) == []
