"""An identity provider for tests: keys of its own, the key set that shows them, the tokens that they sign.

provider = Provider()
provider.token(sub="anna")                    # good for a minute
provider.token(sub="anna", exp=-60)           # `exp` counts from now
provider.rotate(); provider.key_set()         # a new key, and the document that shows it
"""

import json
import time
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER: Final = "https://idp.example.org/realms/visa"
AUDIENCE: Final = "visa"

type PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Give the same key for the same number: making one takes a moment."""
    assert number >= 0
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


class Signer:
    """A key pair with its `kid`."""

    def __init__(self, kid: str | None, private: PrivateKey, algorithm: str) -> None:
        self.kid = kid
        self.private = private
        self.algorithm = algorithm

    def jwk(self, **more: object) -> dict[str, Any]:
        """Show the public half."""
        shown = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        named = {} if self.kid is None else {"kid": self.kid}
        return {name: value for name, value in shown.items() if name != "key_ops"} | named | more

    def sign(self, claims: dict[str, Any], **header: object) -> str:
        """Sign a token; `exp` counts from now."""
        if isinstance(exp := claims.get("exp"), int | float):
            claims = claims | {"exp": time.time() + exp}
        named = {} if self.kid is None else {"kid": self.kid}
        payload = json.dumps(claims).encode()  # `jwt.encode` would refuse claims that are wrong
        return jwt.PyJWS().encode(payload, self.private, self.algorithm, headers=named | header)


class Provider:
    """Signs with its newest key, and shows all that it has."""

    def __init__(self) -> None:
        self.signers = [Signer("key-0", rsa_key(0), "RS256")]

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        number = len(self.signers)
        self.signers.append(Signer(f"key-{number}", rsa_key(number), "RS256"))

    def token(self, **claims: object) -> str:
        """Sign a token of this issuer, for this audience, good for a minute, but for what is said."""
        usual: dict[str, object] = {"iss": ISSUER, "aud": [AUDIENCE, "account"], "sub": "anna", "exp": 60}
        given = {name: value for name, value in (usual | claims).items() if value is not None}
        return self.signers[-1].sign(given)

    def key_set(self, *more: dict[str, Any]) -> bytes:
        """Show the keys, as `JWKS_URL` would."""
        return json.dumps({"keys": [signer.jwk(use="sig") for signer in self.signers] + list(more)}).encode()
