"""Frames survive any way of cutting the bytes, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.coordination.frames import FrameReader, encode_frame

VALUES = st.dictionaries(
    st.text(), st.none() | st.text() | st.integers(-(2**53), 2**53) | st.lists(st.text())
)


@given(st.lists(VALUES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_frames_arrive_however_their_bytes_are_cut(
    frames: list[dict[str, object]], sizes: list[int]
) -> None:
    data, reader, got = b"".join(map(encode_frame, frames)), FrameReader(), list[object]()
    while data:
        for size in sizes:
            got += reader.feed(data[:size])
            data = data[size:]
    assert got == frames


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x01x", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_anything_else_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        FrameReader().feed(data)
