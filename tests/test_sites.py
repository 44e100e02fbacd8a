"""For which names we answer, and whose pages may open WebSockets (cases 20, 159, 160)."""

from collections.abc import Sequence

import pytest

from support.messages import request
from visa_jupyter_proxy.errors import Misdirected, OriginNotAllowed
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.access.sites import Sites


def _check_origin(
    *fields: bytes,
    host: bytes = b"visa.test",
    allowed: Sequence[str] = (),
    proto: bytes | None = None,
    forwarded_host: bytes | None = None,
) -> None:
    client = Client("192.0.2.7", proto=proto, host=forwarded_host)
    Sites([], allowed).check_origin(request(*fields, host=host), client)


class TestHost:
    """`SERVER_NAMES` against DNS rebinding."""

    @pytest.mark.parametrize("host", [b"visa.test", b"VISA.test", b"visa.test:8443", b"[::1]:80"])
    def test_20_our_names(self, host: bytes) -> None:
        """In any case, with any port."""
        Sites(["Visa.Test", "::1"], []).check_host(request(host=host))

    @pytest.mark.parametrize(
        "host", [b"attacker.example", b"visa.test.attacker.example", b"xvisa.test", None]
    )
    def test_20_other_names(self, host: bytes | None) -> None:
        """421; none is another name, too."""
        with pytest.raises(Misdirected):
            Sites(["visa.test"], []).check_host(request(line=b"GET / HTTP/1.0", host=host))

    def test_20_without_names_there_is_no_check(self) -> None:
        """As in the original."""
        Sites([], []).check_host(request(host=b"attacker.example"))


class TestOrigin:
    """A browser sends the cookie for any page; only `Origin` tells which (RFC 6455 10.2)."""

    @pytest.mark.parametrize(
        "origin",
        [
            *(b"https://evil.test", b"null", b"https://visa.test.evil.com", b"https://evilvisa.test", b""),
            *(
                b"https://visa.test@evil.test",
                b"https://evil.test/visa.test",
                b"https://visa.test/",
                b"visa.test",
            ),
            *(b"https://", b"https://visa.test:x", b"//visa.test/x", b"https://[::1"),
            *(b"ftp://visa.test", b"chrome-extension://visa.test", b"wss://visa.test"),
            *(b"https://a@visa.test", b"https://visa.test:99999", b"https://visa.test, https://evil.test"),
        ],
    )
    def test_159_other_pages(self, origin: bytes) -> None:
        """403, with the cookie; without an Origin that can be compared, too."""
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Cookie: access_token=T", b"Origin: " + origin)

    def test_159_two_origins(self) -> None:
        """Also when both are ours."""
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Origin: https://visa.test", b"Origin: https://visa.test")

    @pytest.mark.parametrize(
        "origin", [b"https://VISA.test:443", b"http://visa.test", b"https://visa.test:8443"]
    )
    def test_160_our_own_pages(self, origin: bytes) -> None:
        """Where Host has no port it says nothing of the port, and nobody told the scheme."""
        _check_origin(b"Cookie: access_token=T", b"Origin: " + origin)

    def test_159_the_scheme_counts_when_it_is_known(self) -> None:
        """A trusted proxy has told it."""
        _check_origin(b"Origin: https://visa.test", proto=b"https")
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Origin: http://visa.test", proto=b"https")

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            (b"https://visa.test", b"visa.test:443"),
            (b"http://visa.test", b"visa.test:80"),
            (b"http://visa.test:8080", b"visa.test:8080"),
            (b"http://[::1]:8080", b"[::1]:8080"),
        ],
    )
    def test_159_the_port_counts_when_host_has_one(self, origin: bytes, host: bytes) -> None:
        """The default port of the origin's scheme included."""
        _check_origin(b"Origin: " + origin, host=host)
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Origin: " + origin, host=host.rpartition(b":")[0] + b":9")

    def test_the_host_that_a_trusted_proxy_tells_counts(self) -> None:
        """That is the one that the browser knows."""
        _check_origin(b"Origin: https://visa.ill.eu", host=b"10.0.0.1", forwarded_host=b"visa.ill.eu")
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Origin: https://visa.test", forwarded_host=b"visa.ill.eu")

    def test_160_the_list_of_others(self) -> None:
        """Scheme, name and port."""
        allowed = ["https://lab.test", "http://dev.test:3000"]
        for origin in (b"https://LAB.test", b"https://lab.test:443", b"http://dev.test:3000"):
            _check_origin(b"Origin: " + origin, allowed=allowed)
        for origin in (b"http://lab.test", b"https://lab.test:1", b"http://dev.test"):
            with pytest.raises(OriginNotAllowed):
                _check_origin(b"Origin: " + origin, allowed=allowed)

    def test_160_what_no_page_of_another_site_could_send(self) -> None:
        """A program without an Origin, or a Bearer value."""
        _check_origin(b"Cookie: access_token=T")
        _check_origin(b"Authorization: Bearer T", b"Origin: https://evil.test")

    def test_159_another_scheme_of_authorization_is_no_bearer(self) -> None:
        """The cookie would decide."""
        with pytest.raises(OriginNotAllowed):
            _check_origin(b"Authorization: token x", b"Cookie: access_token=T", b"Origin: https://evil.test")
