"""Heads of messages: what is one, what is refused, and where each field goes (RFC 9112, RFC 9110)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.reading import lines_of
from visa_jupyter_proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    InstanceInvalid,
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    TargetTooLong,
    VersionNotSupported,
)
from visa_jupyter_proxy.worker.http.http1 import (
    Request,
    parse_request,
    parse_response,
    request_head,
    response_head,
)
from visa_jupyter_proxy.worker.http.sections import options


def _request(*fields: bytes, line: bytes = b"GET /x HTTP/1.1", host: bytes = b"Host: visa.test") -> Request:
    return parse_request(b"\r\n".join([line, *([host] if host else []), *fields, b"", b""]))


def _refused(error: type[ProxyError], *fields: bytes, line: bytes = b"GET /x HTTP/1.1") -> None:
    with pytest.raises(error):
        _request(*fields, line=line)


class TestRequestLine:
    """RFC 9112 3."""

    @pytest.mark.parametrize(
        "line",
        [
            *(b"GET /x HTTP/1.32", b"GET /x HTTP/01.1", b"GET /x http/1.1", b"GET /x HTTP/1", b"GET /x"),
            *(b"GET /x HTTP/ 1.1", b"GET /x HTTP/4294967297.1", b"GET /x HTTP/1.2", b"GET /x HTTP/1.1 "),
            *(
                b"GET /x RTSP/1.0",
                b"GET /x ICE/1.0",
                b"GET  /x HTTP/1.1",
                b"GET /x  HTTP/1.1",
                b" GET /x HTTP/1.1",
            ),
            *(
                b"GET\t/x HTTP/1.1",
                b"GET /x\tHTTP/1.1",
                b"GET  HTTP/1.1",
                b"GET HTTP/1.1",
                b"",
                b"G(T /x HTTP/1.1",
            ),
        ],
        ids=repr,
    )
    def test_1_2_15_236_lines_that_are_none(self, line: bytes) -> None:
        """Each part is matched byte by byte."""
        _refused(BadRequest, line=line)

    @pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/9.9", b"HTTP/0.9", b"HTTP/3.1"])
    def test_2_236_other_versions(self, version: bytes) -> None:
        """505 tells a client that it is understood, but not spoken to."""
        _refused(VersionNotSupported, line=b"GET /x " + version)

    def test_3_the_preface_of_http_2(self) -> None:
        """It was made to look like a request of another version (RFC 9113 3.4)."""
        with pytest.raises(VersionNotSupported):
            parse_request(b"PRI * HTTP/2.0\r\n\r\n")

    @pytest.mark.parametrize("line", [b"CONNECT /x HTTP/1.1", b"TRACE /x HTTP/1.1"])
    def test_5_6_methods_that_no_proxy_like_this_serves(self, line: bytes) -> None:
        """405, with the methods that are."""
        _refused(MethodNotAllowed, line=line)

    def test_5_connect_with_an_authority(self) -> None:
        """That is no target of ours."""
        _refused(BadRequest, line=b"CONNECT 10.0.0.12:8888 HTTP/1.1")

    @pytest.mark.parametrize(
        "target", [b"jupyter/12/x", b"admin", b"visa.test:80", b"*", b"ftp://visa.test/x"]
    )
    def test_8_targets_in_other_forms(self, target: bytes) -> None:
        """Neither a path nor an absolute URL of http."""
        _refused(BadRequest, line=b"GET " + target + b" HTTP/1.1")

    @pytest.mark.parametrize("byte", [b" ", b"\t", b"\0", b"\x7f", b"\x80", b"\xff", b"\x0b", b"#"], ids=repr)
    def test_14_bytes_that_stand_in_no_target(self, byte: bytes) -> None:
        """RFC 3986 wants them encoded."""
        _refused(BadRequest, line=b"GET /a" + byte + b"b HTTP/1.1")

    @pytest.mark.parametrize(
        "target", [b"/", b"/a//b?x=//y", b"/%2F%20@;p=1+~?", b"/%41?#"[:-1], b"/http:/x", b'/"<>^`{|}\\']
    )
    def test_97_targets_stay_as_they_are(self, target: bytes) -> None:
        """Byte for byte."""
        assert target == _request(line=b"GET " + target + b" HTTP/1.1").target

    @pytest.mark.parametrize(
        ("absolute", "target"),
        [
            (b"http://visa.test/jupyter/12/x?y", b"/jupyter/12/x?y"),
            (b"HTTPS://VISA.test//x", b"//x"),
            (b"http://visa.test", b"/"),
            (b"http://visa.test?x", b"/?x"),
        ],
    )
    def test_9_238_the_absolute_form_is_the_same_as_origin_form(self, absolute: bytes, target: bytes) -> None:
        """When its authority is the Host (RFC 9112 3.2.2)."""
        assert target == _request(line=b"GET " + absolute + b" HTTP/1.1").target

    @pytest.mark.parametrize(
        "absolute",
        [
            b"http://other.test/x",
            b"http://visa.test:81/x",
            b"http://visa.test@10.0.0.13/x",
            b"http:///x",
            b"http://a@visa.test/x",
            b"http://visa.test#/x",
        ],
    )
    def test_12_238_another_authority_than_the_host(self, absolute: bytes) -> None:
        """Two names in one request are an attempt at something."""
        _refused(BadRequest, line=b"GET " + absolute + b" HTTP/1.1")

    def test_the_absolute_form_without_a_host(self) -> None:
        """Nothing to compare with."""
        with pytest.raises(BadRequest):
            _request(line=b"GET http://visa.test/ HTTP/1.0", host=b"")

    def test_239_methods_nobody_knows(self) -> None:
        """They go on; only the longest ones do not."""
        assert b"x!#$%&'*+-.^_`|~1" == _request(line=b"x!#$%&'*+-.^_`|~1 / HTTP/1.1").method
        assert b"M" * 32 == _request(line=b"M" * 32 + b" / HTTP/1.1").method
        _refused(NotImplementedHere, line=b"M" * 33 + b" / HTTP/1.1")

    def test_a_line_may_have_eight_kib(self) -> None:
        """414 beyond that, and the fields may be larger (71)."""
        assert 8000 < len(_request(line=b"GET /" + b"a" * 8000 + b" HTTP/1.1").target)
        _refused(TargetTooLong, line=b"GET /" + b"a" * 8192 + b" HTTP/1.1")


class TestFields:
    """RFC 9110 5, RFC 9112 5."""

    @pytest.mark.parametrize(
        "field",
        [
            *(b"Content-Length : 5", b"Foo : x", b"Authorization\t: Bearer T", b"Foo", b"Content-Length 10"),
            *(
                b": x",
                b":",
                b" : x",
                b"X: a\0b",
                b"X: a\rb",
                b"X: \rTransfer-Encoding: chunked",
                b"X: a\nY: b",
            ),
            *(b"X: \x0b", b"X: \x07", b"X: \x7f", b"X: a\r\n b", b" X: a", b"X\x80: a", b"X(: a"),
        ],
        ids=repr,
    )
    def test_21_to_27_lines_that_are_no_fields(self, field: bytes) -> None:
        """400, with the whole message; nothing behind them is dropped."""
        _refused(BadRequest, field, b"Authorization: Bearer T")
        _refused(BadRequest, b"Authorization: Bearer T", field)

    @pytest.mark.parametrize("end", [b"\n", b"\r"], ids=repr)
    def test_27_other_line_ends(self, end: bytes) -> None:
        """Strictly CRLF."""
        with pytest.raises(BadRequest):
            parse_request(end.join([b"GET / HTTP/1.1", b"Host: v", b"", b""]) + b"\r\n\r\n")

    def test_29_white_space_is_space_and_tab(self) -> None:
        """Nothing that Python or Unicode calls so besides."""
        request = _request(b"Authorization: Bearer T\xa0", b"X: \t a \xa0\t ")
        assert [b"Bearer T\xa0"] == request.special[b"authorization"]
        assert [b"X: a \xa0\r\n"] == request.lines
        _refused(BadRequest, b"Content-Length: \xa05")
        _refused(BadRequest, b"Content-Length: 5\x85")
        with pytest.raises((BadRequest, NotImplementedHere)):
            _request(b"Transfer-Encoding: \xa0chunked\xa0")

    @pytest.mark.parametrize(
        "name",
        [
            b"X_Forwarded_For",
            b"X.Forwarded.For",
            b"x_forwarded-anything",
            b"Content_Length",
            b"X_Real.IP",
            b"Transfer_Encoding",
            b"Proxy.Connection",
            b"X_Request_Id",
            b"Keep_Alive",
        ],
    )
    def test_30_names_that_imitate_ours(self, name: bytes) -> None:
        """A CGI-like application would take them for the real ones."""
        _refused(BadRequest, name + b": 5")

    def test_30_other_names_with_such_letters_pass(self) -> None:
        """They are somebody's own."""
        lines = [b"my_own.field: 1\r\n", b"_xsrf: 2\r\n"]
        assert lines == _request(b"my_own.field: 1", b"_xsrf: 2").lines

    def test_32_33_order_spelling_and_number_are_kept(self) -> None:
        """Nothing is joined or sorted, values lose the white space around them only."""
        request = _request(
            b"X-A: 1", b"x-b:\t2 ", b"X-A: 3", b"empty:", b"hoSt2:", b"Cookie: a", b"Cookie: b"
        )
        assert b"X-A: 1\r\nx-b: 2\r\nX-A: 3\r\nempty: \r\nhoSt2: \r\n" == b"".join(request.lines)
        assert [b"a", b"b"] == request.special[b"cookie"]

    def test_71_there_may_be_a_hundred(self) -> None:
        """Of whatever kind, Host included."""
        assert 99 == len(_request(*[b"X: a"] * 99).lines)
        _refused(HeadTooLarge, *[b"X: a"] * 100)
        _refused(HeadTooLarge, *[b"Cookie: a"] * 100)

    @pytest.mark.parametrize("second", [b"Host: visa.test", b"Host: other.test"])
    def test_18_two_hosts(self, second: bytes) -> None:
        """Equal or not."""
        _refused(BadRequest, second)

    @pytest.mark.parametrize(
        "host",
        [b"", b"Host:", b"Host: a, b", b"Host: a b", b"Host: a/b", b"Host: a@b", b"Host: [::1", b"Host: a:b"],
    )
    def test_17_18_no_valid_host(self, host: bytes) -> None:
        """HTTP/1.1 needs one (RFC 9112 3.2)."""
        with pytest.raises(BadRequest):
            _request(host=host)

    @pytest.mark.parametrize("host", [b"visa.test:443", b"[::1]:80", b"10.0.0.1", b"visa-1.test:"])
    def test_valid_hosts(self, host: bytes) -> None:
        """With and without a port."""
        assert host == _request(host=b"Host: " + host).host

    def test_237_http_1_0_needs_no_host(self) -> None:
        """But may have one, a valid one."""
        assert _request(line=b"GET / HTTP/1.0", host=b"").host is None
        assert b"a" == _request(line=b"GET / HTTP/1.0", host=b"Host: a").host
        with pytest.raises(BadRequest):
            _request(line=b"GET / HTTP/1.0", host=b"Host: a b")

    def test_121_two_authorization_fields(self) -> None:
        """Which one counts would depend on who reads them."""
        _refused(BadRequest, b"Authorization: Bearer a", b"Authorization: Bearer a")

    def test_83_84_240_what_connection_names_goes_no_further(self) -> None:
        """Framing and identity fields are out of its reach (RFC 9110 7.6.1)."""
        request = _request(
            b"Connection:",
            b"Connection: X-Secret, Host, Content-Length, Cookie,X-Forwarded-For ,",
            b"X-Secret: 1",
            b"x-secret: 2",
            b"X-Other: 3",
            b"Cookie: a=1",
            b"Content-Length: 5",
            b"X-Forwarded-For: 6.6.6.6",
            b"TE: gzip",
            b"Trailer: X",
            b"Keep-Alive: 5",
            b"Proxy-Connection: close",
            b"Proxy-Authorization: Basic",
        )
        assert [b"X-Other: 3\r\n"] == request.lines
        assert (b"visa.test", 5, [b"a=1"]) == (request.host, request.length, request.special[b"cookie"])

    def test_417_for_an_expectation_that_nobody_knows(self) -> None:
        """RFC 9110 10.1.1; the known one is case-insensitive, and void in HTTP/1.0."""
        _refused(ExpectationFailed, b"Expect: 200-ok")
        _refused(ExpectationFailed, b"Expect: 100-continue", b"Expect: 100-continue")
        assert _request(b"Expect: 100-Continue", b"Content-Length: 1").expects_continue
        assert not _request(b"Expect: 100-continue", line=b"PUT / HTTP/1.0").expects_continue


class TestBodies:
    """RFC 9112 6: what follows the head is known, or the message is refused."""

    @pytest.mark.parametrize(
        "fields",
        [
            *([b"Content-Length: 5", b"Content-Length: 5"], [b"Content-Length: 5", b"Content-Length: 6"]),
            *(
                [b"Content-Length: 5, 5"],
                [b"Content-Length: +5"],
                [b"Content-Length: -5"],
                [b"Content-Length:"],
            ),
            *(
                [b"Content-Length: 0x5"],
                [b"Content-Length: 5_0"],
                [b"Content-Length: 5 0"],
                [b"Content-Length: a"],
            ),
            *([b"Content-Length: " + b"1" * digits] for digits in (20, 100, 5000)),
            [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        ],
        ids=repr,
    )
    def test_35_36_39_lengths_that_are_none(self, fields: list[bytes]) -> None:
        """400, and nothing is guessed."""
        _refused(BadRequest, *fields)

    def test_38_leading_zeros_are_decimal(self) -> None:
        """Never octal."""
        assert 10 == _request(b"Content-Length: 010").length

    @pytest.mark.parametrize(
        "fields",
        [
            *(
                [b"Transfer-Encoding: gzip, chunked"],
                [b"Transfer-Encoding: gzip"],
                [b"Transfer-Encoding: xchunked"],
            ),
            *(
                [b"Transfer-Encoding: chunked, chunked"],
                [b"Transfer-Encoding: chunked;q=1"],
                [b"Transfer-Encoding:"],
            ),
            *(
                [b"Transfer-Encoding: identity"],
                [b'Transfer-Encoding: "chunked"'],
                [b"Transfer-Encoding: chunked,"],
            ),
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
        ],
        ids=repr,
    )
    def test_41_44_codings_that_we_do_not_know(self, fields: list[bytes]) -> None:
        """501 or 400: the one known coding, once."""
        with pytest.raises((BadRequest, NotImplementedHere)):
            _request(*fields)

    def test_42_the_coding_in_any_case(self) -> None:
        """Names and codings are case-insensitive."""
        request = _request(b"TrAnSFer-EnCODinG: cHuNkeD")
        assert (True, None, True) == (request.chunked, request.length, request.has_body)

    def test_http_1_0_has_no_codings(self) -> None:
        """RFC 9112 6.1: treat it as faulty."""
        _refused(BadRequest, b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")

    def test_an_empty_body_is_none(self) -> None:
        """Length zero or no length."""
        assert not _request(b"Content-Length: 0").has_body
        assert not _request().has_body


class TestKeepAlive:
    """RFC 9112 9.3."""

    @pytest.mark.parametrize(
        ("line", "connection", "expected"),
        [
            (b"GET / HTTP/1.1", b"", True),
            (b"GET / HTTP/1.1", b"keep-alive, Close", False),
            (b"GET / HTTP/1.0", b"", False),
            (b"GET / HTTP/1.0", b"Keep-Alive", True),
            (b"GET / HTTP/1.0", b"keep-alive, close", False),
        ],
    )
    def test_whether_another_request_may_follow(
        self, line: bytes, connection: bytes, *, expected: bool
    ) -> None:
        """`close` wins."""
        assert expected is _request(b"Connection: " + connection, line=line).keep_alive


class TestResponses:
    """What an instance may answer."""

    @pytest.mark.parametrize(
        ("line", "status", "reason"),
        [
            (b"HTTP/1.1 200 OK", 200, b"OK"),
            (b"HTTP/1.0 299 ", 299, b""),
            (b"HTTP/1.1 418", 418, b""),
            (b"HTTP/1.1 599 \xc3\xa9 \t!", 599, b"\xc3\xa9 \t!"),
            (b"HTTP/1.1 200 OK\x0bX\0\x7f", 200, b"OK X  "),
        ],
    )
    def test_182_any_status_and_reason(self, line: bytes, status: int, reason: bytes) -> None:
        """A reason has only what may stand in a status line."""
        response = parse_response(line + b"\r\n\r\n")
        assert (status, reason) == (response.status, response.reason)

    @pytest.mark.parametrize(
        "head",
        [
            *(
                b"HTTP/1.1 20 OK",
                b"HTTP/1.1 099 OK",
                b"HTTP/1.1 600 OK",
                b"HTTP/1.1 2000 OK",
                b"HTTP/1.1  200 OK",
                b"HTTP/2 200 OK",
            ),
            *(
                b"http/1.1 200 OK",
                b"HTTP/1.2 200 OK",
                b"HTTP/1.1 200OK",
                b"ICY 200 OK",
                b"",
                b"HTTP/1.1 abc OK",
            ),
            *(b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 OK\r\nX : a", b"HTTP/1.1 200 OK\r\nX: a\r\n b"),
            *(b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\nX: \x01", b"HTTP/1.1 200 OK\r\nX: a\nY: b"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            b"HTTP/1.1 200 OK\r\n" + b"\r\n".join([b"X: a"] * 101),
        ],
        ids=lambda head: repr(head[:60]),
    )
    def test_180_heads_that_are_none(self, head: bytes) -> None:
        """One error for all: the instance's fault."""
        with pytest.raises(InstanceInvalid):
            parse_response(head + b"\r\n\r\n")

    def test_32_153_fields_are_sorted(self) -> None:
        """Cookies and the connection's own apart from what goes on as it came."""
        response = parse_response(
            b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: x-Hop, close\r\nX-Hop: 1\r\nSet-Cookie: a\r\n"
            b"Set-Cookie: b\r\nDate: today\r\nUpgrade: h2c\r\nKeep-Alive: 1\r\nContent-Length: 3\r\n\r\n"
        )
        assert [b"Server: x\r\n", b"Date: today\r\n"] == lines_of(response)
        assert response.is_dated
        assert ([b"a", b"b"], 3, False) == (
            response.special[b"set-cookie"],
            response.length,
            response.keep_alive,
        )

    def test_each_response_has_the_date_it_came_with(self) -> None:
        """Though everything else is the same, in any spelling; unless `Connection` names it."""
        dates = (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT")
        for name in (b"Date", b"date"):
            for date in dates:
                fields = b"X: 1\r\n%b: %b\r\n" % (name, date)
                response = parse_response(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
                assert [b"%b: %b\r\n" % (name, date), b"X: 1\r\n"] == sorted(
                    lines_of(response), key=len, reverse=True
                )
                assert response.is_dated
                response = parse_response(b"HTTP/1.1 200 OK\r\nConnection: date\r\n" + fields + b"\r\n")
                assert [b"X: 1\r\n"] == lines_of(response)
                assert not response.is_dated

    def test_each_switch_has_the_answer_to_its_own_key(self) -> None:
        """Though everything else is the same, in any spelling; unless `Connection` names it."""
        keys = (b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=")
        for name in (b"Sec-WebSocket-Accept", b"sec-websocket-accept"):
            for key in keys:
                fields = b"Date: today\r\n%b: %b\r\nUpgrade: websocket\r\n" % (name, key)
                response = parse_response(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" + fields + b"\r\n"
                )
                assert [key] == response.special[b"sec-websocket-accept"]
                assert b"%b: %b\r\n" % (name, key) in lines_of(response)
                response = parse_response(
                    b"HTTP/1.1 101 X\r\nConnection: upgrade, sec-websocket-accept\r\n" + fields + b"\r\n"
                )
                assert key not in b"".join(lines_of(response))

    def test_one_of_two_answers_to_a_key_is_never_lost(self) -> None:
        """Both are seen, so that the switch is refused."""
        field = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        response = parse_response(b"HTTP/1.1 101 X\r\nX: 1\r\n" + field + field + b"\r\n")
        assert 2 == len(response.special[b"sec-websocket-accept"])

    def test_the_date_counts_among_the_fields(self) -> None:
        """For the limit of their number."""
        date = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        parse_response(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 99 + date + b"\r\n")
        with pytest.raises(InstanceInvalid):
            parse_response(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 100 + date + b"\r\n")

    def test_95_a_cookie_is_for_one_client(self) -> None:
        """What sets one is read anew each time, and is nobody else's."""
        heads = [b"HTTP/1.1 200 OK\r\nX: 1\r\nSet-Cookie: a=%d\r\n\r\n" % number for number in (1, 2, 1)]
        assert [[b"a=1"], [b"a=2"], [b"a=1"]] == [
            parse_response(head).special[b"set-cookie"] for head in heads
        ]


class TestComposing:
    """Messages that we send."""

    def test_heads_are_written_as_they_are_read(self) -> None:
        """What we compose, we parse."""
        request = parse_request(request_head(b"PUT", b"/a?b", [b"Host: v\r\n", b"X: 1\r\n"]))
        assert (b"PUT", b"/a?b", [b"X: 1\r\n"]) == (request.method, request.target, request.lines)
        response = parse_response(response_head(404, b"Not Found", [b"X: 1\r\n"]))
        assert (404, b"Not Found", [b"X: 1\r\n"]) == (response.status, response.reason, lines_of(response))

    def test_no_repr_shows_a_query(self) -> None:
        """It may hold a secret."""
        assert "secret" not in repr(_request(line=b"GET /x?token=secret HTTP/1.1"))
        assert "Response(200)" == repr(parse_response(b"HTTP/1.1 200 OK\r\nX: secret\r\n\r\n"))

    def test_lists_are_split_at_commas(self) -> None:
        """Empty elements are ignored (RFC 9110 5.6.1)."""
        assert [b"a", b"b", b"c"] == options([b" A ,,b\t", b"", b",c"])
        assert [] == options(None)


@given(st.binary(max_size=200))
def test_3_nothing_but_answers_is_raised(data: bytes) -> None:
    """Whatever the bytes are, as a head or as the fields of one."""
    for head in (data, b"GET / HTTP/1.1\r\nHost: v\r\n" + data + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + data):
        for parse in (parse_request, parse_response):
            with suppress(ProxyError):  # nearly always
                parse(head)
