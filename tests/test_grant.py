"""Where an instance may be (cases 198 to 201)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.conversation import granted
from visa_jupyter_proxy.errors import InstanceAddressRefused, InstanceNotReady, ProxyError
from visa_jupyter_proxy.worker.access.grant import InstanceNetworks

_DEFAULT = InstanceNetworks(None)


class TestDefault:
    """All unicast addresses but those that lead to ourselves."""

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("10.0.0.12", "10.0.0.12"),
            ("192.168.1.1", "192.168.1.1"),
            ("8.8.8.8", "8.8.8.8"),
            ("fd00::12", "fd00::12"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("::ffff:10.0.0.12", "10.0.0.12"),
        ],
    )
    def test_199_201_addresses_of_machines(self, host: str, address: str) -> None:
        """In canonical form, private ones included."""
        assert address == _DEFAULT.check(host)

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "127.255.0.1", "::1", "0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "fe80::1"),
            *("::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "::ffff:224.0.0.1"),
            *("fe80::1%eth0", "fd00::1%eth0", "224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255"),
        ],
    )
    def test_199_addresses_of_ourselves_or_of_many(self, host: str) -> None:
        """Refused, in every form."""
        with pytest.raises(InstanceAddressRefused):
            _DEFAULT.check(host)

    @pytest.mark.parametrize(
        "host",
        [
            *(
                "10.0.0.12:22",
                "10.0.0.12/x",
                "x@10.0.0.13",
                "evil.example",
                "0x7f.1",
                "2130706433",
                "010.0.0.1",
            ),
            *(
                " 10.0.0.12",
                "10.0.0.12\r\n",
                "[fd00::12]",
                "localhost",
                "10.0.0",
                "1\uff10.0.0.1",
                "",
                "10.0.0.12\0",
            ),
        ],
    )
    def test_200_what_is_no_address(self, host: str) -> None:
        """No name is resolved; the text is not shown."""
        with pytest.raises(InstanceAddressRefused) as caught:
            _DEFAULT.check(host)
        assert "not an IP address" == str(caught.value)

    def test_198_none(self) -> None:
        """Not ready yet."""
        with pytest.raises(InstanceNotReady):
            _DEFAULT.check(None)

    @given(st.text() | st.ip_addresses().map(str))
    def test_an_answer_is_an_address_or_an_error(self, host: str) -> None:
        """Nothing else comes out, and what comes out passes again."""
        try:
            address = _DEFAULT.check(host)
        except ProxyError:
            return
        assert address == _DEFAULT.check(address)


class TestNetworks:
    """`INSTANCE_NETWORKS` replaces the default."""

    def test_199_only_these(self) -> None:
        """Loopback too, when it is listed."""
        networks = InstanceNetworks(["127.0.0.0/8", "10.0.0.0/24", "fd00::/16"])
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "10.0.0.12", "fd00::12"):
            assert host.removeprefix("::ffff:") == networks.check(host)
        for host in ("10.0.1.12", "192.168.0.1", "::1", "fd01::1"):
            with pytest.raises(InstanceAddressRefused):
                networks.check(host)


def test_no_repr_shows_a_value() -> None:
    """What `setHeaders` names is secret."""
    assert "Grant(instance_id=7, user='anna')" == repr(granted(computeId="secret"))
