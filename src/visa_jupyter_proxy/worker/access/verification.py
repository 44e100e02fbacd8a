"""Whether a token is what the identity provider has signed: looked at before the VISA API is asked.

Optional. It spares the API what it would refuse, and decides nothing else: what it lets pass, and what it
cannot decide, because keys cannot be had, is the API's to judge. Only a worker that is told to verify imports
this file, and with it PyJWT and cryptography: 8 MB.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

import jwt

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.errors import TokenRejected
from visa_jupyter_proxy.worker.access.key_set import ACCEPTED, Key, KeyFile, KeyServer, KeysUnavailable

RENEWAL_S: Final = 600.0
"""After which keys are fetched again, so that one which was withdrawn does not count for ever."""

SPACING_S: Final = 5.0
"""Between two attempts: anybody can make up a token with a key that nobody knows."""

MOST_WAITING: Final = 500
"""Tokens that wait for keys; beyond that they wait for the API, whose turns are bounded as well."""

LEEWAY_S: Final = 10.0
"""By which our clock may be ahead of the provider's (RFC 7519 4.1.4)."""


class Keys:
    """The keys as they were last had, and when they are to be had again."""

    def __init__(self, source: KeyFile | KeyServer, now: Callable[[], float]) -> None:
        self._source = source
        self._now = now
        self._keys: tuple[Key, ...] = ()
        self._had_at = -math.inf
        self._tried_at = -math.inf
        self._is_failing = False
        self._waiting = 0
        self._renewal: asyncio.Task[None] | None = None

    async def candidates(self, identity: str | None, algorithm: str) -> list[Key] | None:
        """Return the keys that may have signed; None when that cannot be known now.

        Waits for the source, and for the time until it may be asked again, when no key that is known fits:
        a provider uses a new key as soon as it shows it.
        """
        fitting = self._fitting(identity, algorithm)
        now = self._now()
        if fitting:
            if now - self._had_at > RENEWAL_S and now - self._tried_at > SPACING_S:
                self._renew()
            return fitting
        if self._waiting >= MOST_WAITING or (self._is_failing and now - self._tried_at < SPACING_S):
            return None
        self._waiting += 1
        try:
            await asyncio.shield(self._renew())
        finally:
            self._waiting -= 1
        return None if self._is_failing else self._fitting(identity, algorithm)

    async def close(self) -> None:
        """Ask no more."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._source.close()

    def _fitting(self, identity: str | None, algorithm: str) -> list[Key]:
        return [key for key in self._keys if key.may_verify(identity, algorithm)]

    def _renew(self) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._fetch())
        return self._renewal

    async def _fetch(self) -> None:
        await asyncio.sleep(max(0.0, self._tried_at + SPACING_S - self._now()))
        try:
            self._keys = await self._source.fetch()
        except KeysUnavailable as error:
            if not self._is_failing:
                logs.get().warning(
                    "the keys of JWKS cannot be had: VISA alone judges tokens", detail=str(error)
                )
            self._is_failing = True
        else:
            if self._is_failing:
                logs.get().notice("the keys of JWKS can be had again")
            self._is_failing = False
            self._had_at = self._now()
        self._tried_at = self._now()


class Verification:
    """Verifies signature, issuer, audience and expiry."""

    def __init__(self, keys: Keys, issuer: str | None, audiences: Sequence[str]) -> None:
        """No issuer, or no audience, is: not looked at."""
        self._keys = keys
        self._issuer = issuer
        self._audiences = tuple(audiences) or None
        self._options: jwt.types.Options = {
            # By whose clock it was issued, and what its subject is, is for VISA to judge.
            "verify_iat": False,
            "verify_nbf": False,
            "verify_sub": False,
            "verify_jti": False,
            "verify_aud": self._audiences is not None,
        }

    async def verify(self, token: str) -> None:
        """Return if the token is good, or if nobody here can tell. Raises `TokenRejected`."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRejected("it is no signed JWT") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ACCEPTED:
            raise TokenRejected("its algorithm is not accepted")
        keys = await self._keys.candidates(header.get("kid"), algorithm)
        if keys is not None:
            self._verify(token, algorithm, keys)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._keys.close()

    def _verify(self, token: str, algorithm: str, keys: Sequence[Key]) -> None:
        for key in keys:
            try:
                jwt.decode(
                    token,
                    key.verifiers[algorithm],
                    [algorithm],
                    self._options,
                    audience=self._audiences,
                    issuer=self._issuer,
                    leeway=LEEWAY_S,
                )
            except jwt.InvalidSignatureError:
                continue  # that of another one, perhaps
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
                # The name of the class alone: the text may quote the token.
                raise TokenRejected(f"it does not hold: {type(error).__name__}") from None
            else:
                return
        raise TokenRejected("no known key has signed it")


def verification(
    url: str | None, file: str | None, issuer: str | None, audiences: Sequence[str], now: Callable[[], float]
) -> Verification:
    """Verify with the keys at `url` or, without one, in `file`."""
    source = KeyServer(url) if url is not None else KeyFile(file or "")
    return Verification(Keys(source, now), issuer, audiences)
