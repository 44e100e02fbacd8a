"""Which WebSockets are kernel channels, and of which session: as Jupyter reads it (cases 221, 222)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import Application, HTTPError, RequestHandler

from support.conversation import FILES, JUPYTER
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.routes import Rewrite, Route, Router
from visa_jupyter_proxy.worker.accounting.kernels import notebook_key

_KERNEL = "7f4e0e3c-9e0a-4c4e-8f3a-0a1b2c3d4e5f"
_CHANNELS = f"/jupyter/12/api/kernels/{_KERNEL}/channels"


def _key(target: str, route: Route = JUPYTER) -> NotebookKey | None:
    return notebook_key(Router([route]).match(target.encode("ascii"), websocket=True))


def _session(query: str) -> str:
    key = _key(f"{_CHANNELS}?{query}")
    assert key is not None
    return key.session_id


class _Connection(HTTPConnection):
    def set_close_callback(self, callback: object) -> None:
        """Never closed."""


def _as_jupyter_reads_it(query: str) -> str | None:
    """Return what `get_argument` gives there; None when the request is refused."""
    line = RequestStartLine("GET", f"/x?{query}", "HTTP/1.1")
    request = HTTPServerRequest(
        connection=_Connection(), start_line=line, headers=HTTPHeaders({"Host": "visa.test"})
    )
    handler = RequestHandler(Application(), request)
    try:
        return handler.get_argument("session_id", "")
    except HTTPError:
        return None


class TestSessions:
    """The session id of the query."""

    @pytest.mark.parametrize(
        ("query", "session"),
        [
            ("session_id=A&x=1", "A"),
            ("x=1&session_id=A", "A"),
            ("xsession_id=B&session_id=A", "A"),
            ("session_id=A&session_id=B", "B"),
            ("session_id=A&session_id=", ""),
            ("session_id=%41%2d%C3%A9", "A-é"),
            ("session%5Fid=A", "A"),
            ("SESSION_ID=A", ""),
            ("session_id=ZZ-not-hex", "ZZ-not-hex"),
            ("session_id=" + "a" * 151, "a" * 151),
            ("session_id=", ""),
            ("session_id", ""),
            ("x=1", ""),
            ("", ""),
            ("session_id=+A%20", "A"),
            ("session_id=A+B", "A B"),
            ("session_id=A;session_id=B", "A;session_id=B"),
            ("session_id=A%00%1fB", "A  B"),
            ("session_id=A%09B%0a", "A\tB"),
        ],
    )
    def test_221_the_rows_of_the_table(self, query: str, session: str) -> None:
        """Never cut, and the same as Jupyter makes of it."""
        assert (session, session) == (_session(query), _as_jupyter_reads_it(query))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["session_id", "session%5Fid", "x", "", "Session_id"]),
                st.sampled_from(["=", "", "=="]),
                st.text("Aa0-+%2C;=/?", max_size=6)
                | st.sampled_from(
                    ["%C3%A9", "%ff", "%00", "%0A", "%E2%80%A8", "%c2%a0", "%", "%zz", "%1f%0b"]
                ),
            ),
            max_size=5,
        )
    )
    @example([("session_id", "=", "%0B%1cA%0c")])
    def test_221_any_query_is_read_as_jupyter_reads_it(self, fields: list[tuple[str, str, str]]) -> None:
        """Where Jupyter refuses one, there is no session, and nothing breaks here."""
        query = "&".join(map("".join, fields))
        theirs, ours = _as_jupyter_reads_it(query), _session(query)
        assert theirs is None or theirs == ours

    def test_a_very_long_query_is_read(self) -> None:
        """Whatever stands in front."""
        assert "A" == _session("x=1&" * 1500 + "session_id=A")


class TestChannels:
    """The path of a kernel's channels."""

    def test_a_kernel_channel(self) -> None:
        """Instance, kernel and session make the key."""
        assert NotebookKey(12, _KERNEL, "S") == _key(f"{_CHANNELS}?session_id=S")

    @pytest.mark.parametrize(
        "target",
        [
            "/jupyter/12/terminals/websocket/1?session_id=S",
            "/jupyter/12/api/kernels/x/other?session_id=S",
            "/jupyter/12/api/kernels/x/channels/y?session_id=S",
            "/jupyter/12/api/kernels//channels?session_id=S",
            "/jupyter/12/api/kernels/a/b/channels?session_id=S",
            "/jupyter/12/lsp/ws/pylsp",
            "/jupyter/12/x?/api/kernels/x/channels",
            "/jupyter/12/api/kernels/x/channels%0a?session_id=S",
            "/jupyter/12/api/kernels",
        ],
    )
    def test_222_other_sockets(self, target: str) -> None:
        """Terminals, language servers and the rest are no sessions."""
        assert _key(target) is None

    def test_222_another_type_of_route(self) -> None:
        """Only a `jupyter` route has notebooks."""
        assert _key(f"/visafs/12/api/kernels/{_KERNEL}/channels?session_id=S", FILES) is None

    def test_under_a_rewrite_the_instance_s_own_path_counts(self) -> None:
        """That is what Jupyter sees."""
        route = Route(
            match=r"^/nb/(\d+).*",
            type="jupyter",
            name="J",
            remote_port=8888,
            ws=True,
            path_rewrite=(Rewrite(r"^/nb/\d+/k/", "/api/kernels/"),),
        )
        assert NotebookKey(12, "x", "S") == _key("/nb/12/k/x/channels?session_id=S", route)
