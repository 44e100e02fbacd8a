"""What a service says of places, as the browser must see it."""

import pytest

from visa_jupyter_proxy.routes import Match, Rewrite, Route, Router
from visa_jupyter_proxy.worker.references import public_cookie, public_location

JUPYTER = Route(match=r"^/jupyter/(\d+).*", type="jupyter", name="Jupyter", remote_port=8888)
FILES = Route(
    match=r"^/visafs/(\d+).*",
    type="service",
    name="Files",
    remote_port=8090,
    path_rewrite=(Rewrite(r"^/visafs/\d+/", "/"),),
)
PRINT = Route(
    match=r"^/ws/print/(\d+).*",
    type="service",
    name="Print",
    remote_port=8091,
    path_rewrite=(Rewrite(r"^/ws/print/\d+/", "/socket.io/"),),
)
ROUTER = Router([JUPYTER, FILES, PRINT])


def _match(target: str) -> Match:
    return ROUTER.match(target.encode(), websocket=False)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        # Nothing is rewritten: paths are the browser's own already.
        ("/jupyter/12/x", "/jupyter/12/lab?", "/jupyter/12/lab?"),
        ("/jupyter/12/x", "lab", "lab"),
        ("/jupyter/12/x", "../y", "../y"),
        ("/jupyter/12/x", "/elsewhere", "/elsewhere"),
        ("/jupyter/12/x", "?a=1", "?a=1"),
        ("/jupyter/12/x", "https://orcid.org/oauth", "https://orcid.org/oauth"),
        ("/jupyter/12/x", "https://visa.test/jupyter/12/lab", "https://visa.test/jupyter/12/lab"),
        # What names the inside of the network loses that name.
        ("/jupyter/12/x", "http://10.0.0.12:8888/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "//10.0.0.12/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "http:/10.0.0.12/jupyter/12/lab", "/jupyter/12/lab"),
        ("/jupyter/12/x", "\\\\10.0.0.12\\lab", "/lab"),
        ("/jupyter/12/x", "http://localhost:8888", "/"),
        ("/jupyter/12/x", "http://192.168.7.7:80/x", "/x"),
        ("/jupyter/12/x", "http://user@10.0.0.12/x", "/x"),
        ("/jupyter/12/x", "http://[fd00::1]:8888/x", "/x"),
        ("/jupyter/12/x", "http://10.0.0.12//evil.test/x", "/evil.test/x"),
        # Rewritten: mapped back through the rewrite of this very request.
        ("/visafs/12/a/b", "/c?d=1", "/visafs/12/c?d=1"),
        ("/visafs/12/a/b", "/visafs/12/c", "/visafs/12/c"),
        ("/visafs/12/a/b", "/visafs/123/c", "/visafs/12/visafs/123/c"),
        ("/visafs/12/", "/", "/visafs/12/"),
        ("/visafs/12/a", "http://10.0.0.12:8090/c", "/visafs/12/c"),
        ("/visafs/12/a", "https://visa.test/c", "/visafs/12/c"),
        ("/visafs/12", "/c", "/c"),
        ("/ws/print/12/x", "/socket.io/y", "/ws/print/12/y"),
        ("/ws/print/12/x", "/login", "/login"),
    ],
)
def test_locations(target: str, value: str, expected: str) -> None:
    """A Location leads the browser to where the service meant, through the proxy, and shows no inside."""
    mapped = public_location(value.encode(), _match(target), "10.0.0.12", b"visa.test")
    assert expected == mapped.decode()


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("/jupyter/12/x", "a=1; Path=/jupyter/12/; HttpOnly", "a=1; HttpOnly; Path=/jupyter/12/"),
        ("/jupyter/12/x", "a=1; Path=/", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; path=/jupyter/13", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Path=/jupyter/123", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Domain=visa.test; Secure", "a=1; Secure"),
        ("/jupyter/12/x", "a=1", "a=1"),
        ("/jupyter/12", "a=1", "a=1; Path=/jupyter/12"),
        ("/jupyter/12/x", "a=1; Path=relative", "a=1"),
        ("/jupyter/12/x", "a=1; Path=/jupyter/12/; Path=/", "a=1; Path=/jupyter/12"),
        ("/visafs/12/a", "a=1; Path=/", "a=1; Path=/visafs/12/"),
        ("/visafs/12/a", "a=1; Path=/sub", "a=1; Path=/visafs/12/sub"),
        ("/ws/print/12/a", "io=1; Path=/", "io=1; Path=/ws/print/12"),
    ],
)
def test_cookies(target: str, value: str, expected: str) -> None:
    """A cookie stays with its instance: inside the public prefix, and on this host alone (case 95)."""
    assert expected == public_cookie(value.encode(), _match(target), target.encode()).decode()
