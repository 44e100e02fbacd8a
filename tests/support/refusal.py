r"""What a refusal looks like from outside: an answer, then the end, and nobody behind the proxy was told.

response = refused(wire, b"GET /x HTTP/0.9\r\n\r\n", 400, 505)
"""

from typing import Protocol

from support.client import Message, RawClient
from support.instance import Instance
from support.visa_api import VisaApiServer


class Place(Protocol):
    """A proxy, the API that it asks, and an instance behind it."""

    @property
    def api(self) -> VisaApiServer:
        """The API that the proxy asks."""

    @property
    def instance(self) -> Instance:
        """The instance that must hear nothing."""

    def client(self) -> RawClient:
        """Connect to the proxy."""


def refused(place: Place, data: bytes, *statuses: int) -> Message:
    """Send `data`, and leave the connection open: it must be answered with one of `statuses`, and closed.

    Neither the API nor the instance may have been asked anything.
    """
    asked, contacted = len(place.api.asked("instance")), place.instance.connections
    with place.client() as client:
        response = client.ask(data)
        assert response.status in (statuses or (400,)), response.head
        assert b"close" == response.one("connection")
        assert client.closed(), "something follows the refusal"
    assert asked == len(place.api.asked("instance")), "the API was asked"
    assert contacted == place.instance.connections, "the instance was contacted"
    return response
