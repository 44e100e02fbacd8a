"""Who the client is: what the peer is allowed to say of it (case 87)."""

import pytest

from support.messages import fields, request
from visa_jupyter_proxy.worker.access.forwarded import Client, TrustedProxies

_TRUSTED = TrustedProxies(["127.0.0.0/8", "::1/128", "10.1.0.0/16"])


def _client(*fields: bytes, peer: str = "127.0.0.1") -> Client:
    return _TRUSTED.client(peer, request(*fields))


def _chain(client: Client) -> bytes:
    return dict(fields([client.lines]))[b"X-Forwarded-For"]


class TestUntrusted:
    """A peer that is no trusted proxy speaks for itself."""

    def test_87_161_it_says_nothing_that_counts(self) -> None:
        """Whatever it sends."""
        client = _client(
            b"X-Forwarded-For: 6.6.6.6",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: evil.test",
            b"X-Real-IP: 6.6.6.6",
            b"Forwarded: for=6.6.6.6",
            peer="192.0.2.1",
        )
        assert ("192.0.2.1", b"192.0.2.1", b"http", False, None) == (
            client.address,
            _chain(client),
            client.proto,
            client.proto_is_known,
            client.host,
        )
        assert _TRUSTED.request_id("192.0.2.1", request(b"X-Request-Id: mine")) is None

    def test_the_same_fields_of_a_peer_that_is_trusted_count(self) -> None:
        """And again not of the other: each connection speaks for itself, whatever was read of such fields."""
        fields = (b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: visa.test")
        peers = ("192.0.2.1", "127.0.0.1", "192.0.2.1", "192.0.2.2")
        addresses = [_client(*fields, peer=peer).address for peer in peers]
        assert ["192.0.2.1", "6.6.6.6", "192.0.2.1", "192.0.2.2"] == addresses
        assert TrustedProxies([]).client("127.0.0.1", request(*fields)).address == "127.0.0.1"


class TestTrusted:
    """A trusted proxy speaks for the client."""

    @pytest.mark.parametrize(
        ("chain", "address"),
        [
            (b"6.6.6.6", "6.6.6.6"),
            (b"6.6.6.6, 7.7.7.7", "7.7.7.7"),
            (b"6.6.6.6, 10.1.2.3", "6.6.6.6"),
            (b"6.6.6.6 ,10.1.2.3,\t127.0.0.5", "6.6.6.6"),
            (b"10.1.2.3", "10.1.2.3"),
            (b"6.6.6.6, nonsense, 10.1.2.3", "10.1.2.3"),
            (b"unknown", "127.0.0.1"),
            (b"\xff", "127.0.0.1"),
            (b"2001:db8::0001", "2001:db8::1"),
            (b"::ffff:6.6.6.6", "6.6.6.6"),
            (b"6.6.6.6, ::ffff:10.1.2.3", "6.6.6.6"),
            (b"6.6.6.6:567", "6.6.6.6"),
            (b"6.6.6.6:567, 10.1.2.3:8", "6.6.6.6"),
            (b"[2001:db8::1]:443", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"[::ffff:6.6.6.6]:1", "6.6.6.6"),
            (b"6.6.6.6:", "127.0.0.1"),
            (b"6.6.6.6:123456", "127.0.0.1"),
            (b"[6.6.6.6]:1", "127.0.0.1"),
            (b"[2001:db8::1]x", "127.0.0.1"),
            (b"visa.test:1", "127.0.0.1"),
        ],
    )
    def test_87_the_client_is_the_first_hop_that_nobody_trusts(self, chain: bytes, address: str) -> None:
        """Seen from our end: everything before it may be invented."""
        assert address == _client(b"X-Forwarded-For: " + chain).address

    def test_87_no_more_than_some_hops_are_believed(self) -> None:
        """A client in a trusted network may invent thousands that are trusted, too."""
        hops = [b"10.1.%d.%d" % divmod(number, 250) for number in range(3000)]
        client = _client(b"X-Forwarded-For: " + b",".join(hops))
        assert hops[-32].decode() == client.address
        assert b", ".join([*hops, b"127.0.0.1"]) == _chain(client)

    def test_87_the_peer_is_appended(self) -> None:
        """To all fields, in order."""
        client = _client(b"X-Forwarded-For: 6.6.6.6, 7.7.7.7", b"X-Forwarded-For: 8.8.8.8")
        assert (b"6.6.6.6, 7.7.7.7, 8.8.8.8, 127.0.0.1", "8.8.8.8") == (_chain(client), client.address)

    def test_without_the_field_the_peer_is_the_client(self) -> None:
        """A browser on this machine, perhaps."""
        for client in (_client(), _client(b"X-Forwarded-For:")):
            assert (b"127.0.0.1", "127.0.0.1") == (_chain(client), client.address)

    def test_scheme_host_and_id_are_taken_over(self) -> None:
        """When they have the form of one."""
        client = _client(b"X-Forwarded-Proto: https", b"X-Forwarded-Host: visa.ill.eu")
        assert (b"https", True, b"visa.ill.eu") == (client.proto, client.proto_is_known, client.host)
        assert b"a-B_1.2" == _TRUSTED.request_id("127.0.0.1", request(b"X-Request-Id: a-B_1.2"))

    def test_a_scheme_in_any_case(self) -> None:
        """It has none (RFC 3986 3.1)."""
        client = _client(b"X-Forwarded-Proto: HTTPS")
        assert (b"https", True) == (client.proto, client.proto_is_known)

    @pytest.mark.parametrize("proto", [b"ftp", b"https, http", b"", b"https\xa0"])
    def test_another_scheme_is_none(self, proto: bytes) -> None:
        """Then nobody knows."""
        client = _client(b"X-Forwarded-Proto: " + proto)
        assert (b"http", False) == (client.proto, client.proto_is_known)

    @pytest.mark.parametrize("request_id", [b"", b"a b", b"a" * 65, b'a"b', b"\xc3\xa9"])
    def test_an_id_that_could_forge_a_line_is_none(self, request_id: bytes) -> None:
        """It stands in logs."""
        assert _TRUSTED.request_id("127.0.0.1", request(b"X-Request-Id: " + request_id)) is None

    def test_246_an_ipv6_client_is_a_network(self) -> None:
        """Whose questions to VISA are bounded together."""
        assert ("2001:db8:0:1::", "10.0.0.1") == (
            Client("2001:db8:0:1::9").network,
            Client("10.0.0.1").network,
        )

    def test_ipv4_in_ipv6_is_ipv4(self) -> None:
        """A socket for both shows addresses so."""
        assert "6.6.6.6" == _client(b"X-Forwarded-For: 6.6.6.6", peer="::ffff:10.1.0.9").address

    def test_nobody_may_be_trusted(self) -> None:
        """An empty `TRUSTED_PROXIES`."""
        client = TrustedProxies([]).client("127.0.0.1", request(b"X-Forwarded-For: 6.6.6.6"))
        assert "127.0.0.1" == client.address
