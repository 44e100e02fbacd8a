"""How the text of a variable becomes a value.

A parser's `ValueError` says what is allowed; it does not repeat the text, which may hold a secret.
Only text is parsed: a value of another type is left to pydantic.
"""

import difflib
import ipaddress
import json
import re
import zoneinfo
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, ValidationInfo

from visa_jupyter_proxy.settings import cpus

_LONGEST_S: Final = 86_400
"""A day: whoever writes more means milliseconds."""

_MOST_WORKERS: Final = 64
"""HAProxy's limit for threads, in one group of them too; each worker costs about 40 MB."""

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
"""RFC 1123 2.1, and `_`, which container names have."""

_HOST: Final = "write a host name or an IP address, without a scheme, a port or brackets"
_URL: Final = "write http:// or https://, a host, and a path if any, such as https://visa.example.org/api"
_KEY_SET: Final = "write the path of a JSON Web Key Set, as identity providers show it"
_LINK: Final = "write a path of this site, such as /, or a URL, such as https://visa.example.org/"
_ORIGINS: Final = "write origins, separated by commas: scheme and host, no path, as https://visa.example.org"
_NETWORKS: Final = "write networks, separated by commas, no bit set beyond the length, as 10.0.0.0/8,fd00::/8"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _parser[T](parse: Callable[[str], T]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value.strip()) if isinstance(value, str) else value)


def whole_number(least: int, most: int) -> BeforeValidator:
    """Parse ASCII digits; a sign, a unit or a fraction is a mistake."""

    def parse(text: str) -> int:
        # The length first: Python refuses to read thousands of digits.
        if re.fullmatch(r"[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"write a whole number from {least} to {most}")

    return _parser(parse)


def seconds(*, above_zero: bool, least: float = 0) -> BeforeValidator:
    """Parse a decimal number of seconds without a unit, a day at most."""

    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
            value = float(text)
            if least <= value <= _LONGEST_S and (value > 0 or not above_zero):
                return value
        allowed = "above 0" if above_zero and not least else f"{least:g} or more"
        raise ValueError(f"write a number of seconds without a unit, {allowed}, at most {_LONGEST_S}")

    return _parser(parse)


def _workers(text: str) -> int:
    if text == "auto":
        return min(cpus.usable(), _MOST_WORKERS)
    if re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= _MOST_WORKERS:
        return int(text)
    raise ValueError(f"write a whole number from 1 to {_MOST_WORKERS}, or auto")


workers: Final = _parser(_workers)


def one_of(*allowed: str) -> BeforeValidator:
    """Parse one of the words."""

    def parse(text: str) -> str:
        if text in allowed:
            return text
        raise ValueError(f"write one of {', '.join(allowed)}")

    return _parser(parse)


def _switch(text: str) -> bool:
    if text in ("on", "off"):
        return text == "on"
    raise ValueError("write on or off")


switch: Final = _parser(_switch)


def _admin_token(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", text):
        return text
    raise ValueError(
        "write 16 characters or more that may stand behind `Bearer` (RFC 6750): letters, digits, -._~+/"
    )


admin_token: Final = _parser(_admin_token)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach who listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".") == "localhost"


def _tracing(text: str) -> bool:
    wanted = _switch(text)
    if wanted and find_spec("opentelemetry") is None:
        raise ValueError("install the extra first, pip install 'visa-jupyter-proxy[otel]', or write off")
    return wanted


tracing: Final = _parser(_tracing)


def comma_separated(parse: Callable[[str], str]) -> BeforeValidator:
    """Parse a list; its empty parts do not count, nor does what is there twice."""

    def parse_all(text: str) -> tuple[str, ...]:
        parts = (part.strip() for part in text.split(","))
        return tuple(dict.fromkeys(parse(part) for part in parts if part))

    return _parser(parse_all)


def host(text: str) -> str:
    """Parse a host name or an IP address, without brackets; lower case."""
    if ":" in text or text.rpartition(".")[2].isdigit():
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            raise ValueError(_HOST) from None
    if _HOST_NAME.fullmatch(text) and len(text) <= 253:
        return text.lower()
    raise ValueError(_HOST)


host_name: Final = _parser(host)


def in_url(host: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def network(text: str) -> str:
    """Parse an address or a network in CIDR form; bits beyond the mask are refused: one of both is wrong."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(_NETWORKS) from None


def origin(text: str) -> str:
    """Parse an origin as browsers write it: lower case, without the default port (RFC 6454 6.2)."""
    parts = _split(text, _ORIGINS)
    if parts.path:
        raise ValueError(_ORIGINS)
    port = None if parts.port == _DEFAULT_PORTS[parts.scheme] else parts.port
    return f"{parts.scheme}://{_authority(parts, port)}"


def _url(text: str) -> str:
    parts = _split(text, _URL)
    return f"{parts.scheme}://{_authority(parts, parts.port)}{parts.path.rstrip('/')}"


url: Final = _parser(_url)


def _link(text: str) -> str:
    if re.fullmatch(r"/(?![/\\])[!-~]*", text):
        return text
    try:
        return _url(text) + ("/" if text.endswith("/") else "")
    except ValueError:
        raise ValueError(_LINK) from None


link: Final = _parser(_link)


def _split(text: str, allowed: str) -> SplitResult:
    # `urlsplit` drops line breaks and tabs, and reads the port only when asked.
    if not re.fullmatch(r"[!-~]*", text):
        raise ValueError(allowed)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(allowed) from None
    if "@" in parts.netloc:
        raise ValueError(f"{allowed}, without a user name and a password: they have no use here")
    if "?" in text or "#" in text:
        raise ValueError(f"{allowed}, without a query")
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        raise ValueError(allowed)
    return parts


def _authority(parts: SplitResult, port: int | None) -> str:
    name = in_url(host(parts.hostname or ""))
    return name if port is None else f"{name}:{port}"


def _timezone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        _no_timezone(text)
    return text


def _no_timezone(text: str) -> NoReturn:
    # By its last part: nearly all of `Europe/...` is near to another name of Europe.
    places = {name.rpartition("/")[2]: name for name in sorted(zoneinfo.available_timezones())}
    near = difflib.get_close_matches(text.rpartition("/")[2], places, n=1, cutoff=0.8)
    meant = f": is {places[near[0]]} meant?" if near else " such as Europe/Paris"
    raise ValueError(f"write an IANA time zone{meant}") from None


timezone: Final = _parser(_timezone)


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("write a path")
    # A mistake in another field leaves `data` without nothing: the directory is the first field.
    return Path(info.data["working_directory"]) / value


def _certificate_file(value: object, info: ValidationInfo) -> object:
    path = _path(value, info)
    if isinstance(path, Path):
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{error.strerror}: write the path of a PEM file") from None
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise ValueError("it holds no certificate: write the path of a PEM file")
    return path


def _key_set_file(value: object, info: ValidationInfo) -> object:
    path = _path(value, info)
    if isinstance(path, Path):
        try:
            written = json.loads(path.read_bytes())
        except OSError as error:
            raise ValueError(f"{error.strerror}: {_KEY_SET}") from None
        except (ValueError, RecursionError):
            raise ValueError(f"it is no JSON: {_KEY_SET}") from None
        if not isinstance(written, dict) or not isinstance(written.get("keys"), list) or not written["keys"]:
            raise ValueError(f"it has no keys: {_KEY_SET}")
    return path


def _directory(value: object, info: ValidationInfo) -> object:
    path = _path(value, info)
    if isinstance(path, Path) and not path.is_dir():
        raise ValueError("there is no such directory: write the path of one")
    return path


path: Final = BeforeValidator(_path)
directory: Final = BeforeValidator(_directory)
certificate_file: Final = BeforeValidator(_certificate_file)
key_set_file: Final = BeforeValidator(_key_set_file)
