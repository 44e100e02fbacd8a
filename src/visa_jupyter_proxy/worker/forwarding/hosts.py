"""The host of a URL as browsers read it (WHATWG URL 3.5), to know the inside of the network by any spelling.

`127.0.0.1` is also `127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`, `127%2e0.0.1`, and with full-width
digits or invisible letters in it still the same.
"""

import ipaddress
import re
from contextlib import suppress
from encodings.idna import nameprep
from typing import Final
from urllib.parse import unquote_to_bytes

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORT: Final = re.compile(rb":[0-9]*$")

_LONGEST: Final = 1024
"""A name has 253 characters at most (RFC 1035 3.1), and three times that in percent-encoding."""


def names_inside(authority: bytes, instance: str) -> bool:
    """Whether the authority of a URL leads into the network: to `instance`, or to no address of the world.

    What is too long for a host is taken for one that does.
    """
    if len(authority) > _LONGEST:
        return True
    name = _host(authority)
    if name in ("", "localhost") or name.endswith(".localhost"):  # RFC 6761 6.3
        return True
    own = ipaddress.ip_address(instance)
    return any(
        address == own or not address.is_global or address.is_multicast for address in _addresses(name)
    )


def _host(authority: bytes) -> str:
    host = unquote_to_bytes(_PORT.sub(b"", authority.rpartition(b"@")[2]))
    name = host.decode("utf-8", "replace")
    with suppress(UnicodeError):  # of what is prohibited in names: no browser goes there
        name = name if name.isascii() else nameprep(name)
    return name.lower().replace("\u3002", ".").removesuffix(".")


def _addresses(name: str) -> list[Address]:
    """Return what `name` is to anybody: `010.0.0.1` is 8.0.0.1 to browsers, and 10.0.0.1 to others."""
    found: list[Address] = []
    with suppress(ValueError):  # it is a name, or a number that only browsers know
        address = ipaddress.ip_address(name.strip("[]"))
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        found.append(mapped or address)
    for octal in (True, False):
        number = _ipv4(name.split("."), octal=octal)
        if number is not None:
            found.append(ipaddress.IPv4Address(number))
    return found


def _ipv4(parts: list[str], *, octal: bool) -> int | None:
    """Read one to four numbers; the last one fills what is left (inet_aton, WHATWG URL 3.5)."""
    numbers = [_number(part, octal=octal) for part in parts]
    if len(numbers) > 4 or None in numbers:
        return None
    *first, last = [number for number in numbers if number is not None]
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return None
    return sum(number << 24 - 8 * at for at, number in enumerate(first)) + last


def _number(text: str, *, octal: bool) -> int | None:
    if text.startswith("0x"):
        digits, base = text[2:] or "0", 16
    elif octal and text.startswith("0"):
        digits, base = text, 8
    else:
        digits, base = text, 10
    if not digits.isascii() or not digits.isalnum():  # `int` allows signs, spaces and underscores
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None
