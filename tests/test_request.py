"""Heads of requests: what is one, what is refused, and where each field goes (RFC 9112, RFC 9110)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.costs import instructions
from visa_jupyter_proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    TargetTooLong,
    VersionNotSupported,
)
from visa_jupyter_proxy.worker.http.request import Request, parse_request, request_head
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

    def test_71_too_many_are_not_read(self) -> None:
        """32 KiB may have thousands: to refuse them costs no more than to refuse some."""

        def cost(fields: int) -> int:
            lines = [b"%x:" % number for number in range(fields)]
            return instructions(lambda: _refused(HeadTooLarge, *lines))

        assert cost(200) == cost(8000)

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

    def test_lists_are_split_at_commas(self) -> None:
        """Empty elements are ignored (RFC 9110 5.6.1)."""
        assert [b"a", b"b", b"c"] == options([b" A ,,b\t", b"", b",c"])
        assert [] == options(None)


class TestBodies:
    """RFC 9112 6: what follows the head is known, or the message is refused."""

    @pytest.mark.parametrize(
        "value",
        [
            *(b"5, 5", b"+5", b"-5", b"", b"0x5", b"5_0", b"5 0", b"a"),
            *(b"1" * digits for digits in (20, 100, 5000)),
        ],
        ids=repr,
    )
    def test_35_36_39_lengths_that_are_none(self, value: bytes) -> None:
        """400, and nothing is guessed."""
        _refused(BadRequest, b"Content-Length: " + value)

    @pytest.mark.parametrize(
        "other", [b"Content-Length: 5", b"Content-Length: 6", b"Transfer-Encoding: chunked"], ids=repr
    )
    def test_35_36_a_length_and_something_else(self, other: bytes) -> None:
        """Whichever is first, and whether or not they say the same."""
        _refused(BadRequest, b"Content-Length: 5", other)
        _refused(BadRequest, other, b"Content-Length: 5")

    def test_38_leading_zeros_are_decimal(self) -> None:
        """Never octal."""
        assert 10 == _request(b"Content-Length: 010").length

    @pytest.mark.parametrize(
        "values",
        [
            *([b"gzip, chunked"], [b"gzip"], [b"xchunked"], [b"chunked, chunked"], [b"chunked;q=1"], [b""]),
            *([b"identity"], [b'"chunked"'], [b"chunked,"], [b"chunked", b"chunked"], [b"gzip", b"chunked"]),
        ],
        ids=repr,
    )
    def test_41_44_codings_that_we_do_not_know(self, values: list[bytes]) -> None:
        """501 or 400: the one known coding, once."""
        with pytest.raises((BadRequest, NotImplementedHere)):
            _request(*(b"Transfer-Encoding: " + value for value in values))

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


def test_a_head_is_written_as_it_is_read() -> None:
    """What we compose, we parse."""
    request = parse_request(request_head(b"PUT", b"/a?b", [b"Host: v\r\n", b"X: 1\r\n"]))
    assert (b"PUT", b"/a?b", [b"X: 1\r\n"]) == (request.method, request.target, request.lines)


def test_no_repr_shows_a_query() -> None:
    """It may hold a secret."""
    assert "secret" not in repr(_request(line=b"GET /x?token=secret HTTP/1.1"))


@given(st.binary(max_size=200))
def test_3_nothing_but_answers_is_raised(data: bytes) -> None:
    """Whatever the bytes are, as a head or as the fields of one."""
    for head in (data, b"GET / HTTP/1.1\r\nHost: v\r\n" + data + b"\r\n\r\n"):
        with suppress(ProxyError):  # nearly always
            parse_request(head)
