"""Requests that somebody on the way could read in two ways, as raw bytes, and odd ones
that have one reading only.

Every body carries a tag with the number 0000, which `numbered` replaces, so that many can be sent
at the same time and still be told apart in the log of an upstream.
"""

from __future__ import annotations

from tests.rig.calls import TOKEN

PATH, MODEL = "/api/show", "m"
_WHO = b"Authorization: Bearer " + TOKEN.encode()
_NUMBER = b"-0000"


def _body(tag: str) -> bytes:
    return b'{"model":"%b","tag":"%b-0000"}' % (MODEL.encode(), tag.encode())


def _request(tag: str, connection: bytes) -> bytes:
    body = _body(tag)
    head = (b"POST %b HTTP/1.1" % PATH.encode(), b"Host: gw", _WHO, connection, length(body))
    return b"\r\n".join([*head, b"Content-Type: application/json", b"", b""]) + body


def numbered(data: bytes, number: int) -> bytes:
    """The same bytes with tags of their own."""
    return data.replace(_NUMBER, b"-%04d" % number)


def ambiguous(
    *headers: bytes,
    body: bytes,
    version: bytes = b"1.1",
    target: bytes = PATH.encode(),
    end: bytes = b"\r\n",
) -> bytes:
    """A request with exactly these framing headers behind the usual ones, lines ended by `end`."""
    head = [b"POST %b HTTP/%b" % (target, version), b"Host: gw", _WHO, *headers]
    return end.join([*head, b"", b""]) + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


#: The request that is meant, one that is hidden in its body, and one that follows
#: on the same connection.
FIRST = _body("first")
INNER = _request("inner", b"Connection: keep-alive")
MARKER = _request("marker", b"Connection: close")

SIZE = len(FIRST)
HEX = b"%x" % SIZE
CHUNKED = b"Transfer-Encoding: chunked"
ENDS_EARLY = b"0\r\n\r\n" + INNER
HIDDEN = FIRST + INNER


def _coded(coding: bytes, *more: bytes) -> bytes:
    """Two framings: a length, and whatever this line is taken for."""
    return ambiguous(coding, *more, length(ENDS_EARLY), body=ENDS_EARLY)


def _sized(value: bytes) -> bytes:
    """A length that may mean the first body alone, or the hidden request as well."""
    return ambiguous(b"Content-Length:" + value, body=HIDDEN)


def _chunk_size(line: bytes) -> bytes:
    return ambiguous(CHUNKED, body=line + FIRST + b"\r\n" + ENDS_EARLY)


SMUGGLING: dict[str, bytes] = {
    # Two framings.
    "length and chunked": ambiguous(length(ENDS_EARLY), CHUNKED, body=ENDS_EARLY),
    "chunked and length": ambiguous(CHUNKED, length(ENDS_EARLY), body=ENDS_EARLY),
    "short length and chunked": ambiguous(b"Content-Length: 4", CHUNKED, body=chunks(INNER)),
    "length 0 and chunked": ambiguous(b"Content-Length: 0", CHUNKED, body=chunks(FIRST)),
    # Lengths.
    "two lengths": ambiguous(length(FIRST), length(HIDDEN), body=HIDDEN),
    "two lengths, the longer first": ambiguous(length(HIDDEN), length(FIRST), body=HIDDEN),
    "two equal lengths": ambiguous(length(HIDDEN), length(HIDDEN), body=HIDDEN),
    "list of lengths": _sized(b" %d, %d" % (SIZE, len(HIDDEN))),
    "list of equal lengths": _sized(b" %d, %d" % (SIZE, SIZE)),
    "plus": _sized(b" +%d" % SIZE),
    "negative length": _sized(b" -%d" % SIZE),
    "hexadecimal length": _sized(b" 0x" + HEX),
    "length with underscore": _sized(b" %d_%d" % divmod(SIZE, 10)),
    "length with a blank inside": _sized(b" %d %d" % divmod(SIZE, 10)),
    "length as a fraction": _sized(b" %d.0" % SIZE),
    "length in other digits": _sized(" \u0661\u0667".encode()),
    "length with a word": _sized(b" %d bytes" % SIZE),
    "length beyond 64 bits": _sized(b" 1844674407370955%d" % (1616 + SIZE)),
    "empty length": ambiguous(b"Content-Length:", body=INNER),
    # Codings.
    "xchunked": _coded(b"Transfer-Encoding: xchunked"),
    "chunked twice": ambiguous(CHUNKED, CHUNKED, body=ENDS_EARLY),
    "chunked twice in a list": _coded(b"Transfer-Encoding: chunked, chunked"),
    "two codings, the second unknown": _coded(CHUNKED, b"Transfer-Encoding: cow"),
    "chunked, identity": _coded(b"Transfer-Encoding: chunked, identity"),
    "identity, chunked": _coded(b"Transfer-Encoding: identity, chunked"),
    "identity": _coded(b"Transfer-Encoding: identity"),
    "gzip, chunked": ambiguous(b"Transfer-Encoding: gzip, chunked", body=chunks(FIRST)),
    "vertical tab": _coded(b"Transfer-Encoding: \x0bchunked"),
    "form feed behind": _coded(b"Transfer-Encoding: chunked\x0c"),
    "quoted coding": _coded(b'Transfer-Encoding: "chunked"'),
    "coding with a parameter": _coded(b"Transfer-Encoding: chunked;q=1"),
    "comma in front": _coded(b"Transfer-Encoding: ,chunked"),
    "empty coding": _coded(b"Transfer-Encoding:"),
    "blank behind, with a length": _coded(b"Transfer-Encoding: chunked "),
    "tab behind, with a length": _coded(b"Transfer-Encoding:\tchunked\t"),
    "chunked in HTTP/1.0": ambiguous(CHUNKED, length(ENDS_EARLY), body=ENDS_EARLY, version=b"1.0"),
    "chunked alone in HTTP/1.0": ambiguous(CHUNKED, body=ENDS_EARLY, version=b"1.0"),
    # Lines and names of headers.
    "space before colon": _coded(b"Transfer-Encoding : chunked"),
    "tab before colon": _coded(b"Transfer-Encoding\t: chunked"),
    "space before name": _coded(b" Transfer-Encoding: chunked"),
    "folded line": _coded(b"Transfer-Encoding:\r\n chunked"),
    "folded length": _sized(b"\r\n\t%d" % SIZE),
    "bare LF between headers": _coded(b"X: y\nTransfer-Encoding: chunked"),
    "bare CR between headers": _coded(b"X: y\rTransfer-Encoding: chunked"),
    "bare LF ends the head": ambiguous(
        b"X: y\n\nPOST /api/show HTTP/1.1\r\nHost: gw", length(FIRST), body=FIRST
    ),
    "NUL in a value": _coded(b"X: y\0", CHUNKED),
    "NUL in a name": _coded(b"X\0y: z", CHUNKED),
    "NUL in the coding": _coded(b"Transfer-Encoding: chunked\0"),
    "CR in a name": _coded(b"X\rTransfer-Encoding: chunked"),
    "underscore coding": _coded(b"Transfer_Encoding: chunked"),
    "underscore length": ambiguous(b"Content_Length: %d" % SIZE, length(HIDDEN), body=HIDDEN),
    "two hosts": ambiguous(b"Host: other", length(FIRST), body=FIRST),
    "unknown version": ambiguous(length(HIDDEN), body=HIDDEN, version=b"1.2"),
    # Chunks.
    "chunk size with plus": _chunk_size(b"+" + HEX + b"\r\n"),
    "negative chunk": _chunk_size(b"-" + HEX + b"\r\n"),
    "chunk size with prefix": _chunk_size(b"0x" + HEX + b"\r\n"),
    "chunk size with underscore": _chunk_size(HEX[:1] + b"_" + HEX[1:] + b"\r\n"),
    "chunk size with a blank in front": _chunk_size(b" " + HEX + b"\r\n"),
    "empty chunk size": _chunk_size(b"\r\n"),
    "chunk size ended by CR alone": _chunk_size(HEX + b"\r"),
    "chunk size ended by LF alone": _chunk_size(HEX + b"\n"),
    "huge chunk": ambiguous(CHUNKED, body=b"fffffffffffffffff\r\n" + INNER),
    "chunk that wraps around": ambiguous(
        CHUNKED, body=b"1" + b"0" * 15 + HEX + b"\r\n" + FIRST + b"\r\n" + ENDS_EARLY
    ),
    "chunk without its end": ambiguous(CHUNKED, body=HEX + b"\r\n" + FIRST + b"XX" + ENDS_EARLY),
    "chunk ended by LF alone": ambiguous(CHUNKED, body=HEX + b"\r\n" + FIRST + b"\n" + ENDS_EARLY),
    "extension with bare LF": ambiguous(CHUNKED, body=HEX + b";a\n" + FIRST + b"\r\n" + ENDS_EARLY),
    "extension with bare CR": ambiguous(
        CHUNKED, body=HEX + b";a\rb\r\n" + FIRST + b"\r\n" + ENDS_EARLY
    ),
    "trailer with bare LF": ambiguous(
        CHUNKED, body=HEX + b"\r\n" + FIRST + b"\r\n0\r\nX: y\n\n" + INNER
    ),
    "trailer with a blank before its colon": ambiguous(
        CHUNKED, body=HEX + b"\r\n" + FIRST + b"\r\n0\r\nX : y\r\n\r\n" + INNER
    ),
}

#: Unusual, and readable in one way only.
ODD_BUT_PLAIN: dict[str, bytes] = {
    "extensions": ambiguous(
        CHUNKED, body=HEX + b';name=value;q="' + b"x" * 50 + b'"\r\n' + FIRST + b"\r\n0\r\n\r\n"
    ),
    "trailers": ambiguous(
        CHUNKED, body=HEX + b"\r\n" + FIRST + b"\r\n0\r\nAuthorization: Bearer x\r\nX: y\r\n\r\n"
    ),
    "length in a trailer": ambiguous(
        CHUNKED, body=HEX + b"\r\n" + FIRST + b"\r\n0\r\nContent-Length: 500\r\n\r\n"
    ),
    "leading zeros": ambiguous(CHUNKED, body=b"000" + HEX + b"\r\n" + FIRST + b"\r\n000\r\n\r\n"),
    "body that looks like a request": ambiguous(length(HIDDEN), body=HIDDEN),
    "coding in capitals": ambiguous(b"Transfer-Encoding: CHUNKED", body=chunks(FIRST)),
    "blank behind the coding": ambiguous(b"Transfer-Encoding: chunked ", body=chunks(FIRST)),
    "tab before the coding": ambiguous(b"Transfer-Encoding:\tchunked", body=chunks(FIRST)),
    "blanks around the length": ambiguous(b"Content-Length:  %d \t" % SIZE, body=FIRST),
    "length with zeros in front": ambiguous(b"Content-Length: 000%d" % SIZE, body=FIRST),
    "head with LF alone": ambiguous(length(FIRST), body=FIRST, end=b"\n"),
    "empty lines in front": b"\r\n\r\n" + ambiguous(length(FIRST), body=FIRST),
    "absolute form": ambiguous(length(FIRST), body=FIRST, target=b"http://gw/api/show"),
    "absolute form of another host": ambiguous(
        length(FIRST), body=FIRST, target=b"http://evil.example/api/show"
    ),
    "many chunks": ambiguous(
        CHUNKED, body=chunks(FIRST[:1], FIRST[1:2], FIRST[2:3], FIRST[3:7], FIRST[7:])
    ),
    "expects to be asked": ambiguous(b"Expect: 100-continue", length(FIRST), body=FIRST),
}
