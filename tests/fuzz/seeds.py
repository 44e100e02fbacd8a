r"""What is mutated: requests and answers after the cases of the wire, topic by topic.

`@ID@` is the instance of the user whose token is `@TOKEN@`, `@OTHER@` is somebody else's, `@ACCEPT@`
is what answers the WebSocket key of the request. Line ends are written as `\n` where a message is a
`_lines`, and are CRLF on the wire.
"""

from typing import Final

from support.smuggling import MUTATIONS, attack


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def _request(line: str, *fields: str, body: str = "") -> bytes:
    head = "\n".join([line, "Host: visa.test", "Cookie: access_token=@TOKEN@", *fields, "", ""])
    return _lines(head + body)


_UPGRADE: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

_GET: Final = "GET /jupyter/@ID@/x HTTP/1.1"
_POST: Final = "POST /jupyter/@ID@/x HTTP/1.1"

_REQUEST_LINES: Final = [
    _request(_GET),
    _request("GET /jupyter/@ID@/lab/tree/a%20b;p=1?x=//y&z=%00 HTTP/1.1"),
    _request("GET /jupyter/@ID@abc/x HTTP/1.1"),
    _request("GET /jupyter/@OTHER@/x HTTP/1.1"),
    _request("GET /jupyter/@ID@/../@OTHER@/%2e%2e%2f@OTHER@ HTTP/1.1"),
    _request("GET /visafs/@ID@//api/files//x HTTP/1.1"),
    _request("GET /ws/print/@ID@/?token=secret&EIO=4&transport=websocket HTTP/1.1", *_UPGRADE),
    _request("GET http://visa.test/jupyter/@ID@/x HTTP/1.1"),
    _request("HEAD /jupyter/@ID@/x HTTP/1.1"),
    _request("OPTIONS * HTTP/1.1"),
    _request("CONNECT 10.0.0.12:8888 HTTP/1.1"),
    _request("TRACE /jupyter/@ID@/x HTTP/1.1"),
    _request("PROPFIND /jupyter/@ID@/x HTTP/1.1", "Depth: 1", "Content-Length: 0"),
    _request("GET /nope HTTP/1.1", "Accept: text/html", "Sec-Fetch-Mode: navigate"),
    _request("GET /jupyter/@ID@/x HTTP/1.0", "Connection: keep-alive"),
    _request("GET /jupyter/@ID@/x HTTP/2.0"),
    _lines("PRI * HTTP/2.0\n\nSM\n\n"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    _lines("GET /jupyter/@ID@/x\n\n"),
    _lines("\n\nGET /jupyter/@ID@/x HTTP/1.0\nCookie: access_token=@TOKEN@\n\n"),
]

_FIELDS: Final = [
    _request(_GET, "X-A: 1", "x-b: 2", "X-A: 3", "Empty:", "Cookie: a=1; b=2"),
    _request(_GET, "Connection: close, X-Secret", "X-Secret: 1", "Keep-Alive: timeout=5", "TE: trailers"),
    _request(_GET, "Connection: Host, Content-Length, Cookie, X-Forwarded-For", "Trailer: X"),
    _request(_GET, "X-Forwarded-For: 6.6.6.6, [::1]:80", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6"),
    _request(_GET, "X-Forwarded-Proto: https", "X-Forwarded-Host: visa.test:443", "X-Request-Id: abc-1"),
    _request(_GET, "X_Forwarded_For: 1", "X.Forwarded.For: 1", "Content_Length: 5"),
    _request(_GET, "User-Agent: Mozilla/5.0 (X11; Linux)", "Accept: */*", "Accept-Encoding: gzip, br"),
    _request(_GET, "Origin: https://visa.test", "Referer: https://visa.test/", "Proxy-Authorization: x"),
]

_CREDENTIALS: Final = [
    _lines("GET /jupyter/@ID@/x HTTP/1.1\nHost: visa.test\nAuthorization: Bearer @TOKEN@\n\n"),
    _lines("GET /jupyter/@ID@/x HTTP/1.1\nHost: visa.test\nAuthorization: token abc\n\n"),
    _lines("GET /jupyter/@ID@/x HTTP/1.1\nHost: visa.test\n\n"),
    _request(_GET, "Authorization: token jupyter"),
    _request(_GET, "Authorization: Bearer other", 'Cookie: access_token="@TOKEN@"'),
    _request(_GET, "Cookie: access_token=eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4IiwiZXhwIjoxfQ.c2ln; x=y; =z"),
]

_BODIES: Final = [
    _request(_POST, "Content-Length: 5", body="hello"),
    _request("PUT /visafs/@ID@/x HTTP/1.1", "Content-Length: 5", body="hello"),
    _request(_POST, "Transfer-Encoding: chunked", body="5\nhello\n0\n\n"),
    _request(_POST, "Transfer-Encoding: chunked", body="5;a=b\nhello\n002 ;x\nab\n0\nX-Sum: 1\nHost: b\n\n"),
    _request("DELETE /jupyter/@ID@/x HTTP/1.1", "Transfer-Encoding: chunked", body="1\na\n0\n\n"),
    _request(_GET, "Content-Length: 10", body="0123456789"),
    _request(_POST, "Content-Length: 5", "Expect: 100-continue", body="hello"),
    _request(_POST, "Content-Length: 100000", body="x" * 70_000),
    _request(_POST, "Transfer-Encoding: chunked", body="1\nx\n" * 3000 + "0\n\n"),
    _request(_POST, "Transfer-Encoding: chunked", body="1000\n" + "x" * 4096 + "\n0\n\n"),
    _request(_POST, "Upgrade: h2c", "Connection: Upgrade", "Content-Length: 5", body="hello"),
    *(
        attack(mutation, direction, "/jupyter/@ID@/x", "Cookie: access_token=@TOKEN@")
        for mutation in MUTATIONS[::40]
        for direction in ("CL.TE", "TE.CL")
    ),
]

_FRAMES: Final = (
    b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",  # RFC 6455 5.7: a masked text frame
    b"\x89\x80\x00\x00\x00\x00",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x82\xfe\x01\x00\x00\x00\x00\x00" + bytes(256),
)

_WEBSOCKETS: Final = [
    _request("GET /jupyter/@ID@/ws HTTP/1.1", *_UPGRADE),
    _request(
        "GET /jupyter/@ID@/api/kernels/0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b/channels?session_id=s HTTP/1.1",
        *_UPGRADE,
        "Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Origin: https://visa.test",
    )
    + b"".join(_FRAMES),
    _request("GET /jupyter/@ID@/ws HTTP/1.1", *_UPGRADE) + _FRAMES[0],
    _request("GET /visafs/@ID@/ws HTTP/1.1", *_UPGRADE),
    _request("GET /jupyter/@ID@/ws HTTP/1.1", *_UPGRADE, "Content-Length: 1", body="x"),
    _request("GET /jupyter/@ID@/ws HTTP/1.1", "Connection: keep-alive, Upgrade", *_UPGRADE[1:]),
]

REQUESTS: Final = [*_REQUEST_LINES, *_FIELDS, *_CREDENTIALS, *_BODIES, *_WEBSOCKETS]
"""What a client may send."""

SWITCHING: Final = (
    _lines(
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n"
        "Sec-WebSocket-Accept: @ACCEPT@\nSet-Cookie: a=1; Path=/\nKeep-Alive: timeout=5\n\n"
    )
    + _FRAMES[1]
)
"""The right answer to a WebSocket request, and the first frames."""

_OK: Final = "HTTP/1.1 200 OK\n"

ANSWERS: Final = [
    SWITCHING,
    _lines(_OK + "Content-Length: 2\n\nok"),
    _lines(_OK + "Content-Length: 0\nDate: Thu, 01 Jan 2026 00:00:00 GMT\n\n"),
    _lines(_OK + "Content-Length: 100\n\nshort"),
    _lines(_OK + "Content-Length: 2\n\nokHTTP/1.1 200 OK\nContent-Length: 4\n\nevil"),
    _lines(_OK + "Transfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
    _lines(_OK + "Transfer-Encoding: chunked\n\n5;a=b\nhello\n003\nabc\n0\nX-Sum: 1\nContent-Length: 3\n\n"),
    _lines(_OK + "Transfer-Encoding: chunked\n\n" + "1\nx\n" * 3000 + "0\n\n"),
    _lines(_OK + "Transfer-Encoding: chunked\n\n5\nhel"),
    _lines(_OK + "Content-Length: 2\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n"),
    _lines(_OK + "\nuntil the end"),
    _lines(_OK + "Content-Type: text/event-stream\n\ndata: 1\n\n"),
    _lines(_OK + "Content-Length: 70000\n\n" + "x" * 70_000),
    _lines("HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 2\n\nok"),
    _lines(_OK + "Connection: close, X-Up\nKeep-Alive: timeout=1, max=1\nX-Up: 1\nContent-Length: 2\n\nok"),
    _lines(_OK + "Set-Cookie: access_token=evil; Path=/\nSet-Cookie: a=1; Domain=visa.test\nVia: x\n\n"),
    _lines(_OK + "Set-Cookie: =access_token=evil\nSet-Cookie: b=2; Path=/jupyter/@ID@/; Secure\n\n"),
    _lines("HTTP/1.1 302 Found\nLocation: http://10.0.0.12:8888/jupyter/@ID@/x\nContent-Length: 0\n\n"),
    _lines(
        "HTTP/1.1 201 Created\nContent-Location: /api/files/x?y#z\nLocation: //x/y\nContent-Length: 0\n\n"
    ),
    _lines("HTTP/1.1 204 No Content\n\n"),
    _lines("HTTP/1.1 304 Not Modified\nContent-Length: 1234\n\n"),
    _lines("HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Basic\nContent-Length: 0\n\n"),
    _lines("HTTP/1.1 413 Content Too Large\nConnection: close\nContent-Length: 0\n\n"),
    _lines("HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nContent-Length: 0\n\n"),
    _lines("HTTP/1.1 299 O\x0bK\xe9\nContent-Length: 0\n\n"),
    _lines(
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: </x>\n\n" + _OK + "Content-Length: 0\n\n"
    ),
    _lines("HTTP/1.1 103 Early Hints\n\n") * 20,
    _lines("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: foo\n\n"),
    _lines("HTTP/2 200\n\n"),
    _lines("garbage\n\n"),
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
]
"""What an instance may answer."""

WORDS: Final = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b"\x0b", b"\x7f", b"\xa0", b"\xff"),
    *(b":", b";", b",", b"=", b'"', b"/", b"\\", b"?", b"#", b"%", b"..", b"%2e", b"%2f", b"%00", b"%0d%0a"),
    *(b"0", b"-1", b"+5", b"0x5", b"00", b"7fffffffffffffff", b"ffffffffffffffff", b"18446744073709551616"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"GET ", b"POST ", b"HEAD ", b"CONNECT "),
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: visa.test\r\n",
    b"Cookie: access_token=@TOKEN@\r\n",
    b"Authorization: Bearer @TOKEN@\r\n",
    b"Set-Cookie: a=b; Path=/\r\n",
    b"Location: /x\r\n",
    b"X-Forwarded-For: 1\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b" folded\r\n",
    b"@ID@",
    b"@OTHER@",
]
"""What is put in, besides single bytes."""
