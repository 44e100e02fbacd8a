"""The users of the stand-in VISA, and the tokens that say who they are."""

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

LIFETIME_S: Final = 12 * 3600
"""A working day. VISA Web would replace a token of some minutes silently; nothing does that here."""


@dataclass(frozen=True)
class User:
    """Somebody who can sign in; `login` is what the links name, `id` what the VISA API calls them."""

    login: str
    id: str
    given_name: str
    family_name: str
    roles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The full name."""
        return f"{self.given_name} {self.family_name}"

    @property
    def sub(self) -> str:
        """The identity provider's own name for this user: stable, and different from `id`."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:visa-demo:{self.login}"))


ADA: Final = User("ada", "10815", "Ada", "Lovelace")
EMMY: Final = User("emmy", "10323", "Emmy", "Noether", ("STAFF", "INSTRUMENT_SCIENTIST", "ADMIN"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens:
    """Signs and verifies OIDC-like access tokens (JWT, HS256) with a key that only this object knows."""

    def __init__(self, users: Sequence[User] = (ADA, EMMY), *, now: Callable[[], float] = time.time) -> None:
        self._users = {user.sub: user for user in users}
        self._now = now
        self._key = secrets.token_bytes(32)
        self._header = _encode(
            json.dumps({"alg": "HS256", "typ": "JWT", "kid": secrets.token_hex(16)}).encode()
        )

    def sign(self, user: User, *, lifetime_s: float = LIFETIME_S) -> str:
        """Return a new token of `user`, different from every other."""
        payload = _encode(json.dumps(self._claims(user, lifetime_s)).encode())
        return f"{self._header}.{payload}.{self._signature(payload)}"

    def verify(self, token: str) -> User | None:
        """Return whose token it is; None when it was not signed here, was changed, or has expired."""
        if not token.isascii():
            return None
        header, _, rest = token.partition(".")
        payload, _, signature = rest.partition(".")
        # All of the header is compared, so no token can choose its own algorithm.
        expected = self._signature(payload)
        if header != self._header or not hmac.compare_digest(expected.encode(), signature.encode()):
            return None
        claims = json.loads(_decode(payload))
        return self._users.get(claims["sub"]) if self._now() < claims["exp"] else None

    def _signature(self, payload: str) -> str:
        signed = f"{self._header}.{payload}".encode()
        return _encode(hmac.digest(self._key, signed, hashlib.sha256))

    def _claims(self, user: User, lifetime_s: float) -> dict[str, object]:
        # As many claims as a Keycloak sends, for tokens of a real size: about 1.2 kB.
        now, session = int(self._now()), str(uuid.uuid4())
        return {
            "exp": int(now + lifetime_s),
            "iat": now,
            "auth_time": now,
            "jti": str(uuid.uuid4()),
            "iss": "http://accounts.visa.test/realms/visa",
            "aud": ["visa", "account"],
            "sub": user.sub,
            "typ": "Bearer",
            "azp": "visa",
            "session_state": session,
            "acr": "1",
            "allowed-origins": ["http://127.0.0.1", "http://visa.test"],
            "realm_access": {
                "roles": ["default-roles-visa", "offline_access", "uma_authorization", *user.roles]
            },
            "resource_access": {
                "account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}
            },
            "scope": "openid profile email",
            "sid": session,
            "email_verified": True,
            "name": user.name,
            "given_name": user.given_name,
            "family_name": user.family_name,
            "preferred_username": user.login,
            "email": f"{user.login}@visa.test",
            "employeeNumber": user.id,
        }
