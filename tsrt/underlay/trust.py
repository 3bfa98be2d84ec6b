"""
Which certificate authorities are trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL, crypto

# The interface is not exported, though platformTrust() is documented to
# return a provider of it and every place that takes a trust root asks for it.
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.ssl import platformTrust
from zope.interface import implementer

from tsrt.errors import ConfigError


@implementer(IOpenSSLTrustRoot)
class CombinedTrust:
    """What the operating system trusts, and some certificates besides."""

    def __init__(self, certificates: Iterable[x509.Certificate]) -> None:
        """
        @param certificates: the additional authorities.
        """
        self._platform = platformTrust()
        self._certificates = [crypto.X509.from_cryptography(c) for c in certificates]

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        """See L{IOpenSSLTrustRoot}."""
        self._platform._addCACertsToContext(context)
        store = context.get_cert_store()
        if store is None:
            raise ConfigError("this OpenSSL takes no further authorities")
        for certificate in self._certificates:
            store.add_cert(certificate)


def trustRoot(caFile: Path | None = None) -> object:
    """
    The trust root for outgoing TLS connections.

    @param caFile: a PEM file of authorities that are trusted besides those of
        the operating system.
    @return: a provider of Twisted's C{IOpenSSLTrustRoot}.
    @raise ConfigError: when C{caFile} cannot be read or holds no certificate.
    """
    if caFile is None:
        return platformTrust()
    try:
        certificates = x509.load_pem_x509_certificates(caFile.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the CA file {caFile} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"the CA file {caFile} holds no usable certificate",
            advice="It must be PEM, with BEGIN CERTIFICATE lines.",
        ) from error
    return CombinedTrust(certificates)
