"""
Signs identity tokens: JSON Web Tokens about nodes.

Reference: RFC 7515, RFC 7519, RFC 8037.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tsrt.testing.control.records import NodeRecord

LIFETIME = 300
"""Seconds that a token is good for."""


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


class TokenSigner:
    """
    Signs with one Ed25519 key, which it publishes.
    """

    def __init__(
        self,
        domain: str,
        issuer: Callable[[], str],
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param domain: the DNS suffix of the nodes.
        @param issuer: the address of the server.
        @param randbytes: the source of secret random bytes.
        """
        self._domain = domain
        self._issuer = issuer
        self._randbytes = randbytes
        self._key = Ed25519PrivateKey.from_private_bytes(randbytes(32))
        self._keyID = _base64(randbytes(6))

    def keySet(self) -> dict[str, object]:
        """The public key, as a JSON Web Key Set."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        key = {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "kid": self._keyID,
            "x": _base64(raw),
        }
        return {"keys": [key]}

    def configuration(self) -> dict[str, object]:
        """Where verifiers find what they need, for OpenID discovery."""
        issuer = self._issuer()
        return {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        }

    def sign(self, node: NodeRecord, audience: str, now: float) -> str:
        """
        Make a token about a node.

        @param node: the node.
        @param audience: who is to trust the token.
        @param now: seconds since 1970.
        """
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self._keyID}
        claims = {
            "iss": self._issuer(),
            "sub": f"{node.name}.{self._domain}",
            "aud": [audience],
            "exp": int(now) + LIFETIME,
            "iat": int(now),
            "nbf": int(now),
            "jti": _base64(self._randbytes(16)),
            "domain": self._domain,
            "node": f"{node.name}.{self._domain}",
            "nid": node.id,
            "key": node.nodeKey.text(),
            "addresses": [prefix.text() for prefix in node.addresses],
            "tags": list(node.tags),
            "user": "" if node.tags else node.user.login,
            "uid": node.ownerID,
        }
        signed = f"{_base64(_json(header))}.{_base64(_json(claims))}"
        signature = self._key.sign(signed.encode("ascii"))
        return f"{signed}.{_base64(signature)}"
