"""What users of that gateway were promised of keys and of usage. One test per row,
and way to make a key."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.acceptance.s2 import CHAT, HELLO, reset
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.keys import FOLLOWED_S, change_key, create_key, wait_for_followers


@pytest.fixture(scope="module")
def gateway(upstream: FaultUpstream) -> Iterator[Gateway]:
    """With nothing but the address of Ollama, and two names for its model."""
    reset(upstream)
    models = f"models: {{coder: {{target: '{MODEL}'}}, writer: {{target: '{MODEL}'}}}}\n"
    with Gateway(
        models,
        records=True,
        env={"OLLAMA_URL": upstream.url},
        workers=1,
        own_interpreter=True,
    ) as running:
        wait_for_followers(running)
        yield running


def operator_of(gateway: Gateway) -> str:
    """The token that the first start has made."""
    return (gateway.state_directory / "first-token").read_text().strip()


def listed(gateway: Gateway, token: str) -> set[str]:
    """The models that a key sees; none if it is not accepted."""
    answer = gateway.ask("/v1/models", token=token)
    return {model["id"] for model in answer.json()["data"]} if answer.status == 200 else set()


def ask(gateway: Gateway, token: str, model: str) -> int:
    return gateway.ask("/v1/chat/completions", CHAT | {"model": model}, token=token).status


def test_s2_04_several_keys_each_with_its_models(gateway: Gateway) -> None:
    one, other = (
        create_key(gateway, "one", "--models", "coder"),
        create_key(gateway, "other", "--models", "writer,m*"),
    )
    wait_until(lambda: listed(gateway, one) and listed(gateway, other), FOLLOWED_S)
    assert (listed(gateway, one), listed(gateway, other)) == ({"coder"}, {"writer"})
    assert [ask(gateway, one, model) for model in ("coder", "writer", MODEL)] == [200, 404, 404]
    assert [ask(gateway, other, model) for model in ("coder", "writer", MODEL)] == [404, 200, 404]
    change_key(gateway, "change", "one", "--models", "coder,writer")
    wait_until(lambda: ask(gateway, one, "writer") == 200, FOLLOWED_S)


def test_s2_10_address_then_a_key_then_chat(gateway: Gateway) -> None:
    """Nobody refreshes the list of models: it is that of the server."""
    token = create_key(gateway, "quick", "--models", "*")
    wait_until(lambda: MODEL in listed(gateway, token), FOLLOWED_S)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0) as client:
        assert (
            client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content
        )  # type: ignore[arg-type]


def test_s2_10_the_same_by_the_api(gateway: Gateway) -> None:
    operator = operator_of(gateway)
    made = gateway.ask("/admin/api/tokens", {"name": "by-api", "models": ["coder"]}, token=operator)
    token = made.json()["token"]
    wait_until(lambda: listed(gateway, token) == {"coder"}, FOLLOWED_S)
    assert [ask(gateway, token, model) for model in ("coder", "writer")] == [200, 404]


def test_s2_05_usage_is_tracked(gateway: Gateway) -> None:
    """In sums by token and model, request by request, and in the access log."""
    operator = operator_of(gateway)
    token = create_key(gateway, "counted", "--models", "*")
    wait_until(lambda: listed(gateway, token), FOLLOWED_S)
    assert [ask(gateway, token, model) for model in ("coder", "coder", "writer")] == [200, 200, 200]

    def sums() -> dict[str, tuple[int, int, int]]:
        answer = gateway.ask("/admin/api/usage?by=model&token=counted", token=operator)
        rows = [row for row in answer.json()["rows"] if row["model"]]
        return {
            row["model"]: (row["requests"], row["prompt_tokens"], row["completion_tokens"])
            for row in rows
        }

    wait_until(
        lambda: sums() == {"coder": (2, 14, 6), "writer": (1, 7, 3)},
        message=lambda: str(sums()),
    )
    rows = gateway.ask("/admin/api/requests?token=counted&model=writer", token=operator).json()[
        "rows"
    ]
    assert [(row["state"], row["status"], row["target"]) for row in rows] == [("ok", 200, MODEL)]

    def logged() -> list[str]:
        lines = gateway.log_lines("access")
        return sorted(
            line["model"] for line in lines if line["token"] == "counted" and line["model"]
        )

    wait_until(lambda: logged() == ["coder", "coder", "writer"], FOLLOWED_S, lambda: str(logged()))
