"""Routes: which target goes where, and what is said about a proxy.conf.json that is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_jupyter_proxy.errors import BadRequest, NoRoute
from visa_jupyter_proxy.routes import ConfigurationError, Match, Rewrite, Route, Router, load
from visa_jupyter_proxy.routes.javascript import Replacement, groups

_ROOT = Path(__file__).parent.parent
_SHIPPED = _ROOT / "src" / "visa_jupyter_proxy" / "proxy.conf.json"
_SERVICE = {"match": r"^/x/(\d+)", "type": "service", "name": "X", "remotePort": 8000}


@pytest.fixture(scope="module")
def router() -> Router:
    """Return the router of the file that is shipped."""
    return Router(load(_SHIPPED))


def _route(**fields: Any) -> Route:
    plain: dict[str, Any] = {"match": r"^/x/(\d+)", "type": "service", "name": "X", "remote_port": 8000}
    return Route(**(plain | fields))


def _found(routes: list[Route], target: bytes, *, websocket: bool = False) -> Match:
    return Router(routes).match(target, websocket=websocket)


class TestTargets:
    """A target goes to one route and one instance, as it came (cases 97 to 108)."""

    @pytest.mark.parametrize(
        "target",
        [
            b"/jupyter/12/a//b///c?x=//y",
            b"/jupyter/12/a%2Fb",
            b"/jupyter/12/a%20b",
            b"/jupyter/12/@;p=1+~",
            b"/jupyter/12/a?",
            b"/jupyter/12/%41",
            b"/jupyter/12/http:/x",
            b"/jupyter/12/%0d%0aX-Evil:%201",
            b"/jupyter/12/?%0d%0aX-Evil:%201",
        ],
    )
    def test_97_107_a_target_without_rewrite_is_sent_byte_for_byte(
        self, router: Router, target: bytes
    ) -> None:
        """Nothing is decoded, merged or normalised."""
        match = router.match(target, websocket=False)
        assert (12, target, b"/jupyter/12") == (match.instance_id, match.target, match.prefix)

    @pytest.mark.parametrize("target", [b"/jupyter/12", b"/jupyter/12?x=1", b"/jupyter/12/"])
    def test_98_nothing_has_to_follow_the_id(self, router: Router, target: bytes) -> None:
        """All of these are instance 12."""
        match = router.match(target, websocket=False)
        assert (12, target, b"/jupyter/12") == (match.instance_id, match.target, match.prefix)

    @pytest.mark.parametrize(
        "target",
        [
            b"/jupyter/12abc/x",
            b"/jupyter/12%20/x",
            b"/jupyter/12;x/y",
            b"/jupyter/12..;/13/",
            b"/jupyter/12%00/x",
        ],
    )
    def test_99_the_pattern_of_the_route_decides_where_the_id_ends(
        self, router: Router, target: bytes
    ) -> None:
        """The shipped pattern takes these for 12, as the original; the path stays as it came."""
        match = router.match(target, websocket=False)
        assert (12, target) == (match.instance_id, match.target)

    @pytest.mark.parametrize(
        "target",
        [
            b"/jupyter/0012/x",
            b"/jupyter/0/x",
            b"/jupyter/+12/x",
            b"/jupyter/-1/x",
            b"/jupyter/%D9%A1%D9%A2/x",
            b"/jupyter/%EF%BC%91/x",
        ],
    )
    def test_100_an_id_is_ascii_digits_without_a_leading_zero(self, router: Router, target: bytes) -> None:
        """One instance has one spelling."""
        with pytest.raises(NoRoute):
            router.match(target, websocket=False)

    @pytest.mark.parametrize("digit", ["\u0661", "\uff11", "\xb2"])
    def test_100_digits_of_other_scripts_as_raw_bytes_are_no_request(
        self, router: Router, digit: str
    ) -> None:
        """Bytes beyond ASCII are no part of a target (RFC 3986 2)."""
        with pytest.raises(BadRequest):
            router.match(f"/jupyter/{digit}/x".encode(), websocket=False)

    @pytest.mark.parametrize("number", [1, 2**53 + 1, 2**63 - 1])
    def test_101_the_id_is_exact(self, router: Router, number: int) -> None:
        """Ids beyond what a JavaScript number holds are not rounded."""
        assert number == router.match(b"/jupyter/%d/x" % number, websocket=False).instance_id

    @pytest.mark.parametrize("digits", [str(2**63), "1" + "0" * 22, "1" * 5000])
    def test_101_an_id_beyond_a_bigint_is_none(self, router: Router, digits: str) -> None:
        """No question to the API comes of it, nor an error of Python about long numbers."""
        with pytest.raises(NoRoute):
            router.match(f"/jupyter/{digits}/x".encode(), websocket=False)

    @pytest.mark.parametrize(
        "target",
        [b"/%6aupyter/12/x", b"/jupyter%2f12/x", b"/JUPYTER/12/x", b"/%4aupyter/12/x", b"//jupyter/12/x"],
    )
    def test_104_105_an_encoded_or_doubled_spelling_is_no_route(self, router: Router, target: bytes) -> None:
        """A pattern is matched with the raw target."""
        with pytest.raises(NoRoute):
            router.match(target, websocket=False)

    @pytest.mark.parametrize("target", [b"/", b"/nope", b"/jupyter/", b"/jupyter/abc", b"*", b"", b"?"])
    def test_108_what_no_pattern_matches_is_no_route(self, router: Router, target: bytes) -> None:
        """Every other target is refused, the empty one too."""
        with pytest.raises(NoRoute):
            router.match(target, websocket=False)

    def test_a_group_that_took_no_part_is_no_id(self) -> None:
        """A pattern may match although its first group does not."""
        with pytest.raises(NoRoute):
            _found([_route(match=r"^/x/(\d+)?")], b"/x/")

    def test_the_id_is_the_first_group_whatever_its_name(self) -> None:
        """Named groups count like others."""
        match = _found([_route(match=r"^/(?:a|b)/(?<id>\d+)/(\d+)")], b"/b/3/4")
        assert (3, b"/b/3") == (match.instance_id, match.prefix)

    def test_a_prefix_ends_with_the_path(self) -> None:
        """An id in the query is no path that a cookie could have."""
        match = _found([_route(match=r"^/x\?id=(\d+)")], b"/x?id=5&a")
        assert (5, b"/x") == (match.instance_id, match.prefix)


_DOT_SEGMENTS = [
    *("..", "%2e%2e", "%2E%2e", ".%2e", "%2e.", "%252e%252e", "%252E.", "%c0%ae%c0%ae", "%C0%AE.", "."),
    *("%25c0%25ae.", "%e0%80%ae.", "%%32%65.", "%25%32%65%252e", "%2e", "%252e"),
]


class TestDotSegments:
    """Whatever some server could take for a dot segment is refused (cases 103, 105, 111)."""

    @pytest.mark.parametrize("dots", _DOT_SEGMENTS)
    @pytest.mark.parametrize(
        "around",
        [
            "/jupyter/12/{}/13/api",
            "/jupyter/12/{}",
            "/jupyter/12/{}?x",
            "/jupyter/12/{}%2f13",
            "/jupyter/12/{}%252F13",
            "/jupyter/12/{}\\13",
            "/jupyter/12\\{}\\13",
            "/jupyter/12%5c{}%5C13",
            "/jupyter/12/{};/13",
            "/jupyter/12/{};a=b/13",
            "/jupyter/12/a;{}/13",
            "/jupyter/12/{}%3b/13",
            "/jupyter/12%c0%af{}%c1%9c13",
            "/{}/jupyter/12/x",
            "/jupyter/{}/metrics",
        ],
    )
    def test_103_105_111_in_the_path_it_is_a_bad_request(
        self, router: Router, around: str, dots: str
    ) -> None:
        """Plain, encoded once or twice, overlong, mixed; with every separator; a route or none."""
        with pytest.raises(BadRequest):
            router.match(around.format(dots).encode(), websocket=False)

    @pytest.mark.parametrize("dots", _DOT_SEGMENTS)
    def test_103_in_the_query_it_means_nothing(self, router: Router, dots: str) -> None:
        """Files are named in queries."""
        target = f"/jupyter/12/x?path=/{dots}/y&z=a/{dots}".encode()
        assert target == router.match(target, websocket=False).target

    @pytest.mark.parametrize(
        "segment",
        ["a..b", "...", ".hidden", "x.y", "..x", "x..", ".ipynb_checkpoints", "%2ehidden", "a%2e", "x;v=1.0"],
    )
    def test_dots_within_a_name_are_fine(self, router: Router, segment: str) -> None:
        """Only a segment of one or two dots has a meaning (RFC 3986 3.3)."""
        for target in (f"/jupyter/12/{segment}/x".encode(), f"/jupyter/12/{segment}".encode()):
            assert target == router.match(target, websocket=False).target

    def test_81_a_long_path_is_checked_in_proportion(self, router: Router) -> None:
        """Ten thousand encoded segments are refused, ten thousand encoded names are not."""
        with pytest.raises(BadRequest):
            router.match(b"/jupyter/12/" + b"%2e%2e/" * 10_000, websocket=False)
        long = b"/jupyter/12/" + b"%2ea/" * 10_000
        assert long == router.match(long, websocket=False).target

    def test_a_rewrite_cannot_make_one(self) -> None:
        """The two halves of a dot segment may meet where a rule takes something away."""
        routes = [_route(path_rewrite=(Rewrite(r"^/x/\d+/a\.", "/."),))]
        assert b"/.b" == _found(routes, b"/x/1/a.b").target
        with pytest.raises(BadRequest):
            _found(routes, b"/x/1/a../b")

    @given(st.text("./\\;%2e5cfab", max_size=12))
    def test_no_path_that_resolves_upwards_passes(self, tail: str) -> None:
        """Decoded twice by brute force, no segment of a path that is let through is `.` or `..`."""
        try:
            target = _found([_route()], f"/x/1/{tail}".encode()).target.decode()
        except BadRequest:
            return
        for _ in range(2):
            target = "".join(_unescaped(target))
        assert not {".", ".."} & set(target.replace("\\", "/").replace(";", "/").split("/"))


def _unescaped(text: str) -> list[str]:
    characters = list(text)
    for at in range(len(text) - 2):
        digits = text[at + 1 : at + 3]
        if characters[at] == "%" and all(c in "0123456789abcdef" for c in digits):
            characters[at : at + 3] = [chr(int(digits, 16)), "", ""]
    return characters


class TestWebSockets:
    """For an upgrade, the first route with `ws` (contract section 1)."""

    def test_the_first_route_with_ws_wins(self) -> None:
        """A route without `ws` before it is passed over."""
        routes = [_route(name="http"), _route(name="first", ws=True), _route(name="second", ws=True)]
        assert "first" == _found(routes, b"/x/1", websocket=True).route.name
        assert "http" == _found(routes, b"/x/1").route.name

    def test_without_one_the_first_match_is_returned(self) -> None:
        """The caller sees by `ws` that the request is plain HTTP."""
        routes = [_route(name="a"), _route(name="b"), _route(name="other", match=r"^/y/(\d+)", ws=True)]
        assert ("a", False) == (
            _found(routes, b"/x/1", websocket=True).route.name,
            _found(routes, b"/x/1", websocket=True).route.ws,
        )


class TestRewrites:
    """`pathRewrite`: the first rule that matches, once (case 106)."""

    @pytest.mark.parametrize(
        ("target", "sent"),
        [
            (b"/visafs/12/a", b"/a"),
            (b"/visafs/12", b"/visafs/12"),
            (b"/visafs/12?x", b"/visafs/12?x"),
            (b"/visafs/12//evil.com/x", b"//evil.com/x"),
            (b"/visafs/12/api/files//x?a=/visafs/12/", b"/api/files//x?a=/visafs/12/"),
            (b"/visafs/12/%0d%0aX-Evil:%201", b"/%0d%0aX-Evil:%201"),
            (b"/ws/print/12/?EIO=4&transport=websocket", b"/socket.io/?EIO=4&transport=websocket"),
        ],
    )
    def test_106_107_the_shipped_rules(self, router: Router, target: bytes, sent: bytes) -> None:
        """What the original sends, without its merging of slashes; the prefix stays the public one."""
        match = router.match(target, websocket=False)
        assert (12, sent) == (match.instance_id, match.target)
        assert target.startswith(match.prefix)

    def test_only_the_first_rule_that_matches_is_applied(self) -> None:
        """What it makes is not looked at again."""
        rules = (Rewrite("^/nope", "/0"), Rewrite(r"^/x/\d+", "/y"), Rewrite("^/y", "/z"))
        assert b"/y/a" == _found([_route(path_rewrite=rules)], b"/x/1/a").target

    def test_a_rule_may_use_what_it_matched(self) -> None:
        """Replacements are JavaScript's."""
        rules = (Rewrite(r"^/x/(\d+)/(?<rest>.*)$", "/$<rest>?id=$1"),)
        assert b"/a/b?id=7" == _found([_route(path_rewrite=rules)], b"/x/7/a/b").target

    @pytest.mark.parametrize(("target", "sent"), [(b"/x/1", b"/"), (b"/x/1?q", b"/?q"), (b"/x/1/a", b"/a")])
    def test_a_target_begins_with_a_slash_whatever_a_rule_leaves(self, target: bytes, sent: bytes) -> None:
        """An origin-form target does (RFC 9112 3.2.1)."""
        assert sent == _found([_route(path_rewrite=(Rewrite(r"^/x/\d+/?", ""),))], target).target


class TestJavaScript:
    """ECMA-262 GetSubstitution; each expected value is node's."""

    @pytest.mark.parametrize(
        ("pattern", "template", "text", "replaced"),
        [
            ("b", "[$$]", "abc", "a[$]c"),
            ("b", "[$&]", "abc", "a[b]c"),
            ("b", "[$`|$']", "abc", "a[a|c]c"),
            ("(b)(c)", "$2$1", "abcd", "acbd"),
            ("(b)", "$0$00$01$1", "abc", "a$0$00bbc"),
            ("(b)", "$10$2$12", "abc", "ab0$2b2c"),
            ("(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)", "$10-$11-$100", "abcdefghij", "j-a1-j0"),
            ("(?<x>a)|(?<y>b)", "[$<y>$<x>$<nope>$2]", "b", "[bb]"),
            ("(?<x>a)", "$<x", "a", "$<x"),
            ("(a)", "$<x>$<$1>", "a", "$<x>$<a>"),
            ("(?<x>a)", "$<$1>", "a", ""),
            ("(a)|(z)", "[$2]", "a", "[]"),
            ("", "-", "ab", "-ab"),
            ("a", "$", "aa", "$a"),
            (r"\d+", "n", "x12y34", "xny34"),
            (r"[(](a)", "$1", "(a", "a"),
            (r"[\](](a)[]|((?<!z)b)", "$1$2", "b", "b"),
        ],
    )
    def test_replacing(self, pattern: str, template: str, text: str, replaced: str) -> None:
        """Every `$` form, and every way in which it stays literal."""
        done = Replacement(pattern, template).apply(text)
        assert done is not None
        assert replaced == done.text

    def test_no_match_is_none(self) -> None:
        """So that the next rule is tried."""
        assert Replacement("x", "y").apply("abc") is None

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("", ()),
            (r"\(a\)", ()),
            ("[(]", ()),
            (r"[\](]", ()),
            ("(?:a)(?=b)(?!c)(?<=d)(?<!e)", ()),
            ("((a)(?<n>b))", (None, None, "n")),
            (r"[]((a)", (None,) * 2),
            (r"\\(a)", (None,)),
        ],
    )
    def test_groups_are_counted_as_javascript_counts_them(
        self, pattern: str, found: tuple[str | None, ...]
    ) -> None:
        """Escapes and classes hold no group; lookarounds are none."""
        assert found == groups(pattern)


class TestPlaceholders:
    """Which of the API's values are kept."""

    def test_the_names_of_all_routes_are_known(self) -> None:
        """Nothing else of the API's answer needs to be kept."""
        routes = [
            _route(set_headers=(("x-auth-token", "{computeId}"), ("x-who", "{owner}@{id}"))),
            _route(),
        ]
        assert {"computeId", "owner", "id"} == Router(routes).placeholders

    def test_there_may_be_none(self, router: Router) -> None:
        """The shipped routes ask for nothing."""
        assert frozenset() == router.placeholders


def _written(folder: Path, document: object) -> Path:
    path = folder / "proxy.conf.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _mistakes(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert "\n".join(caught.value.mistakes) == str(caught.value)
    return caught.value.mistakes


class TestFiles:
    """What is read from a file that is right."""

    @pytest.mark.parametrize("path", [_SHIPPED, _ROOT / "examples" / "original" / "proxy.conf.json"])
    def test_the_three_services_of_production(self, path: Path) -> None:
        """Contract section 1, shipped and as the original has it."""
        assert [
            (r"^/jupyter/(\d+).*", "jupyter", "Jupyter", 8888, True, ()),
            (
                r"^/visafs/(\d+).*",
                "service",
                "Visa Files",
                8090,
                False,
                (Rewrite(r"^/visafs/\d+/", "/"),),
            ),
            (
                r"^/ws/print/(\d+).*",
                "service",
                "Visa Printing",
                8091,
                True,
                (Rewrite(r"^/ws/print/\d+/", "/socket.io/"),),
            ),
        ] == [(r.match, r.type, r.name, r.remote_port, r.ws, r.path_rewrite) for r in load(path)]

    def test_defaults(self, tmp_path: Path) -> None:
        """A key that is not there has the value of the original."""
        assert (Route(match=r"^/x/(\d+)", type="service", name="X", remote_port=8000),) == load(
            _written(tmp_path, [_SERVICE])
        )

    def test_the_new_keys(self, tmp_path: Path) -> None:
        """Each reaches its field; `remoteCa` is relative to the file."""
        (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        new = {
            "remoteScheme": "https",
            "remoteCa": "ca.pem",
            "setHeaders": {"x-auth-token": "{computeId}", "Authorization": "token {id}"},
            "stripCredentials": False,
        }
        (route,) = load(_written(tmp_path, [_SERVICE | new]))
        assert ("https", str(tmp_path / "ca.pem"), True) == (
            route.remote_scheme,
            route.remote_ca,
            route.remote_verify,
        )
        assert (("x-auth-token", "{computeId}"), ("Authorization", "token {id}")) == route.set_headers
        assert not route.strip_credentials

    def test_verification_can_be_switched_off_in_writing(self, tmp_path: Path) -> None:
        """Only with `remoteVerify: false`."""
        unverified = _SERVICE | {"remoteScheme": "https", "remoteVerify": False}
        assert not load(_written(tmp_path, [unverified]))[0].remote_verify


class TestMistakes:
    """Every mistake has its place and its remedy (case 231)."""

    @pytest.mark.parametrize(
        ("changes", "where", "said"),
        [
            ({"remoteport": 1}, "$[0].remoteport", "write `remotePort`"),
            ({"a b": 1}, '$[0]["a b"]', "the known ones are match, type"),
            ({"match": r"^/x/\d+"}, "$[0].match", "has no group"),
            ({"match": r"^/x/(?:\d+)"}, "$[0].match", "has no group"),
            ({"match": "(("}, "$[0].match", "no JavaScript regular expression: Unbalanced parenthesis"),
            ({"match": 5}, "$[0].match", "is a number: write a text in double quotes"),
            ({"match": "(\ud800)"}, "$[0].match", 'has half a character: "(\\ud800)": write both halves'),
            ({"name": "\udfff"}, "$[0].name", "has half a character"),
            ({"type": "jupiter"}, "$[0].type", 'is "jupiter": write `jupyter`'),
            ({"type": "x"}, "$[0].type", "the known ones are jupyter, service"),
            ({"name": " "}, "$[0].name", "write a name"),
            ({"name": "a\nb"}, "$[0].name", "write a name"),
            (
                {"remotePort": 70000},
                "$[0].remotePort",
                "70000 is no port: write a whole number from 1 to 65535",
            ),
            ({"remotePort": 0}, "$[0].remotePort", "0 is no port"),
            ({"remotePort": "8888"}, "$[0].remotePort", "is a text: write a whole number from 1 to 65535"),
            ({"remotePort": True}, "$[0].remotePort", "is true or false: write a whole number"),
            ({"remotePort": 1.5}, "$[0].remotePort", "write a whole number"),
            ({"ws": "true"}, "$[0].ws", "is a text: write true or false, without quotes"),
            ({"stripCredentials": None}, "$[0].stripCredentials", "is null: write true or false"),
            ({"pathRewrite": []}, "$[0].pathRewrite", "is an array: write an object"),
            ({"pathRewrite": {"(": "/"}}, '$[0].pathRewrite["("]', "no JavaScript regular expression"),
            ({"pathRewrite": {"^/x": 1}}, '$[0].pathRewrite["^/x"]', "is a number: write a text"),
            ({"pathRewrite": {"^/x": "/a b"}}, '$[0].pathRewrite["^/x"]', "visible ASCII"),
            ({"pathRewrite": {"^/x": "/a#b"}}, '$[0].pathRewrite["^/x"]', "without `#`"),
            ({"remoteScheme": "htps"}, "$[0].remoteScheme", "write `https`"),
            ({"remoteVerify": False}, "$[0].remoteVerify", 'needs `"remoteScheme": "https"`'),
            ({"remoteCa": "/dev/null"}, "$[0].remoteCa", 'needs `"remoteScheme": "https"`'),
            ({"remoteScheme": "https", "remoteCa": "no.pem"}, "$[0].remoteCa", "No such file"),
            ({"remoteScheme": "https", "remoteCa": "/dev/null"}, "$[0].remoteCa", "holds no certificate"),
            (
                {"remoteScheme": "https", "remoteCa": "/dev/null", "remoteVerify": False},
                "$[0].remoteCa",
                "is not used with `remoteVerify: false`",
            ),
            ({"setHeaders": "x"}, "$[0].setHeaders", "write an object"),
            ({"setHeaders": {"x y": "1"}}, '$[0].setHeaders["x y"]', "is no field name"),
            ({"setHeaders": {"x:": "1"}}, '$[0].setHeaders["x:"]', "is no field name"),
            ({"setHeaders": {"": "1"}}, '$[0].setHeaders[""]', "is no field name"),
            ({"setHeaders": {"x": 1}}, "$[0].setHeaders.x", "is a number: write a text"),
            ({"setHeaders": {"x": "a\r\nb: c"}}, "$[0].setHeaders.x", "has no valid value"),
            ({"setHeaders": {"x": ""}}, "$[0].setHeaders.x", "has no valid value"),
            ({"setHeaders": {"x": "é"}}, "$[0].setHeaders.x", "has no valid value"),
            ({"setHeaders": {"x": "{token}"}}, "$[0].setHeaders.x", "write one of {computeId}, {id}, {uid}"),
            ({"setHeaders": {"x-a": "1", "X-A": "2"}}, '$[0].setHeaders["X-A"]', "differs from another"),
        ],
    )
    def test_a_mistake_in_a_service(
        self, tmp_path: Path, changes: dict[str, object], where: str, said: str
    ) -> None:
        """File, JSON path, what is wrong, what to write."""
        path = _written(tmp_path, [_SERVICE | changes])
        mistakes = _mistakes(path)
        assert any(one.startswith(f"{path}: {where}: ") and said in one for one in mistakes), mistakes

    @pytest.mark.parametrize(
        "name",
        [
            *("content-length", "Host", "connection", "Transfer-Encoding", "cookie", "upgrade", "te"),
            *("trailer", "keep-alive", "x-forwarded-for", "X_Forwarded.For", "Content_Length", "forwarded"),
            *("sec-websocket-key", "expect", "x-request-id", "proxy-authorization", "x-real-ip"),
        ],
    )
    def test_fields_that_the_proxy_writes_cannot_be_set(self, tmp_path: Path, name: str) -> None:
        """Framing, hop-by-hop and identity, under any spelling that some server reads so (case 30)."""
        (mistake,) = _mistakes(_written(tmp_path, [_SERVICE | {"setHeaders": {name: "1"}}]))
        assert "is a field that the proxy writes itself: remove it" in mistake

    def test_no_mistake_shows_the_value_of_a_field(self, tmp_path: Path) -> None:
        """It may be a secret."""
        fields = {"x": "s3cr3t\n", "y": "s3cr3t{z}", "host": "s3cr3t", "a b": "s3cr3t"}
        mistakes = _mistakes(_written(tmp_path, [_SERVICE | {"setHeaders": fields}]))
        assert len(fields) == len(mistakes)
        assert "s3cr3t" not in "\n".join(mistakes)

    @pytest.mark.parametrize("key", ["match", "type", "name", "remotePort"])
    def test_a_missing_key(self, tmp_path: Path, key: str) -> None:
        """It is named."""
        service = {name: value for name, value in _SERVICE.items() if name != key}
        path = _written(tmp_path, [service])
        assert (f"{path}: $[0]: has no `{key}`: add it",) == _mistakes(path)

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            ([], "$: is empty: write at least one service"),
            ({}, "$: is an object: write an array of services"),
            (["x"], "$[0]: is a text: write a service"),
            ('[{"match": 1, "match": 2}]', "$[0].match: is written twice"),
            ('[{"setHeaders": {"a": "1", "a": "2"}}]', "$[0].setHeaders.a: is written twice"),
            ('[{"pathRewrite": {"a": "1", "a": "2"}}]', "$[0].pathRewrite.a: is written twice"),
            ("[NaN]", "JSON has no NaN"),
            ("[" + "1" * 5000 + "]", "has a number that is none"),
            ("[" * 100_000, "is nested too deeply"),
        ],
    )
    def test_a_document_of_another_shape(self, tmp_path: Path, document: object, said: str) -> None:
        """What it is, and what it should be."""
        mistakes = _mistakes(_written(tmp_path, document))
        assert any(said in one for one in mistakes), mistakes

    def test_all_mistakes_are_found_at_once(self, tmp_path: Path) -> None:
        """Nobody has to start ten times to correct ten mistakes."""
        services = [
            _SERVICE | {"remotePort": 0, "wss": True},
            _SERVICE,
            {"match": "^/x", "type": 1, "setHeaders": {"host": "x", "cookie": "y"}},
        ]
        path = _written(tmp_path, services)
        assert [
            "$[0].wss",
            "$[0].remotePort",
            "$[2]",
            "$[2]",
            "$[2].match",
            "$[2].type",
            "$[2].setHeaders.host",
            "$[2].setHeaders.cookie",
        ] == [one.removeprefix(f"{path}: ").partition(": ")[0] for one in _mistakes(path)]


def test_a_required_key_in_other_letters_is_one_mistake(tmp_path: Path) -> None:
    """Who writes `remoteport` is told to write `remotePort`, and not that it is missing as well."""
    given = {key: value for key, value in _SERVICE.items() if key != "remotePort"}
    (mistake,) = _mistakes(_written(tmp_path, [given | {"remoteport": 8888}]))
    assert "$[0].remoteport: is no known key: write `remotePort`" in mistake


class TestSyntax:
    """A file that is no JSON: line, column and the likely remedy."""

    def test_231_the_missing_comma_of_the_documentation(self, tmp_path: Path) -> None:
        """The original's documentation shows one: contract section 1."""
        text = '[\n  {\n    "remotePort": 8888,\n    "ws": true\n    "pathRewrite": {}\n  }\n]\n'
        path = _written(tmp_path, text)
        assert (f"{path}:5:5: is not JSON: a comma is probably missing before this, at 4:15",) == _mistakes(
            path
        )

    @pytest.mark.parametrize(
        ("text", "place", "said"),
        [
            ("[{} {}]", "1:5", "a comma is probably missing before this, at 1:4"),
            ("[1 = 2]", "1:4", "write a comma or a closing bracket or brace"),
            ('[\n{"a": 1},\n]', None, "remove the comma before the closing bracket"),
            ('[{"a": 1,}]', None, "remove the comma before the closing bracket"),
            ("[\n // services\n]", "2:2", "there are no comments in JSON"),
            ("[{'a': 1}]", "1:3", "write double quotes instead of single ones"),
            ('["^/\\d"]', None, "a backslash is written twice"),
            ('[{"a": 1', "1:9", "the file ends too early"),
            ("", "", "is empty: write an array of services"),
            (" \n", "", "is empty: write an array of services"),
            ("[1]]", "1:4", "the array has ended before this"),
            ("[{a: 1}]", "1:3", "write a key in double quotes"),
            ('[{"a" 1}]', "1:7", "write a colon"),
            ('["a\nb"]', "1:4", "add the missing double quote"),
            ("[...]", "1:2", "Expecting value here"),
        ],
    )
    def test_the_remedy(self, tmp_path: Path, text: str, place: str | None, said: str) -> None:
        """Whatever Python's parser calls it, the operator reads what to do."""
        path = _written(tmp_path, text)
        (mistake,) = _mistakes(path)
        assert said in mistake
        assert mistake.startswith(f"{path}:{place or ''}")

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (b"\xef\xbb\xbf[]", ":1:1: starts with a byte order mark: save it as UTF-8 without one"),
            (b'[\n "\xe9"]', ":2:3: is not UTF-8: save the file as UTF-8"),
            ("[]".encode("utf-16"), ":1:1: is not UTF-8"),
        ],
    )
    def test_another_encoding(self, tmp_path: Path, raw: bytes, said: str) -> None:
        """JSON is UTF-8 without a byte order mark (RFC 8259 8.1)."""
        path = tmp_path / "proxy.conf.json"
        path.write_bytes(raw)
        (mistake,) = _mistakes(path)
        assert mistake.startswith(f"{path}{said}")

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """It is named, with the system's reason."""
        path = tmp_path / "none.json"
        (mistake,) = _mistakes(path)
        assert mistake.startswith(f"{path}: cannot be read: No such file or directory: see CONFIG_FILE, ")


def test_a_worker_that_imports_routes_stays_small() -> None:
    """Neither pydantic nor a loop comes with the routes."""
    code = (
        "import sys, visa_jupyter_proxy.routes; print(*{'pydantic', 'asyncio', 'socket'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()
