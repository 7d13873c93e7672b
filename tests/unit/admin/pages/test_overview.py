"""The first page, for those who may see it."""

from __future__ import annotations

from pathlib import Path

from tests.rig.boxes import Box
from tests.rig.in_process import TOKEN, in_process
from tests.unit.admin.conftest import MEMBER
from tests.unit.admin.pages.conftest import OpenPages


def test_whoever_has_not_signed_in_gets_the_form_for_that(tmp_path: Path) -> None:
    with in_process(session_directory=tmp_path) as app:
        answer = app.ask("GET", "/admin", token=None)
    assert (
        answer.status_code == 200 and 'name="token"' in answer.text and "Boxes" not in answer.text
    )


def test_a_token_in_a_header_is_no_session(tmp_path: Path) -> None:
    with in_process(session_directory=tmp_path) as app:
        for token in (TOKEN, MEMBER):
            assert 'name="token"' in app.ask("GET", "/admin", token=token).text
            assert app.ask("GET", "/admin/events", token=token).status_code == 302


def test_problems_are_in_the_language_of_the_reader(open_pages: OpenPages) -> None:
    with Box("old", ["a"], version="0.32.14") as old:
        gone = {"name": "gone", "base_url": "http://127.0.0.1:1"}
        keyless = {"name": "keyless", "kind": "openai", "api_key_env": "NO_SUCH_KEY"}
        visitor = open_pages(upstreams=[old.declared, gone, keyless]).sign_in()
        visitor.app.app.extensions["ollama_proxy"]["health"].check()
        chinese, english = (
            visitor.get("/admin", Accept_Language=each).text for each in ("zh-CN", "en")
        )
    for text in (
        "gone 不可用：",
        "keyless 已隐藏：未设置 NO_SUCH_KEY",
        "old：Ollama 0.32.14 有已知缺陷：",
    ):
        assert f'<p class="what">{text}' in chinese
    assert "请启动它，或更正 upstreams 中的对应条目" in chinese and "请升级到 Ollama" in chinese
    for text in (
        "gone can&#39;t be used: ",
        "keyless is hidden: NO_SUCH_KEY is not set",
        "old: Ollama 0.32.14 has a",
    ):
        assert f'<p class="what">{text}' in english


def test_where_no_token_is_required_everybody_sees_it(tmp_path: Path) -> None:
    with in_process(
        session_directory=tmp_path, auth={"enabled": False}, server={"host": "127.0.0.1"}
    ) as app:
        text = app.ask("GET", "/admin", token=None).text
    assert "Boxes" in text and "Set concurrency on a box" in text and "records.url is null" in text
