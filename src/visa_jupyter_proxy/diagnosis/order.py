"""Whether a request is refused only because of the order in which the services stand."""

from collections.abc import Sequence

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.routes import Route, Router


def move(target: bytes, routes: Sequence[Route], *, websocket: bool) -> str | None:
    """Say which service has to stand before which other one, for a request that no service takes."""
    for index, route in enumerate(routes):
        for earlier in routes[:index]:
            if _takes(target, [route, earlier], websocket) and not _takes(
                target, [earlier, route], websocket
            ):
                return (
                    f"Move `{route.name}` before `{earlier.name}`: the first service whose `match` covers an "
                    "address has it, whether it finds an instance id there or not."
                )
    return None


def _takes(target: bytes, routes: Sequence[Route], websocket: bool) -> bool:
    try:
        Router(routes).match(target, websocket=websocket)
    except ProxyError:
        return False
    return True
