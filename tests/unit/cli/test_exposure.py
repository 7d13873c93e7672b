"""Who can use Ollama without the gateway: real listeners on loopback, on an address of
this machine, on all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ollama_proxy.cli import exposure
from ollama_proxy.cli.exposure import (
    WANTS_TOKEN,
    Finding,
    Probe,
    check_servers,
    check_upstreams,
    own_addresses,
    probe_ollama,
)
from ollama_proxy.settings.schema import settings_from
from tests.rig.authority import Authority
from tests.rig.fixtures import function_fixture
from tests.rig.plain_ollama import network_address, nobody, plain_ollama
from tests.rig.tables import each_row

TOKENS = "auth: {generate_tokens: [team-token-1]}\n"


def of_upstreams(*upstreams: str, rest: str = TOKENS) -> list[Finding]:
    text = f"{rest}upstreams:\n" + "".join(f"  - {{{upstream}}}\n" for upstream in upstreams)
    return list(check_upstreams(settings_from(text.encode(), Path("config.yaml"), {})))


@pytest.fixture(scope="module")
def address() -> str:
    """An address by which others reach this machine."""
    return network_address()


def url_of(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


# Servers on this machine, as the configuration names them.


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0"])
def test_one_that_listens_everywhere_is_open(address: str, host: str) -> None:
    with plain_ollama("0.0.0.0") as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'http://{host}:{port}'")
    assert found.is_open
    assert found.text.startswith(f"box1 (http://{host}:{port}): OPEN at ")
    assert url_of(address, port) in found.text
    assert "without a token" in found.text and "OLLAMA_HOST=127.0.0.1" in found.text


def test_one_that_listens_on_an_own_address_is_open_however_it_is_named(address: str) -> None:
    with plain_ollama(address) as port:
        (named,) = of_upstreams(f"name: box1, base_url: '{url_of(address, port)}'")
        (local,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    assert (named.is_open, local.is_open) == (True, True)


def test_one_that_listens_on_loopback_alone_is_closed(address: str) -> None:
    with plain_ollama() as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    count = len(own_addresses())
    assert found == Finding(
        f"box1 (http://127.0.0.1:{port}): closed, it answers only on this machine ({count} "
        "other addresses tried)."
    )


def test_certificate_keeps_nobody_out(address: str, tmp_path: Path) -> None:
    signed_by_itself = Authority(tmp_path).server("DNS:box1", signed=False)
    with plain_ollama("0.0.0.0", ssl_context=signed_by_itself) as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'https://localhost:{port}'")
    assert (found.is_open, f"https://{address}:{port}" in found.text) == (True, True)


@pytest.mark.parametrize("version", [401, 404, b"<html>"], ids=["token", "nothing", "page"])
def test_something_else_on_its_port_opens_nothing(address: str, version: object) -> None:
    """Such as a gateway, or a proxy that wants a password."""
    with plain_ollama() as port, plain_ollama(address, port=port, version=version):
        (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    assert (found.is_open, "closed" in found.text) == (False, True)


def test_one_that_wants_a_token_everywhere_is_closed(address: str) -> None:
    with plain_ollama("0.0.0.0", version=401) as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    assert found == Finding(f"box1 (http://127.0.0.1:{port}): closed, it requires a token.")


silent_port = function_fixture(lambda: nobody("0.0.0.0"))


def test_of_one_that_is_not_running_nothing_can_be_told(silent_port: int) -> None:
    (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{silent_port}'")
    assert (found.is_open, found.is_unknown, "could not be checked" in found.text) == (
        False,
        True,
        True,
    )


def test_each_ollama_has_its_finding_and_providers_have_none(address: str) -> None:
    with plain_ollama() as closed, plain_ollama("0.0.0.0") as opened:
        found = of_upstreams(
            f"name: box1, base_url: 'http://127.0.0.1:{closed}'",
            "name: cloud, kind: deepseek",
            f"name: box2, base_url: 'http://127.0.0.1:{opened}'",
            "name: lab, kind: vllm",
        )
    assert [(each.text.split()[0], each.is_open) for each in found] == [
        ("box1", False),
        ("box2", True),
        ("lab", False),
    ]
    assert found[2].text.endswith("not checked, because it is not an Ollama server.")


def test_without_an_ollama_there_is_nothing_to_find() -> None:
    assert of_upstreams("name: here, kind: demo") == [Finding("No upstream is an Ollama server.")]


def test_gateway_that_asks_for_no_token_is_open_itself() -> None:
    rest = "server: {host: 0.0.0.0, port: 8080}\nauth: {enabled: false, allow_open_network: true}\n"
    first, _ = of_upstreams("name: here, kind: demo", rest=rest)
    assert (first.is_open, first.text.startswith("the gateway (0.0.0.0:8080): OPEN.")) == (
        True,
        True,
    )


# Servers elsewhere: every address of this machine is its own, so here the rest of the
# way is not the real one.


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on this machine."""
    monkeypatch.setattr(exposure, "is_here", lambda url: False)


def test_one_on_another_machine_answers_as_it_should(elsewhere: None) -> None:
    with plain_ollama() as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    assert not found.is_open
    assert "on another machine" in found.text
    assert "its firewall should admit only 127.0.0.1" in found.text
    assert found.text.endswith(f"ollama-proxy check-exposure http://127.0.0.1:{port}")


def test_one_on_another_machine_may_be_down(elsewhere: None, silent_port: int) -> None:
    (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{silent_port}'")
    text = f"box1 (http://127.0.0.1:{silent_port}): no answer (Connection refused)."
    assert found == Finding(text, is_unknown=True)


def test_one_on_another_machine_that_asks_for_a_token_is_closed(elsewhere: None) -> None:
    with plain_ollama(version=401) as port:
        (found,) = of_upstreams(f"name: box1, base_url: 'http://127.0.0.1:{port}'")
    assert (found.is_open, found.is_unknown) == (False, False)


def test_seen_from_a_third_machine_silence_proves_nothing(
    elsewhere: None, silent_port: int
) -> None:
    (found,) = check_servers([f"http://127.0.0.1:{silent_port}"])
    assert (found.is_open, found.is_unknown, "closed" in found.text) == (False, True, False)
    assert "no answer (" in found.text


def test_seen_from_a_third_machine_it_is_open(elsewhere: None) -> None:
    with plain_ollama() as port:
        (found,) = check_servers([f"http://127.0.0.1:{port}"])
    assert found.is_open
    assert found.text.startswith(f"http://127.0.0.1:{port}: OPEN.")
    assert "it's:8b" in found.text


@pytest.mark.parametrize("version", [401, 404])
def test_seen_from_a_third_machine_it_is_closed(elsewhere: None, version: int) -> None:
    with plain_ollama(version=version) as port:
        (found,) = check_servers([f"http://127.0.0.1:{port}"])
    assert (found.is_open, ": closed, " in found.text) == (False, True)


def test_address_that_is_given_may_be_one_of_this_machine(address: str) -> None:
    with plain_ollama("0.0.0.0") as opened, plain_ollama() as closed:
        found = list(check_servers([f"http://127.0.0.1:{opened}", f"http://127.0.0.1:{closed}"]))
    assert [each.is_open for each in found] == [True, False]


# Addresses.


def test_own_addresses_are_those_that_others_reach(address: str) -> None:
    for each in own_addresses():
        family = socket.AF_INET if each.version == 4 else socket.AF_INET6
        with socket.socket(family) as listener:
            listener.bind((str(each), 0))
        assert not each.is_loopback and not each.is_link_local


def test_own_addresses_are_found_without_the_tables_of_linux(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure, "_IPV4_TABLE", Path("/nowhere"))
    monkeypatch.setattr(exposure, "_IPV6_TABLE", Path("/nowhere"))
    assert address in map(str, own_addresses())


FIB_TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.1.2.0
        /24 link UNICAST
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 10.1.2.255
        /32 link BROADCAST
     |-- 172.17.0.1
        /32 host LOCAL
"""
IF_INET6 = "fd000000000000000000000000000002 04 40 00 82     eth0\n"


def test_the_tables_of_linux_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v4").write_text(FIB_TRIE)
    (tmp_path / "v6").write_text(IF_INET6)
    monkeypatch.setattr(exposure, "_IPV4_TABLE", tmp_path / "v4")
    monkeypatch.setattr(exposure, "_IPV6_TABLE", tmp_path / "v6")
    monkeypatch.setattr(exposure, "is_own", lambda address: True)
    assert [*map(str, own_addresses())][:3] == ["10.1.2.3", "172.17.0.1", "fd00::2"]


@pytest.mark.parametrize(
    ("host", "is_here"), [("no-such-host.invalid", False), ("x" * 64, False), ("localhost", True)]
)
def test_name_that_leads_nowhere_is_not_here(host: str, is_here: bool) -> None:
    assert exposure.is_here(f"http://{host}:1") is is_here


def test_an_ollama_that_answers_is_found_with_its_first_model() -> None:
    with plain_ollama() as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe("", "it's:8b", version="0.12.0")


@each_row("tags", [404, None, [], {"models": None}, {"models": [1, {"name": 5}]}, b"no JSON"])
def test_an_ollama_without_models_is_used_all_the_same(tags: object) -> None:
    with plain_ollama(tags=tags) as port:
        found = probe_ollama(f"http://127.0.0.1:{port}")
    assert found.model == ""
    assert bool(found.refusal) == isinstance(tags, bytes)


@each_row("version", [404, (503, {"version": "0.12.0"}), None, [], {"version": 5}, b"<html>"])
def test_something_else_at_the_address_is_not_taken_for_ollama(version: object) -> None:
    with plain_ollama(version=version) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}").refusal not in ("", WANTS_TOKEN)


@pytest.mark.parametrize("status", [401, 403])
def test_who_asks_for_a_token_is_not_open(status: int) -> None:
    with plain_ollama(version=status) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe(WANTS_TOKEN)


def test_nobody_there_is_said() -> None:
    with nobody() as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe(
            "no answer (Connection refused)", is_silent=True
        )


def test_the_probe_ignores_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    with plain_ollama() as port, nobody() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        assert probe_ollama(f"http://127.0.0.1:{port}").refusal == ""


def test_a_path_in_front_is_kept() -> None:
    with plain_ollama(**{"inner/api/version": {"version": "1"}}) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}/api/inner/") == Probe("", version="1")


def test_certificate_that_proves_nothing_counts_only_for_those_who_send_secrets(
    tmp_path: Path,
) -> None:
    signed_by_itself = Authority(tmp_path).server("IP:127.0.0.1", signed=False)
    with plain_ollama(ssl_context=signed_by_itself) as port:
        assert probe_ollama(f"https://127.0.0.1:{port}").refusal.startswith("no answer (")
        assert probe_ollama(f"https://127.0.0.1:{port}", checks_certificate=False).refusal == ""
