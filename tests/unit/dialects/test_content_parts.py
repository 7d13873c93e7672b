"""The pieces that requests of several dialects share."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.content_parts import (
    load_arguments,
    load_content,
    load_file,
    load_function,
    load_image,
    load_options,
    load_reasoning,
    load_timeout_ms,
    load_top_logprobs,
    render_logprobs,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Attachment, Document, ImageUrl
from ollama_proxy.policy import MAX_URL_CHARS
from tests.rig.tables import each_row


def test_image_is_inline_or_an_address() -> None:
    assert load_image("data:image/png;base64,QUJD", "x") == "QUJD"
    assert load_image("https://pictures.example/a", "x") == ImageUrl(
        "https://pictures.example/a", "x"
    )


@each_row(
    "url",
    [None, 1, "", "file:///etc/passwd", "data:image/png,plain", "https://a/" + "a" * MAX_URL_CHARS],
)
def test_other_images_are_refused_by_their_place(url: Any) -> None:
    with pytest.raises(BadRequest) as raised:
        load_image(url, "messages[3]")
    assert raised.value.param == "messages[3]"


def test_content_is_a_text_or_parts_that_know_their_place() -> None:
    seen = []

    def load_part(part: Any, where: str, texts: list[str], attachments: list[Any]) -> None:
        seen.append(where)
        texts.append(part)

    assert load_content(None, "c", load_part) == ("", [])
    assert load_content("a", "c", load_part) == ("a", [])
    assert load_content(["a", "b"], "c", load_part) == ("a\nb", [])
    assert seen == ["c[0]", "c[1]"]
    with pytest.raises(BadRequest):
        load_content({}, "c", load_part)


@each_row(
    ("arguments", "loaded"),
    [(None, {}), ("", {}), ("{}", {}), ('{"z":1,"a":2}', {"z": 1, "a": 2}), ({"a": 1}, {"a": 1})],
)
def test_arguments(arguments: Any, loaded: Any) -> None:
    assert list(load_arguments(arguments, "x").items()) == list(loaded.items())


@pytest.mark.parametrize("arguments", ["{", "[1]", [1], 1])
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    with pytest.raises(BadRequest):
        load_arguments(arguments, "x")


def test_function_carries_unknown_fields_only_if_asked() -> None:
    function = {"name": "f", "parameters": {"type": "object"}, "defer": True}
    assert load_function(function, "x").passthrough_fields == {}
    assert load_function(function, "x", carries=True).passthrough_fields == {"defer": True}


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"name": "a b"}, {"parameters": []}, {"description": 1}]
)
def test_function_that_is_wrong_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        load_function({"name": "f"} | change, "x")


@each_row(
    ("data", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
        ({"reasoning": {"enabled": False}}, False),
        ({"think": True, "reasoning": {"effort": "low"}}, True),
    ],
)
def test_thinking_of_every_vendor(data: dict[str, Any], think: Any) -> None:
    assert load_reasoning(data) == think


@pytest.mark.parametrize(
    "data", [{"think": "very"}, {"reasoning_effort": "very"}, {"reasoning": {"effort": 1}}]
)
def test_unknown_thinking_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        load_reasoning(data)


def test_timeout_has_two_names() -> None:
    assert load_timeout_ms({"timeout_ms": 5}) == load_timeout_ms({"request_timeout": 5.0}) == 5
    assert load_timeout_ms({}) is None
    for wrong in (0, True, "5"):
        with pytest.raises(BadRequest):
            load_timeout_ms({"timeout_ms": wrong})


def test_options_stand_in_options_and_beside_them() -> None:
    assert load_options({"options": {"num_ctx": 1, "seed": 2}, "num_ctx": 5.0, "min_p": 0.1}) == {
        "num_ctx": 5,
        "seed": 2,
        "min_p": 0.1,
    }


def test_log_probabilities_are_bounded() -> None:
    assert [load_top_logprobs(value) for value in (None, 0, 20)] == [None, None, 20]
    for wrong in (-1, 21):
        with pytest.raises(BadRequest):
            load_top_logprobs(wrong)


@pytest.mark.parametrize(
    "data",
    [
        "data:application/pdf;base64,JVBERi0x",
        "data:application/PDF;name=a.pdf;base64,JVBERi0x",
        "JVBERi0x",
    ],
)
def test_a_pdf_is_a_document_behind_the_texts_before_it(data: str) -> None:
    texts, attachments = ["one", "three"], list[Attachment]()
    load_file({"file_data": data, "filename": " doc\r\n.pdf "}, "x", texts, attachments)
    assert (texts, attachments) == (
        ["one", "three"],
        [Document("JVBERi0x", "doc .pdf", len("one\nthree"))],
    )


def test_a_text_file_is_its_text_under_its_name() -> None:
    texts = ["above"]
    load_file({"file_data": "data:text/plain;base64,d29yZHM=", "filename": "a.txt"}, "x", texts, [])
    assert texts == ["above", "a.txt\nwords"]


def test_a_name_of_a_file_is_cut() -> None:
    attachments: list[Attachment] = []
    load_file({"file_data": "JVBERi0x", "filename": "a" * 1000}, "x", [], attachments)
    assert attachments == [Document("JVBERi0x", "a" * 200, 0)]


@each_row(
    ("file", "param"),
    [
        ({"file_id": "f"}, "x.file_id"),
        ({"file_url": "https://example.org/a.pdf"}, "x.file_url"),
        ({}, "x.file_data"),
        ({"file_data": 5}, "x.file_data"),
        ({"file_data": "data:application/zip;base64,UEs="}, "x.file_data"),
        ({"file_data": "data:text/plain;base64,/w=="}, "x.file_data"),
        ({"file_data": "JVBERi0x", "filename": 5}, "x.filename"),
        ("text", "x"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file: Any, param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_file(file, "x", [], [])
    assert raised.value.param == param


def test_there_may_be_many_documents_in_a_message_but_not_thousands() -> None:
    attachments: list[Attachment] = []
    with pytest.raises(BadRequest, match="one document too many: 32 can be in one message"):
        for _ in range(33):
            load_file({"file_data": "JVBERi0x"}, "x", [], attachments)
    assert len(attachments) == 32


LOGPROBS: list[dict[str, Any]] = [
    {
        "token": "é",
        "logprob": -0.5,
        "top_logprobs": [{"token": "b", "bytes": [98]}, {"token": "", "logprob": None}],
    },
    {"logprob": -1.5, "bytes": [1, 2]},
]
B, NOTHING = {"token": "b", "logprob": 0.0, "bytes": [98]}, {"token": "", "logprob": 0.0}
FIRST, SECOND = {"token": "é", "logprob": -0.5}, {"token": "", "logprob": -1.5, "bytes": [1, 2]}
SPELLED = {**FIRST, "bytes": [195, 169]}

FORMS: dict[str, tuple[dict[str, bool], list[dict[str, Any]]]] = {
    "bytes may be null": (
        {"spells": False},
        [
            {**FIRST, "bytes": None, "top_logprobs": [B, NOTHING | {"bytes": None}]},
            {**SECOND, "top_logprobs": []},
        ],
    ),
    "bytes are always there": (
        {"spells": True},
        [{**SPELLED, "top_logprobs": [B, NOTHING | {"bytes": []}]}, {**SECOND, "top_logprobs": []}],
    ),
    "what is empty is left out": (
        {"spells": True, "omits_empty": True},
        [{**SPELLED, "top_logprobs": [B, NOTHING]}, SECOND],
    ),
}


@pytest.mark.parametrize(("form", "expected"), FORMS.values(), ids=FORMS)
def test_forms(form: dict[str, bool], expected: list[dict[str, Any]]) -> None:
    assert render_logprobs(LOGPROBS, **form) == expected
