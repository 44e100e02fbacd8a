"""Why a request of ours has got no answer, in words for the log and for the commands.

They name neither address nor URL, which may hold a secret.
"""

import os
import socket
import ssl
from typing import Final

import aiohttp

_UNRESOLVED: Final = "its name cannot be resolved"
_CLOSED: Final = "the connection was closed before an answer came"

_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The first that fits: some of these classes are subclasses of those behind them.
    (TimeoutError, "no answer in time"),
    # Those of aiohttp are subclasses of these. The number that they have is none of the system's errors.
    (ssl.SSLCertVerificationError, "its certificate cannot be verified"),
    (ssl.SSLError, "TLS does not succeed with it"),
    (socket.gaierror, _UNRESOLVED),
    (aiohttp.ClientConnectorDNSError, _UNRESOLVED),
    (aiohttp.ClientOSError, _CLOSED),
    (aiohttp.ServerDisconnectedError, _CLOSED),
    (aiohttp.ClientPayloadError, "the answer ended too early"),
    (aiohttp.InvalidURL, "this is no URL that can be asked"),
)


def of_http(error: aiohttp.ClientError | TimeoutError) -> str:
    """Say what has become of a request."""
    words = _words(error)
    if words == _CLOSED and isinstance(error, aiohttp.ClientConnectorError):
        return of_connection(error.os_error)  # there was none to be closed
    return words or "the answer is not HTTP"


def of_connection(error: OSError) -> str:
    """Say why there is no connection."""
    if words := _words(error):
        return words
    if error.errno:
        return os.strerror(error.errno)
    # Without a number: closed in the middle of TLS, or there were several addresses, each with an error.
    return _CLOSED if isinstance(error, ConnectionError) else "no connection to any of its addresses"


def _words(error: Exception) -> str | None:
    return next((words for kind, words in _WORDS if isinstance(error, kind)), None)
