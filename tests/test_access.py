"""Who may ask the admin listener: the machine's own programs, whoever has the token, and no foreign page."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from visa_jupyter_proxy.control.admin.access import Access
from visa_jupyter_proxy.control.admin.answers import Refused

TOKEN = "0123456789abcdef"


def _answer(access: Access, path: str = "/metrics", method: str = "GET", **fields: str) -> tuple[int, str]:
    """Status and `error`; 200 and nothing when the request may go on."""
    names = {name.replace("_", "-"): value for name, value in {"Host": "127.0.0.1:8089", **fields}.items()}
    request: web.Request = make_mocked_request(method, path, headers=names)
    try:
        access.check(request)
    except Refused as refused:
        return refused.status, refused.error
    return 200, ""


class TestHost:
    """Without a token, only names of this machine: a rebound name is the same origin for its page."""

    @pytest.mark.parametrize(
        "host", ["127.0.0.1:8089", "localhost", "LOCALHOST:1", "localhost.:9", "[::1]:8089", "127.8.8.8"]
    )
    def test_this_machine(self, host: str) -> None:
        """Any port, for it may be a forwarded one (ssh -L)."""
        assert (200, "") == _answer(Access("127.0.0.1", None), Host=host)

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8089",
            "192.168.0.7:8089",
            "[2001:db8::1]:8089",
            "",
            "[",
            "127.0.0.1@evil.example",
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/health/live", "/metrics", "/api/v1/sessions"])
    def test_any_other_name(self, host: str, path: str) -> None:
        """Is refused, whatever it asks for."""
        assert (421, "misdirected") == _answer(Access("127.0.0.1", None), path, Host=host)

    def test_the_name_it_listens_on(self) -> None:
        """Who has set it uses it."""
        assert (200, "") == _answer(Access("localhost", None), Host="localhost:8089")

    def test_with_a_token_the_name_does_not_matter(self) -> None:
        """A foreign page does not have it, whatever its name."""
        access = Access("0.0.0.0", TOKEN)
        assert (200, "") == _answer(access, Host="proxy.example", Authorization=f"Bearer {TOKEN}")


class TestOtherSites:
    """What browsers say of the page that asks."""

    @pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
    @pytest.mark.parametrize(
        "fields",
        [
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:9999"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("token", [None, TOKEN])
    def test_they_are_refused(self, method: str, fields: dict[str, str], token: str | None) -> None:
        """Whatever they want, and even with the token."""
        access = Access("127.0.0.1", token)
        fields = {**fields, "Authorization": f"Bearer {TOKEN}"}
        assert (403, "cross_site") == _answer(access, "/api/v1/sessions/1", method, **fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"Sec_Fetch_Site": "same-origin", "Origin": "http://127.0.0.1:8089"},
            {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"},
        ],
        ids=str,
    )
    def test_our_own_page_and_programs(self, fields: dict[str, str]) -> None:
        """May ask for everything."""
        assert (200, "") == _answer(Access("127.0.0.1", None), "/api/v1/sessions/1", "DELETE", **fields)

    def test_a_link_to_the_board(self) -> None:
        """May stand anywhere; one that would change something may not."""
        link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        assert (200, "") == _answer(Access("127.0.0.1", None), "/", **link)
        assert (403, "cross_site") == _answer(Access("127.0.0.1", None), "/", "POST", **link)


class TestToken:
    """With ADMIN_TOKEN."""

    @pytest.mark.parametrize("path", ["/metrics", "/api/v1/config", "/nothing", "/health", "/health/live/"])
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": f"Bearer {TOKEN}0"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer \u00e9\u00e9"},
        ],
        ids=str,
    )
    def test_without_it(self, path: str, fields: dict[str, str]) -> None:
        """401, before it is known whether there is such a thing."""
        assert (401, "no_token") == _answer(Access("127.0.0.1", TOKEN), path, **fields)

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/"])
    def test_probes_need_none(self, path: str) -> None:
        """Nor does the page, which asks for it."""
        assert (200, "") == _answer(Access("127.0.0.1", TOKEN), path)

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_with_it(self, scheme: str) -> None:
        """The scheme in any case (RFC 9110 11.1)."""
        assert (200, "") == _answer(Access("127.0.0.1", TOKEN), Authorization=f"{scheme} {TOKEN}")
