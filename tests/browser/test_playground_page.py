"""The playground in a real browser: what a conversation does, and what an answer can't."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.browser.stage import Stage, open_stage
from tests.rig import NDJSON
from tests.rig.boxes import WorkBox
from tests.rig.browser import Browser, expect
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Head, Lines, WaitFor, WaitForPeerClose
from tests.rig.tiers import LONG

if TYPE_CHECKING:
    from playwright.sync_api import Page

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
DIALECTS = ["ollama-chat", "openai-chat", "openai-responses", "anthropic-messages"]
HOSTILE = """**bold** <img src="https://evil.example/a.png"> ![pic](https://evil.example/b.png)
<script>document.title = "owned"</script><p style="color: red" onclick="alert(1)">text</p>
[run](javascript:alert(1)) [data](data:text/html,x) [out](https://example.org/) <iframe src="/admin"></iframe>

| a | b |
|---|---|
| 1 | 2 |
"""


@pytest.fixture(scope="module")
def box() -> WorkBox:
    return WorkBox("box1", ["tiny", "other"], slots=1)


@pytest.fixture(scope="module")
def shared_stage(browser: Browser, box: WorkBox) -> Iterator[Stage]:
    with open_stage(browser, box, stream={"heartbeat_s": 1}) as stage:
        yield stage


@pytest.fixture
def page(stage: Stage, box: WorkBox) -> Page:
    """The playground of a member, with its models listed."""
    box.clear()
    visit = stage.tab("member")
    assert visit.go(stage.url("/admin/playground")) == 200
    # One is the alias, one means another name.
    expect(visit.page.locator("#model option")).to_have_count(4)
    visit.page.select_option("#model", label="tiny:latest")
    return visit.page


def choose_dialects(*names: str, of: Sequence[str] = DIALECTS) -> pytest.MarkDecorator:
    """Runs a test once for each of these dialects, or of all: tests/node/playground has what each
    makes of the form, and of every answer."""
    return pytest.mark.parametrize("dialect", of if LONG else names)


def said(text: str = "", *, done: bool = False, **message: Any) -> dict[str, Any]:
    """A line of an answer."""
    line = {
        "model": "tiny",
        "message": {"role": "assistant", "content": text, **message},
        "done": done,
    }
    return line | ({"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 8} if done else {})


def ask(page: Page, text: str, dialect: str = "ollama-chat") -> None:
    page.select_option("#dialect", dialect)
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def last_body(box: WorkBox) -> Any:
    return json.loads(box.prompts[-1].body)


def test_an_answer_is_shown_as_it_comes_and_ends_with_its_figures(page: Page, box: WorkBox) -> None:
    go = threading.Event()
    box.script(
        "/api/chat",
        [
            Head(headers=NDJSON),
            Lines([said(thinking="Hm."), said("你好 **W")]),
            WaitFor(go, 20),
            Lines([said("orld**"), said(done=True)]),
        ],
    )
    ask(page, "Hello")
    expect(page.locator(".turn.assistant .text")).to_contain_text("你好 **W")
    expect(page.locator(".turn.assistant .thinking")).to_contain_text("Hm.")
    go.set()
    expect(page.locator(".turn.assistant .text strong")).to_have_text("World")
    expect(page.locator(".turn.assistant .figures")).to_contain_text(
        "5 tokens in · 8 tokens out · first byte after"
    )


@choose_dialects("openai-responses")
def test_an_answer_can_not_do_anything(dialect: str, page: Page, box: WorkBox) -> None:
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    box.script("/api/chat", [Lines([said(HOSTILE), said(done=True)])])
    ask(page, "Hello", dialect)
    answer = page.locator(".turn.assistant .text")
    expect(answer.locator("strong")).to_have_text("bold")
    expect(page.locator(".turn.assistant .figures")).not_to_be_empty()
    assert (
        answer.locator(
            "img, script, iframe, [style], [onclick], [href^='javascript'], [href^='data']"
        ).count()
        == 0
    )
    assert "<script>" in answer.inner_text()
    for link in answer.locator("a[href]").all():
        assert (link.get_attribute("rel"), link.get_attribute("target")) == (
            "noopener noreferrer",
            "_blank",
        )
    assert answer.locator("table td").count() == 2
    assert hosts == {urlsplit(page.url).netloc}


def test_stop_ends_the_generation_on_the_box(page: Page, box: WorkBox) -> None:
    box.script(
        "/api/chat", [Head(headers=NDJSON), Lines([said("Once upon")]), WaitForPeerClose(20)]
    )
    ask(page, "Tell a long story")
    expect(page.locator(".turn.assistant .text")).to_contain_text("Once upon")
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    box.wait_peer_closed(box.wait_for_request(path="/api/chat").connection)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Once upon")
    expect(page.locator(".turn.error")).to_have_count(0)


@choose_dialects("openai-chat", "ollama-chat")
def test_an_error_after_the_first_byte_is_shown_below_what_came(
    dialect: str, page: Page, box: WorkBox
) -> None:
    box.script(
        "/api/chat",
        [Head(headers=NDJSON), Lines([said("Half"), {"error": "the engine is out of memory"}])],
    )
    ask(page, "Hello", dialect)
    expect(page.get_by_role("alert")).to_contain_text("out of memory")
    expect(page.locator(".turn.assistant .text")).to_contain_text("Half")


def test_a_refusal_is_shown_and_can_be_tried_again(stage: Stage, page: Page, box: WorkBox) -> None:
    stage.tab("member").allow("status of 404")
    page.select_option("#model", "other")
    page.fill("#other-model", "absent")
    ask(page, "Hello", "openai-chat")
    expect(page.get_by_role("alert")).to_contain_text("Refused: 404")
    page.select_option("#model", label="tiny:latest")
    box.script("/api/chat", [Lines([said("Yes."), said(done=True)])])
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".turn.assistant .text")).to_contain_text("Yes.")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert [each["content"] for each in last_body(box)["messages"]] == ["Hello"]


@choose_dialects("anthropic-messages")
def test_whoever_asks_plays_the_tools(dialect: str, page: Page, box: WorkBox) -> None:
    called = said(
        tool_calls=[
            {"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
        ]
    )
    box.script(
        "/api/chat", [Lines([called, said(done=True)])], [Lines([said("Warm."), said(done=True)])]
    )
    page.eval_on_selector("#tools-part", "part => { part.open = true }")
    page.click("#example-tool")
    ask(page, "How warm is it?", dialect)
    expect(page.locator(".turn.assistant .tool")).to_contain_text("Köln")
    page.get_by_role("textbox", name="Result of get_weather").fill("18 degrees")
    page.get_by_role("button", name="Send results").click()
    expect(page.locator(".turn.assistant").last.locator(".text")).to_contain_text("Warm.")
    *_, call, result = last_body(box)["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == {"city": "Köln"}
    assert (result["role"], result["content"]) == ("tool", "18 degrees")


@choose_dialects("ollama-generate", of=["ollama-generate", "openai-chat", "anthropic-messages"])
def test_images_go_with_the_message(dialect: str, page: Page, box: WorkBox, tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PIXEL)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    page.set_input_files("#files", [tmp_path / "dot.png", tmp_path / "notes.txt"])
    expect(page.locator("#status")).to_have_text("notes.txt is not an image.")
    expect(page.get_by_role("img", name="Image: dot.png")).to_be_visible()
    assert "<dot.png in base64>" in page.inner_text("#sample")
    ask(page, "What is it?", dialect)
    expect(page.locator(".turn.user img")).to_be_visible()
    expect(page.locator(".turn.assistant .figures")).not_to_be_empty()
    body = last_body(box)
    sent = body if dialect == "ollama-generate" else body["messages"][-1]
    assert sent["images"] == [base64.b64encode(PIXEL).decode()]


def test_what_a_request_waits_for_is_shown(stage: Stage, page: Page, box: WorkBox) -> None:
    box.go.clear()
    body = {"model": "other", "messages": [{"role": "user", "content": "first"}], "stream": False}
    first = threading.Thread(
        target=lambda: stage.gateway.ask(
            "/api/chat", body, token=None, **{"x-api-key": "operator-token-1"}
        )
    )
    first.start()
    try:
        wait_until(lambda: box.running == 1, 10, "the box has nothing to do")
        ask(page, "Hello", "openai-chat")
        expect(page.locator("#status")).to_contain_text("number 1 of 1", timeout=15_000)
    finally:
        box.go.set()
        first.join()
    expect(page.locator(".turn.assistant .figures")).not_to_be_empty()


def test_the_same_call_follows_the_form(page: Page) -> None:
    page.fill("#prompt", "It's me")
    page.fill("#temperature", "0.5")
    expect(page.locator("#sample")).to_contain_text('"temperature": 0.5')
    page.get_by_role("button", name="JavaScript").click()
    page.select_option("#dialect", "anthropic-messages")
    expect(page.locator("#sample")).to_contain_text("@anthropic-ai/sdk")
    expect(page.locator("#sample")).to_contain_text("It's me")


def test_what_is_wrong_in_the_form_is_told_before_anything_is_sent(
    page: Page, box: WorkBox
) -> None:
    page.fill("#temperature", "warm")
    ask(page, "Hello")
    expect(page.locator("#status")).to_have_text("Temperature is not a number.")
    page.fill("#temperature", "")
    page.eval_on_selector("#tools-part", "part => { part.open = true }")
    page.fill("#tools", "{")
    page.press("#prompt", "Enter")
    expect(page.locator("#status")).to_contain_text("The tools are not")
    assert page.input_value("#prompt") == "Hello"
    assert box.prompts == []


def test_a_script_less_browser_is_told_where_else_to_go(stage: Stage) -> None:
    visit = stage.tab("member", javascript=False)
    visit.go(stage.url("/admin/playground"))
    expect(visit.page.locator("main")).to_contain_text("The playground needs JavaScript.")
    expect(visit.page.locator("#prompt")).to_be_hidden()


def test_connect_fills_in_a_model_of_the_reader(stage: Stage) -> None:
    visit = stage.tab("member")
    visit.go(stage.url("/admin/connect"))
    visit.page.click("#codex summary")
    expect(visit.page.locator("#codex code").first).not_to_contain_text("MODEL")
    expect(visit.page.locator("#codex code").first).to_contain_text(
        f'base_url = "{stage.gateway.url}/v1"'
    )
