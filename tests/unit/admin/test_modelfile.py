"""Modelfiles as fields of the API."""

from __future__ import annotations

import pytest

from ollama_proxy.admin.modelfile import read_modelfile
from ollama_proxy.admin.pages.language import speaking, translate
from ollama_proxy.errors import BadRequest
from tests.rig.tables import each_row

WHOLE = '''# a comment
FROM qwen3:8b

PARAMETER num_ctx 16384
parameter temperature 0.7
PARAMETER use_mmap true
PARAMETER stop "<|im_end|>"
PARAMETER stop """two words"""
SYSTEM """You are
"short".
"""
TEMPLATE "{{ .Prompt }}"
MESSAGE user Is Toronto in Canada?
MESSAGE assistant """yes
indeed"""
LICENSE MIT
LICENSE """Apache
2.0"""
'''


def test_every_instruction_becomes_its_field() -> None:
    assert read_modelfile(WHOLE) == {
        "from": "qwen3:8b",
        "parameters": {
            "num_ctx": 16384,
            "temperature": 0.7,
            "use_mmap": True,
            "stop": ["<|im_end|>", "two words"],
        },
        "system": 'You are\n"short".\n',
        "template": "{{ .Prompt }}",
        "messages": [
            {"role": "user", "content": "Is Toronto in Canada?"},
            {"role": "assistant", "content": "yes\nindeed"},
        ],
        "license": ["MIT", "Apache\n2.0"],
    }


def test_lines_of_windows_are_lines() -> None:
    assert read_modelfile("FROM m\r\nSYSTEM hi\r\n") == {"from": "m", "system": "hi"}


@each_row(
    ("text", "said"),
    [
        ("", "needs FROM"),
        ("SYSTEM hi", "needs FROM"),
        ("FROM", "Line 1, FROM: a name and a value"),
        ("FROM m\n\nCOLOUR red", "Line 3, COLOUR: there is no such"),
        ("FROM ./model.gguf", "Line 1, FROM: files can't"),
        ("FROM /models/x", "files can't"),
        ("FROM m\nADAPTER ./lora", "Line 2, ADAPTER: files can't"),
        ("FROM m\nPARAMETER num_ctx many", "Line 2, PARAMETER: num_ctx must be a number"),
        ("FROM m\nPARAMETER num_ctx", "a name and a value"),
        ("FROM m\nMESSAGE nobody hi", "Line 2, MESSAGE: a message begins"),
        ('FROM m\nSYSTEM """never\nclosed', 'Line 2, SYSTEM: the closing """ is missing'),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read_modelfile(text)


def test_what_is_wrong_can_be_said_in_another_language() -> None:
    with pytest.raises(BadRequest) as refused:
        read_modelfile("FROM m\nCOLOUR red")
    with speaking("zh"):
        assert translate(refused.value.text) == "第 2 行，COLOUR：没有这个指令。"
