"""Requests as bytes, valid and invalid, one for each rule of HTTP/1.1 that a
server has to apply to them.

Each case is sent as it is. What it has to become is in `VALID`: one line for each
request, its method, target, and the body; and in `REFUSED`: the status of the answer,
after which the connection ends.
"""

from __future__ import annotations

HOST = b"Host: gw\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def get(target: bytes = b"/a", *headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (
        target,
        version,
        HOST,
        b"".join(each + b"\r\n" for each in headers),
    )


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """With these headers and no other framing."""
    return b"POST /p HTTP/%b\r\n%b%b\r\n%b" % (
        version,
        HOST,
        b"".join(each + b"\r\n" for each in headers),
        body,
    )


def chunked(body: bytes, *headers: bytes) -> bytes:
    return post(body, b"Transfer-Encoding: chunked", *headers)


VALID: dict[str, tuple[bytes, list[str]]] = {
    # The first line.
    "path and query": (get(b"/a/b?c=d&e"), ["GET /a/b?c=d&e"]),
    "empty query": (get(b"/a?"), ["GET /a?"]),
    "second question mark": (get(b"/a?b?c"), ["GET /a?b?c"]),
    "quotes in the target": (get(b'/with_"quotes"?a="b"'), ['GET /with_"quotes"?a="b"']),
    "escapes in the path": (get(b"/a%20b%2fc"), ["GET /a%20b%2fc"]),
    "two slashes first": (get(b"//host/a"), ["GET //host/a"]),
    "colon in the path": (get(b"/a:1/b"), ["GET /a:1/b"]),
    "empty line in front": (b"\r\n" + get(), ["GET /a"]),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", ["OPTIONS *"]),
    "absolute form": (get(b"http://other:80/a?b"), ["GET /a?b"]),
    "absolute form without a path": (get(b"http://other"), ["GET /"]),
    "absolute form with a query only": (get(b"http://other?x"), ["GET /?x"]),
    "method with a hyphen": (get().replace(b"GET", b"M-SEARCH"), ["M-SEARCH /a"]),
    "longest line": (get(b"/" + b"a" * (8190 - 14)), ["GET /" + "a" * (8190 - 14)]),
    # Headers.
    "no header": (b"GET /a HTTP/1.1\r\n\r\n", ["GET /a"]),
    "no blank behind the colon": (get(b"/a", b"X:y"), ["GET /a"]),
    "blanks around a value": (get(b"/a", b"X: \t y \t "), ["GET /a"]),
    "empty value": (get(b"/a", b"X:"), ["GET /a"]),
    "colons in a value": (get(b"/a", b"X: a:b: c"), ["GET /a"]),
    "Latin 1 in a value": (get(b"/a", b"X: \xe4\xff"), ["GET /a"]),
    "all characters of names": (get(b"/a", b"X!#$%&'*+-.^`|~09: y"), ["GET /a"]),
    "underscore in a name": (get(b"/a", b"X_Y: z", b"Content_Length: 5"), ["GET /a"]),
    "header twice": (get(b"/a", b"X: a", b"x: b"), ["GET /a"]),
    "names in capitals": (get(b"/a", b"X-Y: z").replace(b"Host", b"HOST"), ["GET /a"]),
    "longest header": (get(b"/a", b"X: " + b"y" * (8190 - 5)), ["GET /a"]),
    "most headers": (get(b"/a", *(b"X-%d: y" % number for number in range(99))), ["GET /a"]),
    # Bodies.
    "length": (post(b"hello", b"Content-Length: 5"), ["POST /p hello"]),
    "body longer than a header": (
        post(b"x" * 20_000, b"Content-Length: 20000"),
        ["POST /p " + "x" * 20_000],
    ),
    "length of a GET": (get(b"/a", b"Content-Length: 5") + b"hello", ["GET /a hello"]),
    "length 0": (post(b"", b"Content-Length: 0"), ["POST /p"]),
    "length with zeros in front": (post(b"hello", b"Content-Length: 005"), ["POST /p hello"]),
    "blanks around the length": (post(b"hello", b"Content-Length:  5 \t"), ["POST /p hello"]),
    "no framing": (post(b""), ["POST /p"]),
    "one chunk": (chunked(b"5\r\nhello\r\n0\r\n\r\n"), ["POST /p hello"]),
    "several chunks": (chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), ["POST /p hello world"]),
    "no chunk but the last": (chunked(b"0\r\n\r\n"), ["POST /p"]),
    "chunk sizes in both cases": (
        chunked(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
        ["POST /p " + "0123456789" * 2],
    ),
    "chunk sizes with zeros in front": (
        chunked(b"0005\r\nhello\r\n000\r\n\r\n"),
        ["POST /p hello"],
    ),
    "chunk extension": (chunked(b'5;a=b;c="d e"\r\nhello\r\n0;f\r\n\r\n'), ["POST /p hello"]),
    "chunk extension without a name": (chunked(b"5;=a\r\nhello\r\n0\r\n\r\n"), ["POST /p hello"]),
    "trailers": (chunked(b"5\r\nhello\r\n0\r\nX: y\r\nZ: 1\r\n\r\n"), ["POST /p hello"]),
    "trailer that is no trailer": (
        chunked(b"5\r\nhello\r\n0\r\nAuthorization: x\r\n\r\n"),
        ["POST /p hello"],
    ),
    "coding in capitals": (post(b"0\r\n\r\n", b"Transfer-Encoding: CHUNKED"), ["POST /p"]),
    "empty lines in chunks": (
        chunked(b"8\r\na\r\n\r\n\r\nb\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"),
        ["POST /p a\r\n\r\n\r\nb\r\n\r\n"],
    ),
    "expected 100": (
        post(b"hello", b"Content-Length: 5", b"Expect: 100-continue"),
        ["POST /p hello"],
    ),
    "expected 100 in capitals": (
        post(b"hello", b"Content-Length: 5", b"EXPECT: 100-Continue"),
        ["POST /p hello"],
    ),
    # One after the other.
    "two requests": (get(b"/a") + get(b"/b"), ["GET /a", "GET /b"]),
    "length, then another one": (
        post(b"hello", b"Content-Length: 5") + get(b"/b"),
        ["POST /p hello", "GET /b"],
    ),
    "chunks, then another one": (
        chunked(b"5\r\nhello\r\n0\r\n\r\n") + get(b"/b"),
        ["POST /p hello", "GET /b"],
    ),
    "trailers, then another one": (
        chunked(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n") + chunked(b"0\r\n\r\n") + get(b"/b"),
        ["POST /p hello", "POST /p", "GET /b"],
    ),
    "empty line between two": (get(b"/a") + b"\r\n" + get(b"/b"), ["GET /a", "GET /b"]),
    # Connections.
    "close": (get(b"/a", b"Connection: close") + get(b"/b"), ["GET /a"]),
    "close among options": (get(b"/a", b"Connection: X, Close") + get(b"/b"), ["GET /a"]),
    "HTTP/1.0": (get(b"/a", version=b"1.0") + get(b"/b"), ["GET /a"]),
    "HTTP/1.0 kept": (
        get(b"/a", b"Connection: Keep-Alive", version=b"1.0") + get(b"/b"),
        ["GET /a", "GET /b"],
    ),
    "HTTP/1.0 with a length": (
        post(b"hello", b"Content-Length: 5", version=b"1.0"),
        ["POST /p hello"],
    ),
    "expected 100 in HTTP/1.0": (
        post(b"hello", b"Content-Length: 5", b"Expect: 100-continue", version=b"1.0"),
        ["POST /p hello"],
    ),
    "offer of h2c": (
        get(b"/a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM")
        + get(b"/b"),
        ["GET /a", "GET /b"],
    ),
    "offer of websocket with a body": (
        chunked(b"5\r\nhello\r\n0\r\n\r\n", b"Connection: Upgrade", b"Upgrade: websocket")
        + get(b"/b"),
        ["POST /p hello", "GET /b"],
    ),
}

REFUSED: dict[str, tuple[bytes, int]] = {
    # The first line.
    "no version": (b"GET /a\r\n" + HOST + b"\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "method only": (b"GET\r\n\r\n", 400),
    "HTTP/0.9": (get(version=b"0.9"), 400),
    "HTTP/1.2": (get(version=b"1.2"), 400),
    "HTTP/2.0": (get(version=b"2.0"), 400),
    "HTTP/1.10": (get(version=b"1.10"), 400),
    "another protocol": (get().replace(b"HTTP/", b"RTSP/"), 400),
    "protocol in lower case": (get().replace(b"HTTP/", b"http/"), 400),
    "unknown method": (get().replace(b"GET", b"FOO"), 400),
    "method in lower case": (get().replace(b"GET", b"get"), 400),
    "method with a hash": (get().replace(b"GET", b"GET#"), 400),
    "method with a colon": (get().replace(b"GET", b"GE:T"), 400),
    "empty method": (get().replace(b"GET", b""), 400),
    "two blanks": (get().replace(b"GET ", b"GET  "), 400),
    "two blanks before the version": (get().replace(b" HTTP", b"  HTTP"), 400),
    "blank at the end of the line": (get().replace(b"1.1", b"1.1 "), 400),
    "tabs for blanks": (get().replace(b" /a ", b"\t/a\t"), 400),
    "blank in the target": (get(b"/a b"), 400),
    "control character in the target": (get(b"/a\x01"), 400),
    "NUL in the target": (get(b"/a\0"), 400),
    "Latin 1 in the target": (get(b"/\xe4"), 400),
    "UTF-8 in the target": (get("/ä".encode()), 400),
    "fragment": (get(b"/a?b#c"), 400),
    "target without a slash": (get(b"a"), 400),
    "authority form of a GET": (get(b"gw:80"), 400),
    "asterisk of a GET": (get(b"*"), 400),
    "absolute form of another scheme": (get(b"ftp://other/a"), 400),
    "absolute form with a user": (get(b"http://me:pw@other/a"), 400),
    "absolute form without a host": (get(b"http:///a"), 400),
    "line too long": (get(b"/" + b"a" * (8190 - 13)), 414),
    "two empty lines in front": (b"\r\n\r\n" + get(), 400),
    "line feed in front": (b"\n" + get(), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    # Headers.
    "header without a colon": (get(b"/a", b"X"), 400),
    "empty name": (get(b"/a", b": y"), 400),
    "blank before the colon": (get(b"/a", b"X : y"), 400),
    "tab before the colon": (get(b"/a", b"X\t: y"), 400),
    "blank in a name": (get(b"/a", b"X Y: z"), 400),
    "separator in a name": (get(b"/a", b"X(Y): z"), 400),
    "Latin 1 in a name": (get(b"/a", b"X\xe4: z"), 400),
    "NUL in a name": (get(b"/a", b"X\0: z"), 400),
    "NUL in a value": (get(b"/a", b"X: y\0z"), 400),
    "control character in a value": (get(b"/a", b"X: y\x01z"), 400),
    "DEL in a value": (get(b"/a", b"X: y\x7fz"), 400),
    "vertical tab in a value": (get(b"/a", b"X: y\x0bz"), 400),
    "folded value": (get(b"/a", b"X: y\r\n z"), 400),
    "folded by a tab": (get(b"/a", b"X: y\r\n\tz"), 400),
    "first header folded": (b"GET /a HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n", 400),
    "bare LF": (get().replace(b"\r\n", b"\n"), 400),
    "bare LF behind a value": (get(b"/a", b"X: y\nZ: 1"), 400),
    "bare CR in a value": (get(b"/a", b"X: y\rZ: 1"), 400),
    "bare LF at the end": (get()[:-2] + b"\n", 400),
    "two hosts": (get(b"/a", b"Host: other"), 400),
    "two content types": (get(b"/a", b"Content-Type: a/b", b"Content-Type: a/b"), 400),
    "header too long": (get(b"/a", b"X: " + b"y" * (8190 - 4)), 431),
    "too many headers": (get(b"/a", *(b"X-%d: y" % number for number in range(100))), 431),
    "unknown expectation": (post(b"hello", b"Content-Length: 5", b"Expect: 200-ok"), 417),
    # Lengths.
    "negative length": (post(b"hello", b"Content-Length: -5"), 400),
    "length with a plus": (post(b"hello", b"Content-Length: +5"), 400),
    "length in hexadecimal": (post(b"hello", b"Content-Length: 0x5"), 400),
    "length with an underscore": (post(b"hello", b"Content-Length: 0_5"), 400),
    "length in other digits": (post(b"hello", b"Content-Length: \xb2"), 400),
    "list of lengths": (post(b"hello", b"Content-Length: 5, 5"), 400),
    "two lengths": (post(b"hello", b"Content-Length: 5", b"Content-Length: 5"), 400),
    "two different lengths": (post(b"hello", b"Content-Length: 5", b"Content-Length: 6"), 400),
    "empty length": (post(b"hello", b"Content-Length:"), 400),
    "length beyond 64 bits": (post(b"hello", b"Content-Length: 18446744073709551621"), 400),
    # Codings.
    "length and chunks": (
        post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        400,
    ),
    "chunks and length": (chunked(b"0\r\n\r\n", b"Content-Length: 5"), 400),
    "chunks in HTTP/1.0": (post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", version=b"1.0"), 400),
    "chunked twice": (chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 400),
    "chunked twice in a list": (post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, chunked"), 400),
    "chunked, identity": (post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, identity"), 400),
    "identity": (post(b"hello", b"Transfer-Encoding: identity"), 400),
    "identity, chunked": (post(b"0\r\n\r\n", b"Transfer-Encoding: identity, chunked"), 400),
    "empty coding": (post(b"hello", b"Transfer-Encoding:"), 400),
    "unknown coding": (post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"), 501),
    "unknown coding, then chunked": (post(b"0\r\n\r\n", b"Transfer-Encoding: cow, chunked"), 501),
    "gzip, chunked": (post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked"), 501),
    "chunked, gzip": (post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, gzip"), 400),
    "quoted coding": (post(b"0\r\n\r\n", b'Transfer-Encoding: "chunked"'), 501),
    "control character before the coding": (
        post(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked"),
        400,
    ),
    "tab behind the coding": (post(b"0\r\n\r\n", b"Transfer-Encoding: chunked\t"), 400),
}

#: Bodies that turn out to be invalid when they are read.
INVALID_BODIES: dict[str, bytes] = {
    "no chunk size": chunked(b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a plus": chunked(b"+5\r\nhello\r\n0\r\n\r\n"),
    "negative chunk size": chunked(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a prefix": chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with an underscore": chunked(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "blank before a chunk size": chunked(b" 5\r\nhello\r\n0\r\n\r\n"),
    "blank behind a chunk size": chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size ended by LF": chunked(b"5\nhello\r\n0\r\n\r\n"),
    "chunk size ended by CR": chunked(b"5\rhello\r\n0\r\n\r\n"),
    "chunk size of 68 bits": chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk that is too long": chunked(b"5\r\nhello!\r\n0\r\n\r\n"),
    "chunk ended by LF": chunked(b"5\r\nhello\n0\r\n\r\n"),
    "chunk ended by nothing": chunked(b"5\r\nhello0\r\n\r\n"),
    "extension with CR": chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "extension with LF": chunked(b"5;a\nhello\r\n0\r\n\r\n"),
    "extension with blanks": chunked(b"5 ; a = b\r\nhello\r\n0\r\n\r\n"),
    "trailer without a colon": chunked(b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
    "trailer with a blank before its colon": chunked(b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
    "trailer ended by LF": chunked(b"5\r\nhello\r\n0\r\nX: y\n\r\n"),
    "folded trailer": chunked(b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
    "length as a trailer": chunked(b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "coding as a trailer": chunked(b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "end before the last chunk": chunked(b"5\r\nhello\r\n"),
    "end in a chunk": chunked(b"5\r\nhel"),
    "end before the trailers' end": chunked(b"5\r\nhello\r\n0\r\n"),
}
