"""What an answer of the API means for somebody's access. Plain code."""

import ipaddress
from typing import Final, NamedTuple

from visa_jupyter_proxy.control.vigil.table import Heard
from visa_jupyter_proxy.errors import VisaInvalid
from visa_jupyter_proxy.visa_api import Access

_OWNER: Final = "OWNER"

_GOING: Final = frozenset({"DELETED", "DELETING", "STOPPED"})
"""States of an instance that is of no use to anybody any more; from no other anything follows."""


class Told(NamedTuple):
    """What the API says of a user and an instance."""

    heard: Heard
    address: str | None = None
    """Where the instance is, as `ipaddress` writes it; None when it says nothing of use."""


def told_of_member(access: Access) -> Told:
    """Take the answer to a question about a member. Raises `VisaInvalid`."""
    if access.role is None:
        raise VisaInvalid("the answer does not say what the user is to the instance")
    return told_of_owner(access.state, access.host) if access.role == _OWNER else Told(Heard.NOT_OWNER)


def told_of_owner(state: str, host: str | None) -> Told:
    """Take what is said to the owner."""
    return Told(Heard.GOING if state in _GOING else Heard.OWNER, _address(host))


def _address(host: str | None) -> str | None:
    """Write an address as the worker does that has checked it; None for what is none."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
