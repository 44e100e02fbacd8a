"""Which fields go on, and which are ours (cases 83 to 96)."""

import pytest

from support.conversation import FILES, JUPYTER, granted
from support.messages import fields as fields_of
from support.messages import request, response
from visa_jupyter_proxy.errors import InstanceNotReady
from visa_jupyter_proxy.routes import Route, Router
from visa_jupyter_proxy.visa_api import Instance
from visa_jupyter_proxy.worker.access.forwarded import Client, TrustedProxies
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.forwarding.fields import request_lines, response_lines, trailer_fields
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.response import Response

_OURS = [
    (b"Host", b"visa.test"),
    (b"X-Forwarded-For", b"192.0.2.7"),
    (b"X-Forwarded-Proto", b"http"),
    (b"X-Real-IP", b"192.0.2.7"),
    (b"X-Forwarded-Host", b"visa.test"),
    (b"X-Request-Id", b"id-1"),
]


def _sent(
    made: Request, route: Route = JUPYTER, grant: Grant | None = None, client: Client | None = None
) -> Fields:
    match = Router([route]).match(made.target, websocket=made.websocket)
    client = client or Client("192.0.2.7")
    return fields_of(request_lines(made, match, grant or granted(12), client, request_id=b"id-1"))


def _received(made: Response) -> Fields:
    asked = request()
    match = Router([JUPYTER]).match(asked.target, websocket=False)
    return fields_of(response_lines(made, asked, match, granted(12), Client("192.0.2.7")))


def _files(*set_headers: tuple[str, str]) -> Route:
    return Route(match=FILES.match, type="service", name="Files", remote_port=8090, set_headers=set_headers)


class TestRequests:
    """What an instance gets."""

    def test_93_what_came_and_what_we_vouch_for(self) -> None:
        """Host as the browser sent it, the others in the order in which they came."""
        assert [(b"Accept", b"*/*"), (b"X-B", b"1"), *_OURS] == _sent(request(b"Accept: */*", b"X-B: 1"))

    def test_87_161_what_a_client_says_of_itself_is_replaced(self) -> None:
        """All of it, also when `Connection` names it (84)."""
        made = request(
            b"Connection: Host, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP",
            b"X-Forwarded-For: 6.6.6.6",
            b"X-Forwarded-Port: 1",
            b"X-Forwarded-Whatever: 1",
            b"X-Real-IP: 6.6.6.6",
            b"Forwarded: for=6.6.6.6",
            b"X-Request-Id: evil",
        )
        assert _OURS == _sent(made)

    def test_87_what_a_trusted_proxy_says_goes_on(self) -> None:
        """Appended to, or as it is."""
        made = request(
            b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: visa.ill.eu"
        )
        sent = dict(_sent(made, client=TrustedProxies(["127.0.0.1"]).client("127.0.0.1", made)))
        assert (b"6.6.6.6, 127.0.0.1", b"https", b"visa.ill.eu", b"6.6.6.6", b"visa.test") == (
            sent[b"X-Forwarded-For"],
            sent[b"X-Forwarded-Proto"],
            sent[b"X-Forwarded-Host"],
            sent[b"X-Real-IP"],
            sent[b"Host"],
        )

    def test_89_90_the_token_does_not_go_on(self) -> None:
        """The application's own credentials do (92)."""
        made = request(
            b"Authorization: Bearer T", b"Cookie: a=1; access_token=T; b=2", b"Cookie: access_token=T"
        )
        assert [(b"Cookie", b"a=1; b=2"), *_OURS] == _sent(made)
        made = request(b"Authorization: token abc", b"Cookie: access_token=T")
        assert [(b"Authorization", b"token abc"), *_OURS] == _sent(made)

    def test_a_route_may_keep_the_credentials(self) -> None:
        """`stripCredentials: false`."""
        route = Route(match=JUPYTER.match, type="jupyter", name="J", remote_port=1, strip_credentials=False)
        made = request(b"Authorization: Bearer T", b"Cookie: a=1; access_token=T")
        expected = [(b"Authorization", b"Bearer T"), (b"Cookie", b"a=1; access_token=T")]
        assert [*expected, *_OURS] == _sent(made, route)

    @pytest.mark.parametrize(
        ("fields", "line", "framing"),
        [
            ((), b"GET /jupyter/12/x HTTP/1.1", []),
            ((b"Content-Length: 0005",), b"PUT /jupyter/12/x HTTP/1.1", [(b"Content-Length", b"5")]),
            ((b"Content-Length: 0",), b"POST /jupyter/12/x HTTP/1.1", [(b"Content-Length", b"0")]),
            (
                (b"Transfer-Encoding: Chunked",),
                b"PUT /jupyter/12/x HTTP/1.1",
                [(b"Transfer-Encoding", b"chunked")],
            ),
        ],
    )
    def test_framing_is_ours(self, fields: tuple[bytes, ...], line: bytes, framing: Fields) -> None:
        """Written anew from what was understood."""
        assert [*_OURS, *framing] == _sent(request(*fields, line=line))

    def test_an_http_1_0_request_without_a_host_gets_one(self) -> None:
        """HTTP/1.1 needs one (RFC 9112 3.2): the instance's address, an IPv6 one in brackets."""
        made = request(line=b"GET /jupyter/12/x HTTP/1.0", host=None)
        hosts = [
            dict(_sent(made, grant=granted(12, host=host)))[b"Host"] for host in ("10.0.0.12", "fd00::12")
        ]
        assert [b"10.0.0.12", b"[fd00::12]"] == hosts
        assert b"X-Forwarded-Host" not in dict(_sent(made))

    def test_68_http_1_0_knows_no_expectation(self) -> None:
        """RFC 9110 10.1.1."""
        fields = (b"Expect: 100-continue", b"Content-Length: 1")
        sent = [
            _sent(request(*fields, line=b"PUT /jupyter/12/x " + version))
            for version in (b"HTTP/1.0", b"HTTP/1.1")
        ]
        assert [False, True] == [(b"Expect", b"100-continue") in fields for fields in sent]

    def test_a_websocket_is_asked_for_anew(self) -> None:
        """With the client's own key, protocols and extensions; Origin stays (160)."""
        made = request(
            b"Connection: keep-alive, Upgrade, X-Secret",
            b"X-Secret: 1",
            b"Upgrade: WebSocket",
            b"Origin: https://visa.test",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org",
        )
        sent = _sent(made)
        assert [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")] == sent[-2:]
        assert [b"Origin", b"Sec-WebSocket-Version", b"Sec-WebSocket-Protocol"] == [
            name for name, _ in sent[:3]
        ]
        assert [b"dGhlIHNhbXBsZSBub25jZQ=="] == [
            value for name, value in sent if name == b"Sec-WebSocket-Key"
        ]

    def test_each_websocket_has_the_key_it_came_with(self) -> None:
        """Though everything else is the same; unless `Connection` names it (84)."""
        keys = (b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAA==")
        for key in keys:
            line = b"Sec-WebSocket-Key: " + key
            sent = _sent(request(line))
            assert [key] == [value for name, value in sent if name == b"Sec-WebSocket-Key"]
            sent = _sent(request(b"Connection: Sec-WebSocket-Key", line))
            assert b"Sec-WebSocket-Key" not in dict(sent)

    def test_the_same_fields_are_made_for_whom_they_are(self) -> None:
        """Another service, grant or client, or path: nothing of the last request goes on."""
        fields = (b"Cookie: a=1; access_token=abc", b"X-Auth-Token: mine")
        sets, keeps = (
            _files(("x-auth-token", "{computeId}")),
            Route(match=FILES.match, type="service", name="Kept", remote_port=8090, strip_credentials=False),
        )
        made = [
            _sent(request(*fields)),
            _sent(request(*fields), client=Client("192.0.2.8")),
            _sent(request(*fields, line=b"GET /visafs/12/a HTTP/1.1"), sets, granted(12, computeId="c-12")),
            _sent(request(*fields, line=b"GET /visafs/13/a HTTP/1.1"), sets, granted(13, computeId="c-13")),
            _sent(request(*fields, line=b"GET /visafs/12/a HTTP/1.1"), keeps),
            _sent(request(*fields, line=b"GET /visafs/12/a HTTP/1.1"), FILES),
            _sent(request(*fields, line=b"GET /visafs/13/a HTTP/1.1"), FILES, granted(13)),
        ]
        names = (b"Cookie", b"X-Auth-Token", b"x-auth-token", b"X-Real-IP", b"X-Forwarded-Prefix")
        assert [
            (b"a=1", b"mine", None, b"192.0.2.7", None),
            (b"a=1", b"mine", None, b"192.0.2.8", None),
            (b"a=1", None, b"c-12", b"192.0.2.7", None),
            (b"a=1", None, b"c-13", b"192.0.2.7", None),
            (b"a=1; access_token=abc", b"mine", None, b"192.0.2.7", None),
            (b"a=1", b"mine", None, b"192.0.2.7", b"/visafs/12"),
            (b"a=1", b"mine", None, b"192.0.2.7", b"/visafs/13"),
        ] == [tuple(dict(one).get(name) for name in names) for one in made]


class TestSetHeaders:
    """`setHeaders` of a route."""

    @pytest.mark.parametrize("name", [b"x-auth-token", b"X-Auth-Token", b"X_Auth_Token", b"x.auth-token"])
    def test_a_set_field_replaces_the_client_s(self, name: bytes) -> None:
        """In any spelling, and those that some servers take for it (30)."""
        made = request(name + b": mine", b"X-Other_Token: 1", line=b"GET /visafs/12/a HTTP/1.1")
        sent = _sent(made, _files(("x-auth-token", "{computeId}")), granted(12, computeId="c-12"))
        assert sorted([(b"X-Other_Token", b"1"), *_OURS, (b"x-auth-token", b"c-12")]) == sorted(sent)

    def test_authorization_may_be_set(self) -> None:
        """Then the client's own goes no further."""
        made = request(b"Authorization: token mine", line=b"GET /visafs/12/a HTTP/1.1")
        sent = _sent(
            made,
            _files(("Authorization", "token {id}-{uid}-{owner}!")),
            granted(12, id="12", uid="u", owner="o"),
        )
        assert sorted([*_OURS, (b"Authorization", b"token 12-u-o!")]) == sorted(sent)

    @pytest.mark.parametrize("value", ["", "a b", "a\r\nX-Evil: 1", "é", "a\0"])
    def test_a_value_that_cannot_stand_in_a_field_is_none(self, value: str) -> None:
        """The API's answers are distrusted, too; the value is not shown."""
        instance = Instance(id=12, host="10.0.0.12", state="ACTIVE", owner=None, values={"computeId": value})
        grant = Grant((b"", 12), instance, "10.0.0.12", "anna", expires=60.0, usable_until=60.0)
        with pytest.raises(InstanceNotReady) as caught:
            _sent(request(line=b"GET /visafs/12/a HTTP/1.1"), _files(("x", "{computeId}")), grant)
        assert "the API gave no usable value for {computeId}" == str(caught.value)


class TestResponses:
    """What a client gets."""

    def test_32_95_cookies_stay_apart_and_the_token_is_not_set(self) -> None:
        """In order, in number."""
        made = response(
            b"Set-Cookie: a=1; Path=/", b"Server: x", b"Set-Cookie: access_token=evil", b"Set-Cookie: b=2"
        )
        assert [
            (b"Server", b"x"),
            (b"Set-Cookie", b"a=1; Path=/jupyter/12"),
            (b"Set-Cookie", b"b=2"),
        ] == _received(made)

    def test_96_locations_are_the_browsers(self) -> None:
        """Nothing of the inside is in them."""
        made = response(b"Location: http://10.0.0.7:8888/x", b"Content-Location: http://localhost/y")
        assert [(b"Location", b"/x"), (b"Content-Location", b"/y")] == _received(made)

    def test_153_what_belongs_to_the_connection_stays_there(self) -> None:
        """With what `Connection` names; an id of the instance's is not ours."""
        made = response(
            b"Connection: close, X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: 5",
            b"Upgrade: h2",
            b"X-Request-Id: 9",
            b"X: 1",
        )
        assert [(b"X", b"1")] == _received(made)


class TestTrailers:
    """RFC 9110 6.5.1."""

    @pytest.mark.parametrize(
        "name",
        [
            *(
                b"Content-Length",
                b"Authorization",
                b"Host",
                b"X-Forwarded-For",
                b"Transfer-Encoding",
                b"Trailer",
            ),
            *(
                b"Cookie",
                b"Set-Cookie",
                b"Content-Type",
                b"Cache-Control",
                b"Content_Length",
                b"X.Forwarded.For",
            ),
            *(
                b"If-Match",
                b"Access-Control-Allow-Origin",
                b"Sec-WebSocket-Accept",
                b"Location",
                b"X-Real_IP",
            ),
        ],
    )
    def test_51_what_must_not_come_late_is_dropped(self, name: bytes) -> None:
        """And whatever imitates it."""
        assert [] == trailer_fields([(name, b"1"), (name.lower(), b"1")])

    def test_others_go_on(self) -> None:
        """As they came."""
        fields = [(b"X-Sum", b"1"), (b"Server-Timing", b"2"), (b"my_own", b"3")]
        assert fields == trailer_fields(fields)
