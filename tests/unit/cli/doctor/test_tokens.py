"""The forms of a token; with a real gateway and nginx: integration/test_doctor.py."""

from __future__ import annotations

from ollama_proxy.cli.doctor.door import Door
from ollama_proxy.cli.doctor.finding import Level
from ollama_proxy.cli.doctor.tokens import check_forms, check_refusal
from tests.rig.plain_ollama import nobody, plain_ollama


def test_a_token_that_is_refused_in_every_form_is_not_valid() -> None:
    with plain_ollama(**{"/health/probe": 401}) as port:
        (found,) = check_forms(Door(f"http://127.0.0.1:{port}", "token-1"))
    assert (found.level, found.what) == (Level.FAULT, "the token is not valid")


def test_models_without_a_token() -> None:
    with plain_ollama() as port:
        (found,) = check_refusal(Door(f"http://127.0.0.1:{port}"))
    assert (found.level, "anyone" in found.what) == (Level.FAULT, True)


def test_a_path_that_gets_lost() -> None:
    with plain_ollama(tags=401) as port:
        (found,) = check_refusal(Door(f"http://127.0.0.1:{port}"))
    assert (found.level, "/k/<token>/" in found.what) == (Level.WARNING, True)


def test_nobody_answers() -> None:
    with nobody() as port:
        (found,) = check_refusal(Door(f"http://127.0.0.1:{port}"))
    assert found.level == Level.FAULT
