"""Who is let in: the bound for one client."""

import pytest

from visa_jupyter_proxy.worker.sockets.admission import Admission
from visa_jupyter_proxy.worker.sockets.networks import of_one_client


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::"),
        ("2001:db8:0:2::1", "2001:db8:0:2::"),
        ("::1", "::"),
    ],
)
def test_246_one_client_may_have_many_addresses(address: str, network: str) -> None:
    """In IPv6 each has 2^64 of them (RFC 6177): what is bounded for a client is bounded for all those."""
    assert network == of_one_client(address)


def test_a_client_has_no_more_connections_for_having_many_addresses() -> None:
    """Every connection from another one; another client has its own."""
    admission = Admission(100, 2, pause=lambda: None, resume=lambda: None)
    addresses = [f"2001:db8:0:1::{number}" for number in range(1, 4)]
    assert [True, True, False] == [admission.enter(address) for address in addresses]
    assert admission.enter("2001:db8:0:2::1")
    for address in addresses:
        admission.leave(address)
    assert [True, True] == [admission.enter(f"2001:db8:0:1::{number}") for number in (9, 8)]
