"""Fields that the proxy rewrites: what it vouches for, what it takes out, what it maps back."""

import socket
from collections.abc import Iterator

import pytest

from support.client import RawClient, Reader, get, upgrade
from support.instance import Connection, ok, switching
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer
from wire.conftest import Wire, production

FRONT = "127.0.0.9"
"""Where the front proxy of these tests connects from."""


class ClientAt(RawClient):
    """A client with an address of its own."""

    def __init__(self, port: int, address: str) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
        Reader.__init__(self, sock)


@pytest.fixture(scope="module")
def fronted(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy that trusts one front proxy, and nobody else."""
    directory = tmp_path_factory.mktemp("fronted")
    routes = production(instance_port)
    with running_proxy(directory, api_url=api.url, routes=routes, TRUSTED_PROXIES=FRONT) as running:
        yield running


def _serve(connection: Connection) -> None:
    """Accept WebSockets, answer everything else."""
    while True:
        request = connection.request()
        connection.send(ok() if request.one("upgrade") is None else switching(request))


def _accept(connection: Connection, *fields: str) -> None:
    connection.accept_websocket(*fields)
    connection.rest()


class TestTraces:
    """W3C Trace Context: end-to-end fields, in whatever spelling."""

    @pytest.mark.parametrize("websocket", [False, True])
    def test_they_pass_on(self, wire: Wire, websocket: bool) -> None:
        """As they came: several `tracestate` are one list (3.3.1.1), in their order."""
        wire.instance.play(_serve)
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        fields = (f"Traceparent: {parent}", "tracestate: a=1", "tracestate: b=2", "baggage: x=1")
        asked = upgrade(wire.path(), *fields, token=wire.token) if websocket else wire.get("/x", *fields)
        with wire.client() as client:
            assert client.ask(asked).status == (101 if websocket else 200)
        (request,) = wire.instance.requests
        assert ([parent.encode()], [b"a=1", b"b=2"], [b"x=1"]) == tuple(
            request.all(name) for name in ("traceparent", "tracestate", "baggage")
        )


class TestConnection:
    """What belongs to one connection ends there; nothing else can be named away (RFC 9110 7.6.1)."""

    @pytest.mark.parametrize(
        "fields",
        [
            ["Connection:", "Connection: X-Secret"],
            ["Connection: X-Secret", "Connection:"],
            ["Connection: , ,x-sECRET,,"],
            ["Connection: keep-alive", "Connection: close, X-Secret"],
        ],
        ids="|".join,
    )
    def test_83_every_connection_field_counts(self, wire: Wire, fields: list[str]) -> None:
        """A field is stripped whichever of several `Connection` fields names it; an empty one hides none."""
        assert wire.ask(wire.get("/x", *fields, "X-Secret: 1", "X-Public: 2")).status == 200
        seen = wire.instance.requests[0]
        assert (None, None, b"2") == (seen.one("x-secret"), seen.one("connection"), seen.one("x-public"))

    @pytest.mark.parametrize(
        "named",
        [
            "Host, Content-Length, Cookie, X-Forwarded-For, X-Forwarded-Proto",
            "Authorization",
            "Transfer-Encoding",
            "X-Forwarded-Host, X-Real-IP, X-Request-Id",
            "content-length",
        ],
    )
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_84_what_we_vouch_for_cannot_be_named_away(self, wire: Wire, named: str, chunked: bool) -> None:
        """Framing, identity and forwarded fields are there, and the body is whole."""
        framing, body = (
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")
            if chunked
            else ("Content-Length: 5", b"hello")
        )
        fields = (f"Connection: {named}", framing, "Cookie: a=1", "Authorization: token t")
        assert wire.ask(wire.get("/x", *fields, method="POST") + body).status == 200
        seen = wire.instance.requests[0]
        assert (b"hello", b"visa.test", b"a=1", b"token t") == (
            seen.body,
            seen.one("host"),
            seen.one("cookie"),
            seen.one("authorization"),
        )
        assert (b"127.0.0.1", b"http", b"visa.test", b"127.0.0.1") == (
            seen.one("x-forwarded-for"),
            seen.one("x-forwarded-proto"),
            seen.one("x-forwarded-host"),
            seen.one("x-real-ip"),
        )
        assert seen.one("x-request-id")

    @pytest.mark.parametrize("value", ["close", "CLOSE", "x, close", "close, keep-alive"])
    @pytest.mark.parametrize("says", ["Connection: keep-alive", "Keep-Alive: timeout=100", "X: y"])
    def test_86_close_is_the_clients_decision(self, wire: Wire, value: str, says: str) -> None:
        """The response says close and the socket is closed, whatever the instance says."""
        wire.instance.answer(ok(b"ok", says))
        with wire.client() as client:
            response = client.ask(wire.get("/x", f"Connection: {value}"))
            assert (200, b"close", None) == (
                response.status,
                response.one("connection"),
                response.one("keep-alive"),
            )
            assert client.closed()

    def test_86_the_instances_close_is_not_the_clients(self, wire: Wire) -> None:
        """The instance closing its connection does not close the client's, and is not told to it."""
        wire.instance.answer(ok(b"ok", "Connection: close"))
        with wire.client() as client:
            assert [(200, None)] * 2 == [
                (response.status, response.one("connection"))
                for response in (client.ask(wire.get()) for _ in range(2))
            ]


SPOOFED = (
    "X-Forwarded-For: 6.6.6.6",
    "X-Real-IP: 6.6.6.7",
    "Forwarded: for=6.6.6.8;host=evil",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.test",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /evil",
    "X-Scheme: https",
)


@pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
class TestForwarded:
    """Who the client is (RFC 7239 8.1: anybody can write these fields)."""

    def _seen(self, wire: Wire, proxy: RunningProxy, address: str, websocket: bool) -> list[bytes | None]:
        wire.instance.play(_serve)
        make = upgrade if websocket else get
        with ClientAt(proxy.port, address) as client:
            response = client.ask(make(wire.path(), *SPOOFED, token=wire.token))
            assert response.status == (101 if websocket else 200)
        (seen,) = wire.instance.requests
        dropped = ("forwarded", "x-forwarded-port", "x-forwarded-prefix", "x-scheme")
        assert [] == [name for name in dropped if seen.all(name)]
        names = ("x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host")
        return [seen.one(name) for name in names]

    def test_87_of_an_untrusted_peer(self, wire: Wire, fronted: RunningProxy, websocket: bool) -> None:
        """What it says of itself is replaced by its own address, and by what we know."""
        expected = [b"127.0.0.1", b"127.0.0.1", b"http", b"visa.test"]
        assert expected == self._seen(wire, fronted, "127.0.0.1", websocket)

    def test_87_of_the_front_proxy(self, wire: Wire, fronted: RunningProxy, websocket: bool) -> None:
        """The peer is appended to what it says; scheme and host are taken over."""
        expected = [b"6.6.6.6, 127.0.0.9", b"6.6.6.6", b"https", b"public.test"]
        assert expected == self._seen(wire, fronted, FRONT, websocket)

    @pytest.mark.parametrize(
        ("said", "address"),
        [
            ("1.2.3.4:567", b"1.2.3.4"),
            ("[2001:DB8::1]:443", b"2001:db8::1"),
            ("[2001:db8::1]", b"2001:db8::1"),
        ],
    )
    def test_87_of_a_front_proxy_that_writes_ports(
        self, wire: Wire, fronted: RunningProxy, websocket: bool, said: str, address: bytes
    ) -> None:
        """Azure's and some others do, and write the scheme as they like: neither hides who the client is."""
        wire.instance.play(_serve)
        make = upgrade if websocket else get
        fields = (f"X-Forwarded-For: {said}", "X-Forwarded-Proto: HTTPS")
        with ClientAt(fronted.port, FRONT) as client:
            client.ask(make(wire.path(), *fields, token=wire.token))
        (seen,) = wire.instance.requests
        assert (address, b"https") == (seen.one("x-real-ip"), seen.one("x-forwarded-proto"))


class TestCredentialsGoNoFurther:
    """The instance sees no VISA token; all else of both fields passes (contract sections 3 and 4)."""

    @pytest.mark.parametrize("path", ["/jupyter/{}/x", "/visafs/{}/x", "/ws/print/{}/x"])
    @pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
    def test_89_no_byte_of_the_token(self, wire: Wire, path: str, websocket: bool) -> None:
        """Cookie and Bearer value are taken out of every route; `a=1; b=2` is byte-exact."""
        wire.instance.play(_serve)
        make = upgrade if websocket else get
        fields = (f"Authorization: Bearer {wire.token}", f"Cookie: a=1; access_token={wire.token}; b=2")
        assert wire.ask(make(path.format(wire.number), *fields)).status in (101, 200)
        (seen,) = wire.instance.requests
        assert (b"a=1; b=2", None) == (seen.one("cookie"), seen.one("authorization"))
        assert wire.token.encode() not in seen.head + seen.body

    @pytest.mark.parametrize(
        ("cookies", "sent"),
        [
            (["access_token={}"], []),
            (["access_token={}; access_token={}"], []),
            (["access_token={};"], []),
            (["access_token={}", "a=1"], [b"a=1"]),
            (["a=1", "access_token={}", "b=2"], [b"a=1", b"b=2"]),
            (["a=1; access_token={}", "b=2"], [b"a=1", b"b=2"]),
            (["access_token={}; a=1"], [b"a=1"]),
            (['a="1,2";b==; access_token={};c'], [b'a="1,2";b==;c']),
            (["xaccess_token=1; access_token={}"], [b"xaccess_token=1"]),
        ],
        ids=repr,
    )
    def test_90_what_is_left_of_cookies(self, wire: Wire, cookies: list[str], sent: list[bytes]) -> None:
        """A field in which nothing is left goes, it is not sent empty; two lines stay two."""
        lines = [f"Cookie: {cookie.replace('{}', wire.token)}" for cookie in cookies]
        assert wire.ask(get(wire.path(), *lines)).status == 200
        assert sent == wire.instance.requests[0].all("cookie")

    @pytest.mark.parametrize("value", ["token abc", "Basic eDp5", "Negotiate YII=", "Bearers x"])
    def test_92_an_authorization_of_the_application(self, wire: Wire, value: str) -> None:
        """The cookie authorises, and what is no Bearer value goes on."""
        assert wire.ask(wire.get("/x", f"Authorization: {value}")).status == 200
        assert value.encode() == wire.instance.requests[0].one("authorization")

    def test_89_unless_the_route_keeps_them(
        self, wire: Wire, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """`stripCredentials: false` is written out for a service that needs the token: both fields pass."""
        (jupyter, *_) = production(wire.instance.port)
        routes = [jupyter | {"stripCredentials": False}]
        directory = tmp_path_factory.mktemp("keeping")
        with (
            running_proxy(directory, api_url=wire.api.url, routes=routes) as proxy,
            RawClient(proxy.port) as client,
        ):
            assert client.ask(wire.get("/x", f"Authorization: Bearer {wire.token}")).status == 200
        seen = wire.instance.requests[0]
        assert (f"access_token={wire.token}".encode(), f"Bearer {wire.token}".encode()) == (
            seen.one("cookie"),
            seen.one("authorization"),
        )


@pytest.mark.parametrize("host", ["visa.test", "visa.test:8443", "VISA.Test", "[::1]:80", "10.1.1.1"])
def test_93_the_host_is_the_browsers(wire: Wire, host: str) -> None:
    """Jupyter compares it with Origin: it goes on as it came, never as the instance's address."""
    assert wire.ask(get(wire.path(), host=host, token=wire.token)).status == 200
    seen = wire.instance.requests[0]
    assert [host.encode()] * 2 == [seen.one("host"), seen.one("x-forwarded-host")]


class TestResponse:
    """What an instance says to a browser that holds VISA's own cookies."""

    @pytest.mark.parametrize(
        "cookie",
        [
            "access_token=evil; Path=/",
            "access_token=evil; Domain=visa.test",
            "access_token=; Max-Age=0",
            "access_token",
            " access_token = evil",
            "=access_token=evil",
            "= access_token=evil",
        ],
    )
    @pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
    def test_95_the_token_cannot_be_set(self, wire: Wire, cookie: str, websocket: bool) -> None:
        """A cookie that a browser would send back as the token is dropped; its neighbours pass one by one."""
        fields = ("Set-Cookie: a=1", f"Set-Cookie:{cookie}", "Set-Cookie: b=2; HttpOnly")
        if websocket:
            wire.instance.play(lambda connection: _accept(connection, *fields))
        else:
            wire.instance.answer(ok(b"ok", *fields))
        response = wire.ask((upgrade if websocket else get)(wire.path("/x"), token=wire.token))
        assert [b"a=1", b"b=2; HttpOnly"] == response.all("set-cookie")

    @pytest.mark.parametrize(
        ("path", "cookie", "expected"),
        [
            ("/jupyter/{}/x", "_xsrf=2|a=b|c; expires=Thu, 1 Jan 2099 00:00:00 GMT; Path=/jupyter/{}/", None),
            ("/jupyter/{}/x", "a=1; Secure; Path=/jupyter/{}/lab", None),
            ("/jupyter/{}/x", "a=1; Path=/; Secure", "a=1; Secure; Path=/jupyter/{}"),
            ("/jupyter/{}/x", "a=1; Path=/jupyter/1", "a=1; Path=/jupyter/{}"),
            ("/jupyter/{}/x", "a=1; pAtH = /", "a=1; Path=/jupyter/{}"),
            ("/jupyter/{}/x", "a=1; Domain=visa.test; SameSite=Lax", "a=1; SameSite=Lax"),
            ("/jupyter/{}", "a=1", "a=1; Path=/jupyter/{}"),
            ("/visafs/{}/x", "a=1; Path=/", "a=1; Path=/visafs/{}/"),
            ("/visafs/{}/x", "a=1; Path=/sub", "a=1; Path=/visafs/{}/sub"),
            ("/ws/print/{}/x", "io=1; Path=/socket.io/", "io=1; Path=/ws/print/{}/"),
            ("/ws/print/{}/x", "io=1; Path=/", "io=1; Path=/ws/print/{}"),
        ],
    )
    def test_95_cookies_stay_with_their_instance(
        self, wire: Wire, path: str, cookie: str, expected: str | None
    ) -> None:
        """Name and value are kept, the path lies within the route's public prefix, the domain goes."""
        number = str(wire.number)
        sent = cookie.replace("{}", number)
        wire.instance.answer(ok(b"ok", f"Set-Cookie: {sent}"))
        (seen,) = wire.ask(get(path.replace("{}", number), token=wire.token)).all("set-cookie")
        assert (sent if expected is None else expected.replace("{}", number)) == seen.decode()

    def test_95_a_cookie_of_nothing_but_semicolons(self, wire: Wire) -> None:
        """It keeps nobody waiting: what is behind the thirty-second attribute is dropped."""
        wire.instance.answer(ok(b"ok", "Set-Cookie: a=1; Secure" + ";" * 60_000 + " Path=/"))
        (seen,) = wire.ask(wire.get("/x")).all("set-cookie")
        assert b"a=1; Secure" + b";" * 31 == seen

    @pytest.mark.parametrize(
        "field",
        [
            'Clear-Site-Data: "cookies"',
            'NEL: {"report_to":"x","max_age":9}',
            'Report-To: {"group":"x","endpoints":[{"url":"https://evil.test"}]}',
            'Secure-Session-Registration: (ES256);path="/jupyter/12/register"',
            "Service-Worker-Allowed: /",
            "Strict-Transport-Security: max-age=9; includeSubDomains",
            "X-Accel-Redirect: /internal/secret",
            "X-Accel-Expires: 86400",
            "X-Accel-Limit-Rate: 1",
            "X-Accel-Charset: utf-7",
            "X-Accel-Anything-To-Come: x",
            "X-LIGHTTPD-send-file: /etc/passwd",
            "X-LIGHTTPD-send-tempfile: /etc/passwd",
            "X-Reproxy-URL: http://10.0.0.1/secret",
            "X-Sendfile: /etc/passwd",
            "X-Sendfile2: /etc/passwd 0-",
        ],
    )
    @pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
    def test_95_an_instance_does_not_speak_for_the_site(
        self, wire: Wire, field: str, websocket: bool
    ) -> None:
        """What would change what browsers do with all of VISA's site, or open the front proxy, is dropped."""
        if websocket:
            wire.instance.play(lambda connection: _accept(connection, field, "X: y"))
        else:
            wire.instance.answer(ok(b"ok", field, "X: y"))
        response = wire.ask((upgrade if websocket else get)(wire.path("/x"), token=wire.token))
        assert ([], [b"y"]) == (response.all(field.partition(":")[0]), response.all("x"))

    def test_95_an_instance_may_ask_not_to_be_buffered(self, wire: Wire) -> None:
        """That is about this one response: event streams need it behind nginx."""
        wire.instance.answer(ok(b"ok", "X-Accel-Buffering: no"))
        assert b"no" == wire.ask(wire.get()).one("x-accel-buffering")

    @pytest.mark.parametrize(
        "path", ["/jupyter/{}/sw.js", "/jupyter/{}/a/sw.js", "/jupyter/{}.js", "/visafs/{}?sw.js"]
    )
    @pytest.mark.parametrize("said", ["Service-Worker-Allowed: /", "X: y"])
    def test_95_a_service_worker_stays_with_its_instance(self, wire: Wire, path: str, said: str) -> None:
        """Whatever the instance says, and wherever the script is: it controls no page but its instance's."""
        wire.instance.answer(ok(b"ok", said))
        target = path.format(wire.number)
        response = wire.ask(get(target, "Service-Worker: script", token=wire.token))
        scope = f"/{target.split('/')[1]}/{wire.number}/".encode()
        assert (200, scope) == (response.status, response.one("service-worker-allowed"))
        assert b"script" == wire.instance.requests[0].one("service-worker")

    @pytest.mark.parametrize(
        ("path", "location", "expected"),
        [
            ("/jupyter/{n}/x", "http://{host}:{port}/jupyter/{n}/lab?a=1#b", "/jupyter/{n}/lab?a=1#b"),
            ("/jupyter/{n}/x", "//{host}/jupyter/{n}/lab", "/jupyter/{n}/lab"),
            ("/jupyter/{n}/x", "http://localhost:8888/jupyter/{n}/lab", "/jupyter/{n}/lab"),
            ("/jupyter/{n}/x", "http://10.0.0.12:8888/x", "/x"),
            ("/jupyter/{n}/x", "/jupyter/{n}/lab", None),
            ("/jupyter/{n}/x", "lab", None),
            ("/jupyter/{n}/x", "?reset", None),
            ("/jupyter/{n}/x", "../{n}/lab", None),
            ("/jupyter/{n}/x", "https://visa.test/jupyter/{n}/lab", None),
            ("/jupyter/{n}/x", "https://orcid.org/oauth?next=http://{host}", None),
            ("/visafs/{n}/a", "/b?c=1", "/visafs/{n}/b?c=1"),
            ("/visafs/{n}/a", "http://{host}:{port}/b", "/visafs/{n}/b"),
            ("/visafs/{n}/a", "/visafs/{n}/b", None),
            ("/visafs/{n}", "/b", None),
            ("/ws/print/{n}/a", "/socket.io/b", "/ws/print/{n}/b"),
            ("/visafs/{n}/a", "/../../jupyter/1", "/visafs/{n}/jupyter/1"),
            ("/visafs/{n}/a", "../../jupyter/1", "/visafs/{n}/jupyter/1"),
            ("/visafs/{n}/a", "/visafs/{n}/%2e%2E/b", "/visafs/{n}/visafs/b"),
            ("/jupyter/{n}/x", "/../../jupyter/1", None),
            ("/jupyter/{n}/x", "http://127.0.0.012:8888/x", "/x"),
            ("/jupyter/{n}/x", "http://2130706444/x", "/x"),
            ("/jupyter/{n}/x", "//0x7f.1/x", "/x"),
            ("/jupyter/{n}/x", "http://127.0.0.12:9999/x", "/x"),
        ],
    )
    @pytest.mark.parametrize("name", ["Location", "Content-Location"])
    def test_96_106_a_location_is_the_browsers(
        self, wire: Wire, name: str, path: str, location: str, expected: str | None
    ) -> None:
        """No internal address; a path comes back through the rewrite of this very request; else untouched."""
        names = {"n": wire.number, "host": wire.instance.host, "port": wire.instance.port}
        sent = location.format(**names)
        head = f"HTTP/1.1 302 Found\r\n{name}: {sent}\r\nContent-Length: 0\r\n\r\n"
        wire.instance.answer(head.encode())
        response = wire.ask(get(path.format(**names), token=wire.token))
        assert (302, (sent if expected is None else expected.format(**names)).encode()) == (
            response.status,
            response.one(name),
        )

    @pytest.mark.parametrize(
        ("path", "prefix"),
        [
            ("/visafs/{}/a", b"/visafs/{}"),
            ("/visafs/{}", None),
            ("/jupyter/{}/a", None),
            ("/ws/print/{}/a", None),
        ],
    )
    def test_106_what_was_cut_is_told(self, wire: Wire, path: str, prefix: bytes | None) -> None:
        """`X-Forwarded-Prefix` is what `pathRewrite` cut, whatever the client says of it."""
        target = path.format(wire.number)
        assert wire.ask(get(target, "X-Forwarded-Prefix: /evil", token=wire.token)).status == 200
        number = str(wire.number).encode()
        expected = prefix if prefix is None else prefix.replace(b"{}", number)
        assert expected == wire.instance.requests[0].one("x-forwarded-prefix")
