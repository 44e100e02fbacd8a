"""Which tokens are refused before the VISA API is asked, and that keys which cannot be had refuse nobody."""

import asyncio
import base64
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support import simulated
from support.identity import AUDIENCE, ISSUER, Provider, Signer, rsa_key
from visa_jupyter_proxy.errors import TokenRejected
from visa_jupyter_proxy.worker.access.key_set import Key, KeyServer, KeysUnavailable, parse
from visa_jupyter_proxy.worker.access.verification import (
    MOST_WAITING,
    RENEWAL_S,
    SPACING_S,
    Keys,
    Verification,
)


class Source:
    """A key server that shows what the provider has, if it is up."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.is_up = True
        self.fetched = 0

    async def fetch(self) -> tuple[Key, ...]:
        """Answer."""
        self.fetched += 1
        if not self.is_up:
            raise KeysUnavailable("down")
        return parse(self.provider.key_set())

    async def close(self) -> None:
        """Nothing is open."""


class Scene:
    """A provider, its key server, and who verifies with it; the loop's clock is simulated."""

    def __init__(self, issuer: str | None = ISSUER, audiences: tuple[str, ...] = (AUDIENCE,)) -> None:
        self.provider = Provider()
        self.source = Source(self.provider)
        self.loop = asyncio.get_running_loop()
        keys = Keys(cast("KeyServer", self.source), self.loop.time)
        self.verification = Verification(keys, issuer, audiences)

    async def verdict(self, token: str) -> str | None:
        """Give why a token is refused, None when it is not."""
        try:
            await self.verification.verify(token)
        except TokenRejected as error:
            return str(error)
        return None


def _run(test: Callable[[Scene], Coroutine[None, None, None]], **scene: Any) -> None:
    async def alone() -> None:
        made = Scene(**scene)
        await test(made)
        await made.verification.close()

    simulated.run(alone())


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _forged(header: object, payload: bytes = b'{"exp": 9999999999}', signature: bytes = b"sig") -> str:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return f"{_part(written)}.{_part(payload)}.{_part(signature)}"


class TestVerdicts:
    """What is refused, and why."""

    def test_a_good_token_passes(self) -> None:
        """And so does one whose issue time is ahead of our clock, and that says more than it has to."""

        async def test(scene: Scene) -> None:
            now = time.time()
            for more in (
                {},
                {"iat": now + 60},
                {"nbf": now + 60},
                {"sub": 7},
                {"aud": AUDIENCE},
                {"exp": -5},
            ):
                assert None is await scene.verdict(scene.provider.token(**more))
            assert 1 == scene.source.fetched

        _run(test)

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"exp": -30}, "ExpiredSignatureError"),
            ({"iss": "https://evil.example"}, "InvalidIssuerError"),
            ({"iss": ISSUER + "/"}, "InvalidIssuerError"),
            ({"iss": None}, "MissingRequiredClaimError"),
            ({"iss": [ISSUER]}, "InvalidIssuerError"),
            ({"aud": "another"}, "InvalidAudienceError"),
            ({"aud": ["another", AUDIENCE + "x"]}, "InvalidAudienceError"),
            ({"aud": None}, "MissingRequiredClaimError"),
            ({"aud": 7}, "InvalidAudienceError"),
        ],
        ids=str,
    )
    def test_claims_that_do_not_hold(self, claims: dict[str, Any], reason: str) -> None:
        """However well they are signed; the reason names no value."""

        async def test(scene: Scene) -> None:
            assert f"it does not hold: {reason}" == await scene.verdict(scene.provider.token(**claims))

        _run(test)

    def test_what_is_not_configured_is_not_looked_at(self) -> None:
        """Neither issuer nor audience."""

        async def test(scene: Scene) -> None:
            token = scene.provider.token(iss="https://another", aud="another")
            assert None is await scene.verdict(token)
            assert None is await scene.verdict(scene.provider.token(iss=None, aud=None, exp=None))

        _run(test, issuer=None, audiences=())

    def test_signatures_that_are_not_the_providers(self) -> None:
        """By another key of the same name, cut, changed, or moved to other claims."""

        async def test(scene: Scene) -> None:
            good, other = scene.provider.token(), scene.provider.token(sub="bert")
            head, payload, signature = good.split(".")
            impostor = Signer("key-0", rsa_key(9), "RS256").sign({"iss": ISSUER, "aud": AUDIENCE, "exp": 60})
            for token in (
                impostor,
                f"{head}.{payload}.{signature[:-8]}",
                f"{head}.{payload}.",
                f"{head}.{other.split('.')[1]}.{signature}",
            ):
                verdict = await scene.verdict(token)
                assert verdict in ("no known key has signed it", "it is no signed JWT")

        _run(test)

    @pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "", "RS1", None, 7, [], {}])
    def test_only_asymmetric_algorithms(self, algorithm: object) -> None:
        """`none` and those whose key everybody would know are refused without a look at any key."""

        async def test(scene: Scene) -> None:
            verdict = await scene.verdict(_forged({"alg": algorithm, "kid": "key-0"}, signature=b""))
            assert verdict in ("its algorithm is not accepted", "it is no signed JWT")
            assert 0 == scene.source.fetched

        _run(test)

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_the_public_key_is_no_password(self, algorithm: str) -> None:
        """Signed with the text of the public key, as if it were a secret."""

        async def test(scene: Scene) -> None:
            public = rsa_key(0).public_key()
            pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            head = _part(json.dumps({"alg": algorithm, "kid": "key-0", "typ": "JWT"}).encode())
            signed = f"{head}.{_part(b'{}')}"
            digest = hmac.digest(pem, signed.encode(), algorithm.replace("HS", "sha"))
            assert "its algorithm is not accepted" == await scene.verdict(f"{signed}.{_part(digest)}")

        _run(test)

    def test_a_key_verifies_what_it_is_for(self) -> None:
        """Not with another algorithm of its kind when it names one, nor one of another kind."""

        async def test(scene: Scene) -> None:
            for algorithm in ("PS256", "ES256"):
                verdict = await scene.verdict(_forged({"alg": algorithm, "kid": "key-0"}))
                assert "no known key has signed it" == verdict

        _run(test)

    @pytest.mark.parametrize(
        "token",
        [
            "opaque",
            "a.b",
            "a.b.c",
            "...",
            "e30.e30.e30",
            _forged(b"[" * 100_000),
            _forged(b"\xff"),
            _forged(b'{"alg": "RS256", "kid": 7}'),
            _forged(b'{"alg": "RS256", "crit": ["x"]}'),
            _forged(b"null"),
            _forged(b'"RS256"'),
        ],
        ids=lambda token: token[:24],
    )
    def test_what_is_no_signed_token(self, token: str) -> None:
        """With keys configured, an opaque token is refused as well."""

        async def test(scene: Scene) -> None:
            assert None is not await scene.verdict(token)

        _run(test)

    @pytest.mark.parametrize(
        ("private", "algorithm"),
        [
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
            (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
            (rsa_key(3), "PS384"),
        ],
        ids=["es256", "eddsa", "ps384"],
    )
    def test_a_token_that_names_no_key(self, private: Any, algorithm: str) -> None:
        """It is tried with all that fit; one of them will do."""

        async def test(scene: Scene) -> None:
            signer = Signer(None, private, algorithm)
            scene.provider.signers += [Signer("other", rsa_key(4), "RS256"), signer]
            assert None is await scene.verdict(scene.provider.token())

        _run(test)


class TestKeys:
    """Keys are had when they are needed, and kept."""

    def test_they_are_had_once(self) -> None:
        """By all who need them at the same time, and later."""

        async def test(scene: Scene) -> None:
            token = scene.provider.token()
            assert [None] * 20 == await asyncio.gather(*(scene.verdict(token) for _ in range(20)))
            await asyncio.sleep(RENEWAL_S)
            assert None is await scene.verdict(token)
            assert 1 == scene.source.fetched

        _run(test)

    def test_a_new_key_is_had_at_once(self) -> None:
        """When a token names it: a provider signs with it as soon as it shows it."""

        async def test(scene: Scene) -> None:
            await scene.verdict(scene.provider.token())
            await asyncio.sleep(SPACING_S)
            scene.provider.rotate()
            began = scene.loop.time()
            assert None is await scene.verdict(scene.provider.token())
            assert (2, began) == (scene.source.fetched, scene.loop.time())

        _run(test)

    def test_made_up_names_of_keys_do_not_rush_at_the_server(self) -> None:
        """One question in five seconds, for which they wait; who has a new key waits, too, and passes."""

        async def test(scene: Scene) -> None:
            await scene.verdict(scene.provider.token())
            scene.provider.rotate()
            forged = [_forged({"alg": "RS256", "kid": f"k{number}"}) for number in range(100)]
            began = scene.loop.time()
            verdicts = await asyncio.gather(*map(scene.verdict, [*forged, scene.provider.token()]))
            assert ["no known key has signed it"] * 100 + [None] == verdicts
            assert (2, began + SPACING_S) == (scene.source.fetched, scene.loop.time())

        _run(test)

    def test_not_everybody_waits(self) -> None:
        """Whom there is no room for is left to the API, whose turns are bounded."""

        async def test(scene: Scene) -> None:
            await scene.verdict(scene.provider.token())
            forged = [_forged({"alg": "RS256", "kid": f"k{number}"}) for number in range(MOST_WAITING + 10)]
            verdicts = await asyncio.gather(*map(scene.verdict, forged))
            assert 10 == verdicts.count(None)

        _run(test)

    def test_a_withdrawn_key_does_not_count_for_ever(self) -> None:
        """Keys are had again after ten minutes, behind the back of whoever comes then."""

        async def test(scene: Scene) -> None:
            token = scene.provider.token()
            scene.provider.rotate()
            assert None is await scene.verdict(token)
            del scene.provider.signers[0]
            await asyncio.sleep(RENEWAL_S + 1)
            assert None is await scene.verdict(token)
            await asyncio.sleep(SPACING_S)
            assert "no known key has signed it" == await scene.verdict(token)

        _run(test)


class TestOutage:
    """The failure of the key server is no outage."""

    def test_without_any_key_the_api_judges(self) -> None:
        """Every token is left to it, at once but for the attempts; the server is asked every five seconds."""

        async def test(scene: Scene) -> None:
            scene.source.is_up = False
            for _ in range(50):
                assert None is await scene.verdict(_forged({"alg": "RS256", "kid": "key-0"}))
                await asyncio.sleep(1)
            assert scene.source.fetched <= 11
            assert scene.loop.time() <= 51
            assert "its algorithm is not accepted" == await scene.verdict(_forged({"alg": "HS256"}))
            scene.source.is_up = True
            await asyncio.sleep(SPACING_S)
            verdict = await scene.verdict(_forged({"alg": "RS256", "kid": "key-0"}))
            assert "no known key has signed it" == verdict

        _run(test)

    def test_known_keys_go_on_counting(self) -> None:
        """However old they are; a key that is not known may be new, and is left to the API."""

        async def test(scene: Scene) -> None:
            token = scene.provider.token(exp=10**6)
            await scene.verdict(token)
            scene.source.is_up = False
            scene.provider.rotate()
            for _ in range(10):
                await asyncio.sleep(RENEWAL_S)
                assert None is await scene.verdict(token)
                changed = token[:-8] + "AAAAAAAA"
                assert "no known key has signed it" == await scene.verdict(changed)
                assert None is await scene.verdict(scene.provider.token())

        _run(test)

    def test_closing_in_the_middle(self) -> None:
        """Nothing is left."""

        async def test(scene: Scene) -> None:
            await scene.verdict(scene.provider.token())
            waiting = asyncio.create_task(scene.verdict(_forged({"alg": "RS256", "kid": "new"})))
            await asyncio.sleep(1)
            await scene.verification.close()
            await asyncio.wait([waiting])
            assert waiting.cancelled()

        _run(test)


def test_a_worker_that_does_not_verify_is_smaller() -> None:
    """Neither PyJWT nor cryptography is there before it is told to."""
    code = (
        "import sys; from visa_jupyter_proxy.worker import worker; "
        "print(sorted({'jwt', 'cryptography'} & set(sys.modules))); "
        "from visa_jupyter_proxy.worker.access import verification; "
        "print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ["[]", "['cryptography', 'jwt']"] == shown.stdout.splitlines()
