"""Addresses that a server would load, wherever a request has them."""

from __future__ import annotations

from typing import Any

from ollama_proxy.gateway.media import media_addresses
from tests.rig.tables import each_row

WEB = "http://10.0.0.5/x"


def chat(part: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}],
    }


def found(data: dict[str, Any]) -> dict[str, str]:
    return {each.where: each.url for each in media_addresses(data)}


PART = "messages[0].content[1]"


@each_row(
    ("part", "where"),
    [
        ({"type": "image_url", "image_url": {"url": WEB}}, ".image_url.url"),
        ({"type": "image_url", "image_url": WEB}, ".image_url"),
        ({"image_url": {"url": WEB, "detail": "low"}}, ".image_url.url"),
        ({"type": "input_image", "image_url": WEB}, ".image_url"),
        ({"type": "image", "source": {"type": "url", "url": WEB}}, ".source.url"),
        ({"type": "image", "image": WEB}, ".image"),
        ({"type": "video_url", "video_url": {"url": WEB}}, ".video_url.url"),
        ({"type": "video", "video": [WEB]}, ".video[0]"),
        ({"type": "audio_url", "audio_url": {"url": WEB}}, ".audio_url.url"),
        (
            {"type": "input_audio", "input_audio": {"data": WEB, "format": "wav"}},
            ".input_audio.data",
        ),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": WEB}}, ".file.file_data"),
        ({"type": "input_file", "file_url": WEB}, ".file_url"),
        ({"type": "text", "text": {"image_url": WEB}}, ".text.image_url"),
        ({"type": "text", "text": "hi", "image_url": WEB}, ".image_url"),
        (
            {"type": "new", "some": {"thing": [[{"name": {"else": WEB}}]]}},
            ".some.thing[0][0].name.else",
        ),
    ],
)
def test_addresses_are_found_in_every_kind_of_part(part: Any, where: str) -> None:
    assert found(chat(part)) == {PART + where: WEB}


@each_row(
    "url",
    [
        *(
            "https://a/b",
            "HTTP://a",
            "hTTps:a",
            " http://a",
            "\n\t http://a",
            "ht\ntp://a",
            "h\tttps:\\\\a",
            "\x00http://a",
        ),
        *(
            "\xa0http://a",
            "\ufeffhttp://a",
            "http:\r\n//a",
            "ht" + "\n" * 9999 + "tp://a",
            " " * 20000 + "http://a",
        ),
        *(
            "file:///etc/passwd",
            "FILE:/etc",
            "file:x",
            "ftp://a",
            "gs://a",
            "s3://a",
            "gopher://a",
            "unix:/run/x",
        ),
        *("http:/a", "http://" + "a" * 20000, "javascript:\\a"),
    ],
)
def test_an_address_is_found_however_it_is_written(url: str) -> None:
    for part in ({"image_url": {"url": url}}, {"image": url}):
        assert list(found(chat(part)).values()) == [url]


INLINE = [
    "data:image/png;base64,AAAA",
    "data:image/png;base64," + "A" * 20000,
    "DATA:image/png;base64,AA",
    "Data:,a",
    "",
]
#: Addresses for some servers, and text for others.
WITHOUT_SCHEME = [
    *(
        "/etc/passwd",
        "photo.png",
        "../photo.png",
        "//169.254.169.254/x",
        "169.254.169.254/x.png",
        "www.evil.com/x.png",
    ),
    *(
        "\\\\169.254.169.254\\share",
        "\u200bhttp://169.254.169.254/",
        "\u2060file:///x",
        "[::1]/x",
        "localhost:80",
        "~",
    ),
    *(
        "//uQxAAAAAAA",
        "iVBORw0KGgo=",
        "qwen3:8b",
        "see http://a",
        "a:b",
        "file-abc123",
        "A" * 20000,
        " data:image/png,a",
    ),
]


@each_row("data", INLINE)
def test_what_is_inline_is_no_address(data: str) -> None:
    assert (
        found(chat({"image_url": {"url": data}, "imageUrl": data, "input_audio": {"data": data}}))
        == {}
    )


@each_row("text", WITHOUT_SCHEME)
def test_only_a_scheme_makes_an_address_in_fields_that_may_hold_media(text: str) -> None:
    assert (
        found(
            chat(
                {
                    "image": text,
                    "input_audio": {"data": text},
                    "video": [text],
                    "file": {"file_id": text},
                }
            )
        )
        == {}
    )


@each_row("text", WITHOUT_SCHEME)
def test_a_field_named_for_addresses_needs_no_scheme(text: str) -> None:
    assert found(chat({"type": "image_url", "image_url": {"url": text}})) == {
        f"{PART}.image_url.url": text
    }


@each_row(
    ("part", "where"),
    [
        ({"image_url": "photo.png"}, ".image_url"),
        ({"image_url": {"url": "photo.png", "detail": "low", "format": "png"}}, ".image_url.url"),
        ({"type": "input_image", "input_image": "photo.png"}, ".input_image"),
        ({"type": "image", "source": {"type": "url", "url": "photo.png"}}, ".source.url"),
        ({"video_url": {"url": ["photo.png"]}}, ".video_url.url[0]"),
        ({"image_urls": [["data:,a", "photo.png"]]}, ".image_urls[0][1]"),
        ({"imageUrl": "photo.png"}, ".imageUrl"),
        ({"imageURL": "photo.png"}, ".imageURL"),
        ({"URL": "photo.png"}, ".URL"),
        ({"fileData": {"mimeType": "image/png", "fileUri": "photo.png"}}, ".fileData.fileUri"),
        ({"file_uri": "photo.png"}, ".file_uri"),
        ({"fileUris": ["photo.png"]}, ".fileUris[0]"),
        ({"imageurl": "photo.png"}, ".imageurl"),
        ({"type": "text", "text": {"uri": "photo.png"}}, ".text.uri"),
    ],
)
def test_fields_named_for_addresses_are_known_by_their_ends(part: Any, where: str) -> None:
    assert found(chat(part)) == {PART + where: "photo.png"}


LINK = {"url": "a.example/b", "source_uri": WEB}


@each_row(
    "data",
    [
        {"messages": [{"role": "user", "content": WEB}]},
        {"messages": [{"role": "user", "content": [WEB, {"type": "text", "text": WEB}]}]},
        {
            "messages": [
                {"role": "assistant", "content": "", "reasoning_content": WEB, "refusal": WEB}
            ]
        },
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": WEB}}]}
            ]
        },
        {"messages": [{"role": "assistant", "annotations": [{"url_citation": {"url": WEB}}]}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": WEB, "citations": [LINK]}],
                }
            ]
        },
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": LINK}}],
                }
            ]
        },
        {
            "tools": [LINK],
            "metadata": LINK,
            "response_format": {"json_schema": {"properties": LINK}},
        },
        {"prompt": WEB, "suffix": WEB, "stop": [WEB]},
        {"prompt": [WEB]},
        {"input": WEB},
        {"input": [WEB, WEB]},
        {"tools": [{"type": "function", "function": {"parameters": {"$schema": WEB}}}]},
        {
            "response_format": {"json_schema": {"schema": {"$id": WEB}}},
            "metadata": {"site": WEB},
            "user": WEB,
        },
    ],
)
def test_text_and_schemas_are_not_searched(data: dict[str, Any]) -> None:
    assert found(data) == {}


@each_row(
    ("data", "where"),
    [
        ({"input": [{"image": WEB}]}, "input[0].image"),
        ({"prompt": {"image": WEB}}, "prompt.image"),
        (
            {"messages": [{"role": "user", "content": "x", "images": [WEB]}]},
            "messages[0].images[0]",
        ),
        ({"reference_images": [WEB]}, "reference_images[0]"),
        ({"image": WEB}, "image"),
    ],
)
def test_addresses_are_found_in_other_fields(data: dict[str, Any], where: str) -> None:
    assert found(data) == {where: WEB}


def test_any_depth_can_be_searched() -> None:
    deep: Any = {"image": WEB}
    for _ in range(5000):
        deep = [deep]
    assert list(found({"messages": deep}).values()) == [WEB]
