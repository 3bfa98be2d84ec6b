"""
TLS for the connections to the control server.

Nothing here offers ALPN, so that a server never picks HTTP/2 on a connection
that has to be upgraded by HTTP/1.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from OpenSSL import SSL, crypto
from service_identity.exceptions import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

_Codes = SSL.X509VerificationCodes

_DATE_CODES = frozenset((_Codes.ERR_CERT_NOT_YET_VALID, _Codes.ERR_CERT_HAS_EXPIRED))

_WORDS = {
    _Codes.ERR_CERT_NOT_YET_VALID: "the certificate is not valid yet",
    _Codes.ERR_CERT_HAS_EXPIRED: "the certificate has expired",
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "the certificate is self-signed",
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "the certificate's issuer is not trusted",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: (
        "the certificate's issuer is not known"
    ),
}


def verifiedTLS(host: str, trustRoot: object) -> IOpenSSLClientConnectionCreator:
    """
    TLS that fails unless the certificate is C{host}'s and is trusted.

    @param trustRoot: what a certificate must lead to; C{None} means what the
        operating system trusts.
    """
    return optionsForClientTLS(
        host,
        trustRoot=trustRoot,  # type: ignore[arg-type]  # Twisted's type is private
    )


@implementer(IOpenSSLClientConnectionCreator)
class NotedTLS:
    """
    TLS that goes on whatever the certificate, and tells what is wrong with it.

    For what is proved in another way: the Noise handshake inside proves the
    server's key, and a wrong certificate is merely worth a line in the log.
    One object is for one connection.
    """

    def __init__(self, host: str, trustRoot: object) -> None:
        """
        @param host: whom the certificate should name.
        @param trustRoot: as for L{verifiedTLS}.
        """
        self._host = host
        self._trustRoot: object = trustRoot
        if trustRoot is None:
            self._trustRoot = platformTrust()
        self._connection: SSL.Connection | None = None
        self._codes: list[int] = []

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        options = CertificateOptions(
            trustRoot=self._trustRoot,  # type: ignore[arg-type]  # as above
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        context = options.getContext()
        context.set_verify(SSL.VERIFY_PEER, self._verify)
        connection = SSL.Connection(context, None)
        if not _isAddress(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        connection.set_connect_state()
        self._connection = connection
        return connection

    def _verify(
        self,
        connection: SSL.Connection,
        certificate: crypto.X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        if not ok:
            self._codes.append(error)
        return True

    @property
    def isDateProblem(self) -> bool:
        """Whether the dates are all that is wrong with the certificate."""
        return bool(self._codes) and _DATE_CODES.issuperset(self._codes)

    def problem(self) -> str | None:
        """
        What is wrong with the certificate, or C{None} for nothing.

        It can be told from the end of the TLS handshake on.
        """
        if self._codes:
            code = self._codes[0]
            return _WORDS.get(code, f"the certificate is not trusted (code {code})")
        if self._connection is None:
            return None
        check: Callable[[SSL.Connection, str], None] = (
            verify_ip_address if _isAddress(self._host) else verify_hostname
        )
        try:
            check(self._connection, self._host)
        except VerificationError:
            return f"the certificate does not name {self._host}"
        except ValueError as error:
            return f"the certificate cannot be checked: {error}"
        return None


def _isAddress(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
