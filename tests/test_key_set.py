"""Which keys of a key set are taken, and where they come from."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from support.identity import Provider, Signer, rsa_key
from visa_jupyter_proxy.worker.access.key_set import KeyFile, KeysUnavailable, parse

_RSA = ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]


def _document(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def _algorithms(*keys: object) -> list[str]:
    """Give what the first key that is taken may verify."""
    return sorted(parse(_document(*keys))[0].verifiers)


class TestParse:
    """RFC 7517: a set may hold what is for others."""

    @pytest.mark.parametrize(
        ("signer", "more", "expected"),
        [
            (Signer("a", rsa_key(0), "RS256"), {}, _RSA),
            (Signer("a", rsa_key(0), "RS256"), {"use": "sig", "alg": "PS256"}, ["PS256"]),
            (Signer("a", ec.generate_private_key(ec.SECP256R1()), "ES256"), {}, ["ES256"]),
            (Signer("a", ec.generate_private_key(ec.SECP384R1()), "ES384"), {}, ["ES384"]),
            (Signer("a", ec.generate_private_key(ec.SECP521R1()), "ES512"), {"alg": "ES512"}, ["ES512"]),
            (Signer("a", ed25519.Ed25519PrivateKey.generate(), "EdDSA"), {}, ["EdDSA"]),
        ],
        ids=["rsa", "rsa for one", "p-256", "p-384", "p-521", "ed25519"],
    )
    def test_asymmetric_keys(self, signer: Signer, more: dict[str, Any], expected: list[str]) -> None:
        """Each may verify what its kind can, or the one thing that it says it is for."""
        assert expected == _algorithms(signer.jwk(**more))

    @pytest.mark.parametrize(
        "key",
        [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
            {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"},
            Signer("a", rsa_key(0), "RS256").jwk(use="enc"),
            Signer("a", rsa_key(0), "RS256").jwk(alg="HS256"),
            Signer("a", rsa_key(0), "RS256").jwk(alg="none"),
            Signer("a", rsa_key(0), "RS256").jwk(alg="ES256"),
            Signer("a", rsa_key(0, bits=1024), "RS256").jwk(),
            {"kty": "RSA", "n": "!", "e": "AQAB"},
            {"kty": "RSA"},
            {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": ["RSA"]},
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
            {},
            "RSA",
            None,
        ],
        ids=[  # without the keys, which are others in each process
            "symmetric",
            "symmetric with an algorithm",
            "for encryption",
            "algorithm HS256",
            "algorithm none",
            "algorithm of another kind",
            "1024 bits",
            "n is no number",
            "RSA without numbers",
            "curve secp256k1",
            "a point that is none",
            "kty is a list",
            "kty AKP",
            "nothing",
            "text",
            "null",
        ],
    )
    def test_what_is_left_out(self, key: object) -> None:
        """Symmetric, weak, broken, for something else, or of no kind that is known; the good one is taken."""
        good = Signer("good", rsa_key(0), "RS256").jwk()
        assert ["good"] == [taken.identity for taken in parse(_document(key, good))]
        with pytest.raises(KeysUnavailable, match="none of its keys can be used"):
            parse(_document(key))

    @pytest.mark.parametrize(
        "document", [b"", b"<html>", b"[]", b"null", b'{"keys": {}}', b'{"keys": "\xff"}', b"[" * 100_000]
    )
    def test_what_is_no_key_set(self, document: bytes) -> None:
        """It is said so, and nothing of it is shown."""
        with pytest.raises(KeysUnavailable, match=r"^it is no JSON Web Key Set$"):
            parse(document)

    def test_a_set_has_an_end(self) -> None:
        """Of thousands of keys the first ones count: a token without `kid` is tried with each."""
        keys = [Signer(str(number), rsa_key(0), "RS256").jwk(alg="RS256") for number in range(40)]
        assert 32 == len(parse(_document(*keys)))


class TestFile:
    """A file."""

    def test_it_is_read_each_time(self, tmp_path: Path) -> None:
        """It may have been replaced."""
        provider, path = Provider(), tmp_path / "keys.json"
        source = KeyFile(str(path))
        path.write_bytes(provider.key_set())
        assert 1 == len(asyncio.run(source.fetch()))
        provider.rotate()
        path.write_bytes(provider.key_set())
        assert 2 == len(asyncio.run(source.fetch()))
        path.unlink()
        with pytest.raises(KeysUnavailable, match="No such file or directory"):
            asyncio.run(source.fetch())
