"""Which token a request carries, HTTP and WebSocket alike, and what the VISA API is asked of it."""

import base64
import json
from collections.abc import Callable

import pytest

from support.client import get, upgrade
from support.instance import Connection, ok, switching
from support.visa_api import Request
from wire.conftest import Wire

type Make = Callable[..., bytes]

both = pytest.mark.parametrize("make", [get, upgrade], ids=["http", "websocket"])


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _jwt(payload: bytes | dict[str, object], signature: str = "c2lnbmF0dXJl") -> str:
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return f"{_encoded(b'{"alg":"RS256"}')}.{_encoded(payload)}.{signature}"


def _serve(connection: Connection) -> None:
    """Accept WebSockets, answer everything else."""
    while True:
        request = connection.request()
        connection.send(ok() if request.one("upgrade") is None else switching(request))


class Questions:
    """What the API is asked from here on."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._before = len(wire.api.requests)

    @property
    def all(self) -> list[Request]:
        """Every request."""
        return self._wire.api.requests[self._before :]

    @property
    def tokens(self) -> list[str | None]:
        """The tokens that were asked about, in order."""
        return [request.token for request in self.all]


@pytest.fixture
def questions(wire: Wire) -> Questions:
    """Listen to what the API is asked."""
    wire.instance.play(_serve)
    return Questions(wire)


@both
class TestNone:
    """No credential, or one that is none."""

    @pytest.mark.parametrize("path", ["/jupyter/{}/x", "/visafs/{}/x", "/ws/print/{}/x"])
    def test_113_no_credential(self, wire: Wire, questions: Questions, make: Make, path: str) -> None:
        """401 with `WWW-Authenticate: Bearer` on every route; neither API nor instance hears of it."""
        response = wire.ask(make(path.format(wire.number)))
        assert (401, b"Bearer") == (response.status, response.one("www-authenticate"))
        assert ([], 0) == (questions.all, wire.instance.connections)

    @pytest.mark.parametrize(
        ("field", "status"),
        [
            ("Cookie: access_token=", 401),
            ("Cookie: access_token", 401),
            ("Cookie: =T", 401),
            ("Cookie: ={token}", 401),
            ("Cookie: ;;;", 401),
            ("Cookie:", 401),
            ("Cookie: ACCESS_TOKEN={token}", 401),
            ("Cookie: xaccess_token={token}", 401),
            ("Cookie: x=access_token={token}", 401),
            ("Cookie: a=1, access_token={token}", 401),
            ("Cookie: access_token={token}\0", 400),
            ("Cookie: access_token=\x01{token}", 400),
            ("Cookie: access_token={token}\x7f", 400),
            ("Cookie: a=\xe9; access_token={token}\xe9", 401),
            ("Cookie: access_token=" + "a" * 65536, 431),
            ("Cookie: access_token=" + "a" * 16384, 401),
            ("Authorization: Bearer " + "a" * 16384, 401),
            ("Cookie: access_token=" + _jwt(b"[" * 10_000), 401),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_126_129_no_token(
        self, wire: Wire, questions: Questions, make: Make, field: str, status: int
    ) -> None:
        """Refused for what it is, never a 500; the API is not asked."""
        assert status == wire.ask(make(wire.path(), field.replace("{token}", wire.token))).status
        assert ([], 0) == (questions.all, wire.instance.connections)

    @pytest.mark.parametrize("rest", ["?token={}", "?access_token={}", "?x=1&access_token={}", ";token={}"])
    def test_128_a_token_in_the_target(self, wire: Wire, questions: Questions, make: Make, rest: str) -> None:
        """It is no credential (RFC 6750 2.3 advises against it), and no query reaches the log."""
        secret = f"eyJ0.c2VjcmV0-{wire.number}.c2ln"
        wire.api.user(secret, f"user-{wire.number}")
        response = wire.ask(make(wire.path("/x") + rest.format(secret)))
        assert 401 == response.status
        request_id = (response.one("x-request-id") or b"").decode()
        wire.proxy.wait(lambda: [r for r in wire.proxy.records("request") if r["request_id"] == request_id])
        assert secret not in wire.proxy.log.read_text()
        assert ([], 0) == (questions.all, wire.instance.connections)

    @pytest.mark.parametrize(
        "value",
        [
            "a%0d%0aX-Evil:%201.{payload}.sig",
            "{token}%0d%0aX-Evil:%201",
            "{token}%20",
            "%22{token}%22",
            "{token}, x",
            "{token}\\r\\nX-Evil:1",
            '"{token}"',
            "'{token}'",
        ],
    )
    def test_124_125_what_would_have_to_be_decoded(
        self, wire: Wire, questions: Questions, make: Make, value: str
    ) -> None:
        """A cookie's value is taken as it stands, neither decoded nor unquoted: this is no token."""
        cookie = value.replace("{token}", wire.token).replace("{payload}", _encoded(b'{"sub":"x"}'))
        assert 401 == wire.ask(make(wire.path(), f"Cookie: access_token={cookie}")).status
        assert ([], 0) == (questions.all, wire.instance.connections)


@both
class TestWhichDecides:
    """One rule for all: a Bearer value, if present, decides alone; otherwise the cookie does."""

    @pytest.mark.parametrize(
        ("fields", "status", "asked"),
        [
            (["Authorization: Bearer {bad}", "Cookie: access_token={token}"], 401, ["{bad}"]),
            (["Authorization: Bearer {token}", "Cookie: access_token={bad}"], 200, ["{token}"]),
            (["Authorization: Bearer", "Cookie: access_token={token}"], 401, []),
            (["Authorization: token {bad}", "Cookie: access_token={token}"], 200, ["{token}"]),
            (["Authorization: Bearer {token}", "Cookie: access_token=a; access_token=b"], 200, ["{token}"]),
        ],
        ids=repr,
    )
    def test_120_bearer_before_cookie(
        self,
        wire: Wire,
        questions: Questions,
        make: Make,
        *,
        fields: list[str],
        status: int,
        asked: list[str],
    ) -> None:
        """The API is asked about the one that decides, and about nothing else."""
        names = {"token": wire.token, "bad": f"bad-{wire.number}"}
        response = wire.ask(make(wire.path(), *(field.format(**names) for field in fields)))
        assert (101 if status == 200 and make is upgrade else status) == response.status
        assert [token.format(**names) for token in asked] == questions.tokens

    @pytest.mark.parametrize(
        "fields",
        [
            ["Bearer {}", "Bearer {}"],
            ["Bearer {}", "Bearer other"],
            ["Bearer {}", "token jupyter"],
            ["token jupyter", "Bearer {}"],
            ["", "Bearer {}"],
        ],
        ids="|".join,
    )
    def test_121_two_authorization_fields(
        self, wire: Wire, questions: Questions, make: Make, fields: list[str]
    ) -> None:
        """400: the field is no list (RFC 9110 5.3), and servers differ in which one they take."""
        lines = [f"Authorization: {value.format(wire.token)}" for value in fields]
        assert 400 == wire.ask(make(wire.path(), *lines)).status
        assert ([], 0) == (questions.all, wire.instance.connections)

    @pytest.mark.parametrize(
        "value", ["Bearer {}", "bEaReR {}", "BEARER {}", "Bearer    {}", "Bearer {} \t "]
    )
    def test_122_a_bearer_value(self, wire: Wire, questions: Questions, make: Make, value: str) -> None:
        """The scheme in any case, one or more spaces; no white space reaches the API (RFC 9110 11.4)."""
        response = wire.ask(make(wire.path(), f"Authorization: {value.format(wire.token)}"))
        assert response.status in (101, 200)
        (request,) = questions.all
        assert f"Bearer {wire.token}" == request.headers["Authorization"]

    @pytest.mark.parametrize(
        "value",
        [
            "Bearer",
            "Bearer ",
            "Bearer\t{}",
            "Bearer \t{}",
            "Bearer {}, Bearer x",
            "Bearer {},x",
            "Bearer {} x",
            'Bearer "{}"',
            "Bearer,{}",
            "Bearer={}",
            "Bearer {}\xa0",
            "Bearer \xc3\xa9",
            "Bearer {}\xc3\xa9",
        ],
        ids=repr,
    )
    def test_122_129_no_bearer_value(self, wire: Wire, questions: Questions, make: Make, value: str) -> None:
        """A tab, several tokens, none, or letters that no token has: 401, and the cookie does not help."""
        fields = (f"Authorization: {value.format(wire.token)}", f"Cookie: access_token={wire.token}")
        assert 401 == wire.ask(make(wire.path(), *fields)).status
        assert ([], 0) == (questions.all, wire.instance.connections)

    @pytest.mark.parametrize(
        "cookies",
        [
            ["access_token=bad; access_token={}"],
            ["access_token={}; access_token=bad"],
            ["access_token={}", "access_token=bad"],
            ["access_token=bad", "access_token={}"],
            ["access_token={}; access_token="],
            ["access_token; access_token={}"],
        ],
        ids="|".join,
    )
    def test_123_cookies_that_differ(
        self, wire: Wire, questions: Questions, make: Make, cookies: list[str]
    ) -> None:
        """401 in every order: nobody can plant a token beside the user's."""
        lines = [f"Cookie: {cookie.format(wire.token)}" for cookie in cookies]
        assert 401 == wire.ask(make(wire.path(), *lines)).status
        assert ([], 0) == (questions.all, wire.instance.connections)

    def test_123_the_same_cookie_twice(self, wire: Wire, questions: Questions, make: Make) -> None:
        """One value in two places is one token."""
        lines = [f"Cookie: access_token={wire.token}"] * 2
        assert wire.ask(make(wire.path(), *lines)).status in (101, 200)
        assert [wire.token] == questions.tokens


class TestWhoseWord:
    """Only the API's word counts, for each whole token and instance; nothing that a token says of itself."""

    @both
    def test_114_a_forged_token(self, wire: Wire, questions: Questions, make: Make) -> None:
        """While the owner's grant is cached, the same claims under another signature are asked about: 401."""
        claims: dict[str, object] = {"sub": "owner", "employeeNumber": wire.number, "exp": 4e9}
        genuine, forged = _jwt(claims), _jwt(claims, "Zm9yZ2Vk")
        wire.api.user(genuine, f"user-{wire.number}")
        assert wire.ask(make(wire.path("/1"), token=genuine)).status in (101, 200)
        response = wire.ask(make(wire.path("/2"), token=forged))
        assert (401, b'Bearer error="invalid_token"') == (response.status, response.one("www-authenticate"))
        assert wire.ask(make(wire.path("/3"), token=genuine)).status in (101, 200)
        assert [genuine, forged] == questions.tokens
        assert [b"/1", b"/3"] == [request.target[-2:] for request in wire.instance.requests]

    @both
    def test_116_users_without_employee_number(self, wire: Wire, questions: Questions, make: Make) -> None:
        """Two tokens without it are two users: the other's cached instance is 404."""
        mine, other = _jwt({"sub": f"a{wire.number}"}), _jwt({"sub": f"b{wire.number}"})
        wire.api.user(mine, f"user-{wire.number}")
        wire.api.user(other, "somebody-else")
        assert wire.ask(make(wire.path(), token=mine)).status in (101, 200)
        assert 404 == wire.ask(make(wire.path(), token=other)).status
        assert ([mine, other], 1) == (questions.tokens, len(wire.instance.requests))

    @both
    def test_116_one_grant_is_for_one_instance(self, wire: Wire, questions: Questions, make: Make) -> None:
        """A token that is good for one instance is asked about anew for the next."""
        wire.api.instance(wire.number + 200_000, owner="somebody-else", ip=wire.instance.host)
        assert wire.ask(make(wire.path(), token=wire.token)).status in (101, 200)
        assert 404 == wire.ask(make(f"/jupyter/{wire.number + 200_000}/x", token=wire.token)).status
        assert ([wire.token] * 2, 1) == (questions.tokens, len(wire.instance.requests))

    @both
    @pytest.mark.parametrize("role", ["USER", "GUEST", "SUPPORT"])
    def test_116_only_the_owner(self, wire: Wire, make: Make, role: str) -> None:
        """404 for whoever else is a member, as the API says."""
        token = f"member-{wire.number}"
        wire.api.user(token, token)
        wire.api.member(wire.number, token, role)
        assert 404 == wire.ask(make(wire.path(), token=token)).status
        assert 0 == wire.instance.connections

    @pytest.mark.parametrize("token", ["abc123", "~._-+/=", "a.b", "a.b.c", "eyJ.eyJ.eyJ", "..", "a..b"])
    def test_117_an_opaque_token(self, wire: Wire, questions: Questions, token: str) -> None:
        """What the API accepts is good, whatever it looks like."""
        wire.api.user(token, f"user-{wire.number}")
        assert 200 == wire.ask(get(wire.path(), token=token)).status
        assert [token] == questions.tokens

    @pytest.mark.parametrize("change", ["{}=", "{}==", "{}.", ".{}", "{0}{0}", "trailing bits", "case"])
    def test_119_nearly_the_same_token(self, wire: Wire, questions: Questions, change: str) -> None:
        """A spelling that some decoder takes for the same token is another one: the API is asked about it."""
        token = _jwt({"sub": f"x{wire.number}"}, "QQ")
        changed = {"trailing bits": token[:-1] + "R", "case": token.swapcase()}.get(change)
        changed = changed or change.format(token)
        wire.api.user(token, f"user-{wire.number}")
        assert 200 == wire.ask(get(wire.path(), token=token)).status
        assert 401 == wire.ask(get(wire.path(), token=changed)).status
        assert ([token, changed], 1) == (questions.tokens, len(wire.instance.requests))

    @pytest.mark.parametrize(
        "field", ["Cookie: access_token= {} ", "Authorization: Bearer {}\t ", "Cookie:{}"]
    )
    def test_119_white_space_is_no_part_of_it(self, wire: Wire, questions: Questions, field: str) -> None:
        """Around a value it means nothing (RFC 9110 5.5): the same token, the same grant."""
        assert 200 == wire.ask(wire.get()).status
        value = wire.token if "=" in field or "Bearer" in field else f"access_token={wire.token}"
        assert 200 == wire.ask(get(wire.path(), field.format(value))).status
        assert [wire.token] == questions.tokens


@both
@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"a","exp":' + b"[" * 2900 + b"]" * 2900 + b"}",
        b"[" * 5900,
        b'{"x":' + b"[" * 2900 + b"]" * 2900 + b"}",
        b'{"x":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
        b'{"sub":"a","sub":"b","exp":1,"exp":4000000000}',
        b'{"exp":NaN,"sub":"a"}',
        b'{"exp":Infinity}',
        b'{"exp":1e999}',
        b'{"exp":-1e308}',
        b'{"exp":"4000000000"}',
        b'{"exp":null,"sub":null}',
        b'{"exp":true}',
        b'{"sub":{"a":1}}',
        b'{"sub":""}',
        b'{"sub":"\\ud800"}',
        b'{"sub":"\\u0000\\n\\u001b[2J\\u202e"}',
        b'{"sub":"' + b"a" * 5000 + b'"}',
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b"1" * 5000,
        b"",
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_129_claims_that_are_none(wire: Wire, questions: Questions, make: Make, payload: bytes) -> None:
    """Whatever a payload says, the API decides: 401 before it accepts the token, served once it does."""
    refused, accepted = _jwt(payload, f"n{wire.number}"), _jwt(payload, f"y{wire.number}")
    channel = wire.path("/api/kernels/0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b/channels?session_id=s")
    assert 401 == wire.ask(make(channel, token=refused)).status
    wire.api.user(accepted, f"user-{wire.number}")
    assert wire.ask(make(channel, token=accepted)).status in (101, 200)
    assert [refused, accepted] == [request.token for request in questions.all if request.method == "GET"]
