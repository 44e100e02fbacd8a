"""The public keys of whoever signs tokens: a JSON Web Key Set (RFC 7517), from a server or from a file.

Only this file speaks to that server. Only asymmetric keys are taken: with a symmetric one, who can verify a
token can make one.
"""

from pathlib import Path
from typing import Final

import aiohttp
import jwt
import msgspec

from visa_jupyter_proxy import failures, logs

_TIMEOUT_S: Final = 5.0
_LARGEST: Final = 2**18
"""A key is 1 or 2 KiB, with its certificates 6; a set is a handful."""

_MOST_KEYS: Final = 32
"""A token that names no key is tried with each."""

_ALGORITHMS: Final = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""For each kind of key what it may verify (RFC 7518 3.1, RFC 8037 3.1)."""

ACCEPTED: Final = frozenset(name for names in _ALGORITHMS.values() for name in names)


class KeysUnavailable(Exception):
    """No key set could be had; the text is for the log."""


class Key:
    """A public key, and what it may verify."""

    def __init__(self, identity: str | None, verifiers: dict[str, jwt.PyJWK]) -> None:
        self.identity = identity
        """Its `kid`, if it has one."""
        self.verifiers = verifiers
        """By the name of the algorithm."""

    def __repr__(self) -> str:
        return f"Key({self.identity!r}, {', '.join(self.verifiers)})"

    def may_verify(self, identity: str | None, algorithm: str) -> bool:
        """Whether a token with this `kid` and `alg` can be one of its."""
        return algorithm in self.verifiers and (
            identity is None or self.identity is None or identity == self.identity
        )


class KeyFile:
    """The key set in a file, which may be replaced at any time."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def fetch(self) -> tuple[Key, ...]:
        """Read the keys. Raises `KeysUnavailable`."""
        try:
            document = self._path.read_bytes()
        except OSError as error:
            raise KeysUnavailable(f"{self._path}: {error.strerror}") from None
        return parse(document)

    async def close(self) -> None:
        """Nothing is open."""


class KeyServer:
    """The key set of an identity provider. Needs a running loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def fetch(self) -> tuple[Key, ...]:
        """Ask for the keys. Raises `KeysUnavailable`."""
        try:
            async with self._session.get(self._url, allow_redirects=False) as response:
                if response.status != 200:
                    raise KeysUnavailable(f"the answer is {response.status}")
                document = bytearray()
                async for chunk in response.content.iter_any():
                    document += chunk
                    if len(document) > _LARGEST:
                        raise KeysUnavailable("the answer is larger than any key set")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise KeysUnavailable(failures.of_http(error)) from None
        return parse(bytes(document))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class _Jwk(msgspec.Struct):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str | None = None


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


def parse(document: bytes) -> tuple[Key, ...]:
    """Take the keys that can be used out of a key set. Raises `KeysUnavailable` when there is none.

    A set may hold what is for others, and what nobody here knows (RFC 7517 5): that is left out.
    """
    try:
        written = msgspec.json.decode(document, type=_Set).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeysUnavailable("it is no JSON Web Key Set") from None
    keys = tuple(key for key in map(_key, written[:_MOST_KEYS]) if key is not None)
    if not keys:
        raise KeysUnavailable(
            "none of its keys can be used: RSA of 2048 bits or more, P-256 to P-521, Ed25519"
        )
    return keys


def _key(written: msgspec.Raw) -> Key | None:
    try:
        jwk = msgspec.json.decode(written, type=_Jwk)
        algorithms = _ALGORITHMS.get((jwk.kty, None if jwk.kty == "RSA" else jwk.crv), ())
        if jwk.use not in (None, "sig") or not algorithms or jwk.alg not in (None, *algorithms):
            return None
        data = msgspec.json.decode(written)
        verifiers = {name: jwt.PyJWK(data, name) for name in algorithms if jwk.alg in (None, name)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, jwt.PyJWTError, ValueError, TypeError):
        return None
    if any(verifier.Algorithm.check_key_length(verifier.key) for verifier in verifiers.values()):
        logs.get().warning("a key of JWKS is too short to be used", kid=jwk.kid)
        return None
    return Key(jwk.kid, verifiers)


type Source = KeyFile | KeyServer
