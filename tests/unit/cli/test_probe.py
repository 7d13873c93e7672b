"""Asking an address whether an Ollama answers there: real servers, good and bad answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.cli.probe import WANTS_TOKEN, Probe, probe_ollama
from tests.rig.authority import Authority
from tests.rig.plain_ollama import nobody, plain_ollama


def test_an_ollama_that_answers_is_found_with_its_first_model() -> None:
    with plain_ollama() as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe("", "it's:8b")


@pytest.mark.parametrize("tags", [404, None, [], {"models": None}, {"models": [1, {"name": 5}]}, b"no JSON"])
def test_an_ollama_without_models_is_used_all_the_same(tags: object) -> None:
    with plain_ollama(tags=tags) as port:
        found = probe_ollama(f"http://127.0.0.1:{port}")
    assert found.model == ""
    assert bool(found.refusal) == isinstance(tags, bytes)


@pytest.mark.parametrize("version", [404, (503, {"version": "0.12.0"}), None, [], {"version": 5}, b"<html>"])
def test_something_else_at_the_address_is_not_taken_for_ollama(version: object) -> None:
    with plain_ollama(version=version) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}").refusal not in ("", WANTS_TOKEN)


@pytest.mark.parametrize("status", [401, 403])
def test_who_asks_for_a_token_is_not_open(status: int) -> None:
    with plain_ollama(version=status) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe(WANTS_TOKEN)


def test_nobody_there_is_said() -> None:
    with nobody() as port:
        assert probe_ollama(f"http://127.0.0.1:{port}") == Probe("no answer (Connection refused)", is_silent=True)


def test_the_probe_ignores_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    with plain_ollama() as port, nobody() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        assert probe_ollama(f"http://127.0.0.1:{port}").refusal == ""


def test_a_path_in_front_is_kept() -> None:
    with plain_ollama(**{"inner/api/version": {"version": "1"}}) as port:
        assert probe_ollama(f"http://127.0.0.1:{port}/api/inner/") == Probe("")


def test_certificate_that_proves_nothing_counts_only_for_those_who_send_secrets(tmp_path: Path) -> None:
    signed_by_itself = Authority(tmp_path).server("IP:127.0.0.1", signed=False)
    with plain_ollama(ssl_context=signed_by_itself) as port:
        assert probe_ollama(f"https://127.0.0.1:{port}").refusal.startswith("no answer (")
        assert probe_ollama(f"https://127.0.0.1:{port}", checks_certificate=False).refusal == ""
