"""Local verification over real sockets: the key server, and tokens that the VISA API never sees."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client import Message, RawClient, get, upgrade
from support.identity import AUDIENCE, ISSUER, Provider
from support.instance import Connection, Instance, ok
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer
from visa_jupyter_proxy.worker.access.key_set import KeyServer, KeysUnavailable
from wire.conftest import Wire, production


class TestServer:
    """A server: distrusted, like any other."""

    def fetch(self, instance: Instance) -> int:
        """Fetch from a scripted server, and count the keys."""

        async def run() -> int:
            server = KeyServer(f"http://{instance.host}:{instance.port}/certs")
            try:
                return len(await server.fetch())
            finally:
                await server.close()

        return asyncio.run(run())

    def test_it_is_asked_without_any_secret(self, instance_port: int) -> None:
        """No token, no cookie."""
        with Instance(instance_port) as instance:
            instance.answer(ok(Provider().key_set()))
            assert 1 == self.fetch(instance)
            (request,) = instance.requests
            assert (b"GET", b"/certs", [], []) == (
                request.method,
                request.target,
                request.all("authorization"),
                request.all("cookie"),
            )

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "is 302"),
            (b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", "is 503"),
            (ok(b"<html>"), "no JSON Web Key Set"),
            (ok(b"[" * 2**20), "larger than any key set"),
            (b"garbage\r\n\r\n", "the answer is not HTTP"),
        ],
        ids=["redirect", "503", "html", "large", "garbage"],
    )
    def test_answers_that_are_none(self, instance_port: int, answer: bytes, said: str) -> None:
        """What it was is said, in words of ours."""
        with Instance(instance_port) as instance:
            instance.answer(answer)
            with pytest.raises(KeysUnavailable, match=said):
                self.fetch(instance)

    def test_nobody_there(self, instance_port: int) -> None:
        """No connection, or one that ends."""

        def leave(connection: Connection) -> None:
            connection.request()

        with Instance(instance_port) as instance:
            instance.play(leave)
            with pytest.raises(KeysUnavailable, match="the connection was closed before an answer came"):
                self.fetch(instance)
        with pytest.raises(KeysUnavailable, match="Connection refused"):
            self.fetch(instance)


@pytest.fixture(scope="module")
def provider() -> Provider:
    """Give the one whose tokens count."""
    return Provider()


@pytest.fixture(scope="module")
def keys(instance_port: int) -> Iterator[Instance]:
    """Run its key server."""
    with Instance(instance_port) as server:
        yield server


@pytest.fixture(scope="module")
def verifying(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int, keys: Instance
) -> Iterator[RunningProxy]:
    """Run a proxy that verifies."""
    with running_proxy(
        tmp_path_factory.mktemp("verifying"),
        api_url=api.url,
        routes=production(instance_port),
        JWKS_URL=f"http://{keys.host}:{keys.port}/certs",
        JWT_ISSUER=ISSUER,
        JWT_AUDIENCE=AUDIENCE,
    ) as running:
        yield running


def _ask(proxy: RunningProxy, data: bytes) -> Message:
    with RawClient(proxy.port) as client:
        return client.ask(data)


class TestProxy:
    """The proxy, with `JWKS_URL`."""

    def ask(self, proxy: RunningProxy, wire: Wire, token: str) -> Message:
        """Ask with a token which the API would accept."""
        wire.api.user(token, f"user-{wire.number}")
        return _ask(proxy, get(wire.path(), token=token))

    def test_keys_that_cannot_be_had_are_no_outage(
        self, wire: Wire, verifying: RunningProxy, keys: Instance, provider: Provider
    ) -> None:
        """The API alone judges; then they can be had, and count."""
        keys.answer(b"HTTP/1.1 503 Sorry\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert 200 == self.ask(verifying, wire, provider.token(iss="https://another")).status
        assert 401 == _ask(verifying, get(wire.path(), token=provider.token(jti="the API refuses it"))).status
        (said,) = [line for line in verifying.log.read_text().splitlines() if "keys of JWKS" in line]
        assert "VISA alone judges tokens" in said
        keys.answer(ok(provider.key_set()))
        numbers = itertools.count()
        keys.wait(lambda: 401 == self.ask(verifying, wire, provider.token(iss="x", jti=next(numbers))).status)
        assert 200 == self.ask(verifying, wire, provider.token(sub="owner")).status

    def test_what_the_provider_has_not_signed_never_reaches_the_api(
        self, wire: Wire, verifying: RunningProxy, provider: Provider
    ) -> None:
        """401, HTTP and WebSocket, however well the API would like it; and not the instance, either."""
        other = Provider()
        other.rotate()
        other.signers[-1].kid = "key-0"
        before = len(wire.api.asked("instance"))
        for token in (
            other.token(),
            provider.token(exp=-60),
            provider.token(iss="https://evil.example"),
            provider.token(aud="another"),
            "opaque",
        ):
            wire.api.user(token, f"user-{wire.number}")
            for data in (get(wire.path(), token=token), upgrade(wire.path(), token=token)):
                response = _ask(verifying, data)
                assert (401, True) == (response.status, b"token_rejected" in response.body)
        assert (before, 0) == (len(wire.api.asked("instance")), wire.instance.connections)

    def test_what_it_has_signed_is_for_the_api_to_judge(
        self, wire: Wire, verifying: RunningProxy, provider: Provider
    ) -> None:
        """200 for the owner, 401 and 404 as the API says."""
        token = provider.token(sub="owner")
        assert 200 == self.ask(verifying, wire, token).status
        assert 401 == _ask(verifying, get(wire.path(), token=provider.token(sub="unknown"))).status
        wire.api.user(stranger := provider.token(sub="stranger"), "somebody-else")
        assert 404 == _ask(verifying, get(wire.path(), token=stranger)).status


def test_keys_in_a_file(
    tmp_path: Path, api: VisaApiServer, instance_port: int, wire: Wire, provider: Provider
) -> None:
    """`JWKS_FILE`; without issuer and audience any will do."""
    (tmp_path / "keys.json").write_bytes(provider.key_set())
    good, forged = provider.token(iss="https://any", aud="any"), Provider()
    forged.rotate()
    forged.signers[-1].kid = "key-0"
    with running_proxy(
        tmp_path, api_url=api.url, routes=production(instance_port), JWKS_FILE="keys.json"
    ) as proxy:
        for token, status in ((good, 200), (forged.token(), 401)):
            wire.api.user(token, f"user-{wire.number}")
            assert status == _ask(proxy, get(wire.path(), token=token)).status
