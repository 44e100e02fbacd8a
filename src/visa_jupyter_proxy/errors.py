"""What can go wrong with a request, and whose fault it is.

The class is the reason: it fixes the status, the name that a program reads
(`error` in the JSON body, `reason` in the log) and the text that a person reads.
That text is fixed too: no address, no exception text and nothing of the request
ever reaches the other side. The argument of an error is for the log alone.
"""

from typing import ClassVar, Literal

type Source = Literal["downstream", "upstream", "authority", "internal"]


class ProxyError(Exception):
    """A request that cannot be served; `str(error)` is for the log and holds no secret."""

    status: ClassVar[int]
    source: ClassVar[Source]
    error: ClassVar[str]
    message: ClassVar[str]
    fields: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Header fields that the answer carries."""
    state: str | None = None
    """The instance's state, where it explains the error: for the page that people see."""
    jupyter_answers: bool = False
    """Whether VISA says that JupyterLab's port answers."""


# --- the client's fault ------------------------------------------------------------------


class BadRequest(ProxyError):
    """The bytes are no valid request, or one that could be understood in two ways (RFC 9112)."""

    status, source, error = 400, "downstream", "bad_request"
    message = "The request is not valid HTTP."


class NoToken(ProxyError):
    """The request carries no VISA access token, or several that differ."""

    status, source, error = 401, "downstream", "no_token"
    message = "Sign in to VISA first: the request carries no valid access token."
    fields = (("WWW-Authenticate", "Bearer"),)


class OriginNotAllowed(ProxyError):
    """A WebSocket was opened from a page of another site (RFC 6455 10.2)."""

    status, source, error = 403, "downstream", "origin_not_allowed"
    message = "WebSockets can only be opened from this site's own pages."


class NoRoute(ProxyError):
    """No service of `proxy.conf.json` matches the target."""

    status, source, error = 404, "downstream", "no_route"
    message = "There is nothing at this address."


class MethodNotAllowed(ProxyError):
    """CONNECT and TRACE are refused: neither makes sense through this proxy (RFC 9110 9.3.6, 9.3.8)."""

    status, source, error = 405, "downstream", "method_not_allowed"
    message = "This method is not allowed here."
    fields = (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


class RequestTimeout(ProxyError):
    """The request did not arrive in time."""

    status, source, error = 408, "downstream", "request_timeout"
    message = "The request did not arrive in time."


class ContentTooLarge(ProxyError):
    """The body is larger than the route allows."""

    status, source, error = 413, "downstream", "content_too_large"
    message = "The content is larger than this service accepts."


class TargetTooLong(ProxyError):
    """The request line is longer than we read."""

    status, source, error = 414, "downstream", "target_too_long"
    message = "The address is too long."


class ExpectationFailed(ProxyError):
    """An `Expect` other than 100-continue (RFC 9110 10.1.1)."""

    status, source, error = 417, "downstream", "expectation_failed"
    message = "The expectation of the request cannot be met."


class Misdirected(ProxyError):
    """The Host is none of `SERVER_NAMES` (a DNS rebinding attack looks like this)."""

    status, source, error = 421, "downstream", "misdirected"
    message = "This server does not answer for that host name."


class UpgradeRequired(ProxyError):
    """A WebSocket version other than 13 (RFC 6455 4.4)."""

    status, source, error = 426, "downstream", "websocket_version"
    message = "Only version 13 of the WebSocket protocol is spoken here."
    fields = (("Sec-WebSocket-Version", "13"),)


class HeadTooLarge(ProxyError):
    """The header fields are larger, or more, than we read (RFC 6585 5)."""

    status, source, error = 431, "downstream", "head_too_large"
    message = "The header fields of the request are too large."


class NotImplementedHere(ProxyError):
    """A transfer coding or a method that no proxy can frame."""

    status, source, error = 501, "downstream", "not_implemented"
    message = "This server does not know how to handle such a request."


class VersionNotSupported(ProxyError):
    """A version other than HTTP/1.0 and HTTP/1.1."""

    status, source, error = 505, "downstream", "version_not_supported"
    message = "Only HTTP/1.1 and HTTP/1.0 are spoken here."


class ClientGone(ProxyError):
    """The client left before it was answered. Never sent; 499 is nginx's number for it, for the log."""

    status, source, error = 499, "downstream", "client_gone"
    message = "The client closed the connection."


# --- what the VISA API says --------------------------------------------------------------


class TokenRejected(ProxyError):
    """The VISA API does not accept the token (401).

    It can be transient, for VISA Accounts says so, too, while it cannot reach the identity provider
    (contract section 2).
    """

    status, source, error = 401, "authority", "token_rejected"
    message = "Sign in to VISA again: the access token is not valid."
    fields = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)


class InstanceNotFound(ProxyError):
    """The VISA API knows no such instance of this user (404, or 403)."""

    status, source, error = 404, "authority", "instance_not_found"
    message = "There is no such instance, or it is not yours."


class VisaUnreachable(ProxyError):
    """No connection to the VISA API."""

    status, source, error = 503, "authority", "visa_unreachable"
    message = "VISA cannot be reached at the moment. Try again soon."
    fields = (("Retry-After", "5"),)


class VisaBusy(ProxyError):
    """Too many questions to the VISA API wait already."""

    status, source, error = 503, "authority", "visa_busy"
    message = "Too many requests are waiting for VISA at the moment. Try again soon."
    fields = (("Retry-After", "2"),)


class VisaInvalid(ProxyError):
    """The VISA API answered something that is no answer (5xx, no JSON, another instance)."""

    status, source, error = 502, "authority", "visa_invalid"
    message = "VISA gave no valid answer."


class VisaTimeout(ProxyError):
    """The VISA API did not answer within `API_TIMEOUT_S`."""

    status, source, error = 504, "authority", "visa_timeout"
    message = "VISA did not answer in time."


# --- what the instance does --------------------------------------------------------------


class InstanceNotReady(ProxyError):
    """The instance has no address, or refuses connections while its state is not an up one."""

    status, source, error = 503, "upstream", "instance_not_ready"
    message = "The instance is not ready yet. Try again soon."
    fields: ClassVar[tuple[tuple[str, str], ...]] = (("Retry-After", "5"),)


class InstanceStopped(InstanceNotReady):
    """Likewise, and its state says that it is switched off, or about to be."""

    error = "instance_stopped"
    message = "The instance is switched off. Start it in VISA."
    fields = (("Retry-After", "60"),)


class InstanceFailed(InstanceNotReady):
    """Likewise, and its state is an error."""

    error = "instance_failed"
    message = "The instance has failed. Restart it in VISA."
    fields = (("Retry-After", "60"),)


class InstanceDeleted(InstanceNotReady):
    """Likewise, and its state says that it is deleted, or about to be: it will not come back."""

    status, error = 404, "instance_deleted"
    message = "The instance has been deleted."
    fields = ()


class InstanceAddressRefused(ProxyError):
    """The VISA API named an address at which no instance may be (`INSTANCE_NETWORKS`)."""

    status, source, error = 502, "upstream", "instance_address"
    message = "The instance has no address that can be used."


class InstanceUnreachable(ProxyError):
    """The instance refused the connection or closed it before it answered."""

    status, source, error = 502, "upstream", "instance_unreachable"
    message = "The service on the instance cannot be reached."


class InstanceInvalid(ProxyError):
    """The instance answered something that is no valid HTTP response."""

    status, source, error = 502, "upstream", "instance_invalid"
    message = "The service on the instance gave no valid answer."


class InstanceTimeout(ProxyError):
    """The instance did not accept the connection, or not answer, in time."""

    status, source, error = 504, "upstream", "instance_timeout"
    message = "The service on the instance did not answer in time."


# --- ours --------------------------------------------------------------------------------


class Internal(ProxyError):
    """A defect of this program; the log has the traceback."""

    status, source, error = 500, "internal", "internal"
    message = "Something went wrong here. It has been recorded."
