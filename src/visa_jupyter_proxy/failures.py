"""Why a request of ours has got no answer, in words for the log and for the commands.

They name neither address nor URL, which may hold a secret.
"""

import os
import socket
from typing import Final

import aiohttp

_CLOSED: Final = "the connection was closed before an answer came"

_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The first that fits: some of these classes are subclasses of those behind them.
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorCertificateError, "its certificate cannot be verified"),
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ClientSSLError, "TLS does not succeed with it"),
    (aiohttp.ClientOSError, _CLOSED),
    (aiohttp.ServerDisconnectedError, _CLOSED),
    (aiohttp.ClientPayloadError, "the answer ended too early"),
    (aiohttp.InvalidURL, "this is no URL that can be asked"),
)


def of_http(error: aiohttp.ClientError | TimeoutError) -> str:
    """Say what has become of a request."""
    found = next((words for kind, words in _WORDS if isinstance(error, kind)), "the answer is not HTTP")
    if found == _CLOSED and isinstance(error, aiohttp.ClientConnectorError):
        return of_connection(error.os_error)  # there was none to be closed
    return found


def of_connection(error: OSError) -> str:
    """Say why there is no connection."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return os.strerror(error.errno) if error.errno else "no connection to any of its addresses"
