"""What an operator can change where a request is refused, by the reason of the refusal."""

from typing import Final

from visa_jupyter_proxy import errors
from visa_jupyter_proxy.errors import ProxyError

ADVICE: Final[dict[type[ProxyError], str]] = {
    errors.BadRequest: "Nothing to set: such a request is refused whoever sends it.",
    errors.NoToken: "A browser has the cookie `access_token` once its user is signed in to VISA.",
    errors.OriginNotAllowed: (
        "If pages of that origin are to open WebSockets, add it to ALLOWED_ORIGINS. If it is this site's "
        "own, the proxy in front must send Host as it came and X-Forwarded-Proto, and be in TRUSTED_PROXIES."
    ),
    errors.NoRoute: (
        "Add a service to the routes whose `match` covers it, with the instance id as its first group; "
        "or ask for an id that VISA has."
    ),
    errors.MethodNotAllowed: "Nothing to set: CONNECT and TRACE make no sense through this proxy.",
    errors.RequestTimeout: "HEADER_TIMEOUT_S and BODY_TIMEOUT_S are what a client has.",
    errors.ContentTooLarge: "`maxBodyBytes` of the service is what it takes; without it, any size.",
    errors.TargetTooLong: "REQUEST_LINE_BYTES is what is read of an address.",
    errors.ExpectationFailed: "Nothing to set: 100-continue is the only expectation there is.",
    errors.Misdirected: "Add the host name to SERVER_NAMES, or have the proxy in front send Host as it came.",
    errors.UpgradeRequired: "Nothing to set: there is no other version in use.",
    errors.HeadTooLarge: "HEAD_BYTES and HEAD_FIELDS are what is read of a head.",
    errors.NotImplementedHere: "Nothing to set: such a request is refused whoever sends it.",
    errors.VersionNotSupported: (
        "The proxy in front has to speak HTTP/1.1: `proxy_http_version 1.1` in nginx."
    ),
    errors.ClientGone: "Nothing to set: the client has left.",
    errors.TokenRejected: (
        "The token is bad or has expired: take the one that the browser has now. "
        "VISA answers so, too, while it cannot reach the identity provider: try again."
    ),
    errors.InstanceNotFound: (
        "Only the owner may use it: ask with the owner's token, and look for the id in VISA."
    ),
    errors.VisaUnreachable: "Set API_URL, or API_HOST and API_PORT; `visa-jupyter-proxy check` says more.",
    errors.VisaBusy: "Nothing to set: VISA answers too slowly for what it is asked.",
    errors.VisaInvalid: "Is API_URL the VISA API's? `visa-jupyter-proxy check` says more.",
    errors.VisaTimeout: "API_TIMEOUT_S is what VISA has; `visa-jupyter-proxy check` says how long it takes.",
    errors.InstanceNotReady: (
        "Wait until the instance runs. If it does: VISA has no address, or no such value, of it."
    ),
    errors.InstanceStopped: "Start the instance in VISA.",
    errors.InstanceFailed: "Restart the instance in VISA; its own log there says why.",
    errors.InstanceDeleted: "Nothing to set: take another instance.",
    errors.InstanceAddressRefused: "Add the network of the instances to INSTANCE_NETWORKS.",
    errors.InstanceUnreachable: (
        "Nothing listens there: does the service run on the instance, is `remotePort` its port, and does a "
        "firewall let this machine in?"
    ),
    errors.InstanceInvalid: (
        "What listens there does not speak as the service should: are `remotePort`, `remoteScheme` and "
        "`remoteCa` right?"
    ),
    errors.InstanceTimeout: (
        "CONNECT_TIMEOUT_S is what it has: is the address routed, does a firewall drop packets?"
    ),
    errors.Internal: "This is a defect of visa-jupyter-proxy: its log has the traceback.",
}
