"""
Self-signed certificates for tests and development servers.

Nobody trusts them unless told to: hand L{TestCertificate.trustRoot} to the
client, or its L{TestCertificate.pin}, or let it not verify at all.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

META_PREFIX = "derpkey"
"""What the common name of a relay's meta certificate begins with."""

_DAY = datetime.timedelta(days=1)


def _now() -> datetime.datetime:
    # OpenSSL compares certificates with the real time, so this cannot be the
    # time of a simulated clock.
    return datetime.datetime.now(datetime.UTC)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class TestCertificate:
    """A certificate with its private key."""

    # Not a test case, whatever its name makes a test runner think.
    __test__ = False

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        """Certificates are made by L{selfSigned}."""
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> bytes:
        """The certificate as PEM, fit for a CA file."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def keyPEM(self) -> bytes:
        """The private key as unencrypted PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pin(self) -> str:
        """What a DERP map says as C{CertName} to demand this certificate."""
        der = self.certificate.public_bytes(Encoding.DER)
        return f"sha256-raw:{hashlib.sha256(der).hexdigest()}"

    @property
    def trustRoot(self) -> object:
        """A trust root that trusts this certificate and no other."""
        return trustRootFromCertificates([Certificate.loadPEM(self.pem)])

    def save(self, directory: Path, name: str = "server") -> tuple[Path, Path]:
        """
        Write certificate and key as files.

        @return: their paths, C{name.crt} and C{name.key}.
        """
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.touch(mode=0o600)
        key.write_bytes(self.keyPEM)
        return certificate, key

    def serverTLS(
        self,
        extra: Sequence[x509.Certificate] = (),
        maximum: int | None = None,
    ) -> IOpenSSLServerConnectionCreator:
        """
        What C{twisted.internet.endpoints.wrapServerTLS} needs.

        @param extra: certificates to send behind this one.
        @param maximum: the newest TLS version to speak, as one of the
            C{OpenSSL.SSL.TLS1_*_VERSION} numbers.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if maximum is not None:
            context.set_max_proto_version(maximum)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        for certificate in extra:
            context.add_extra_chain_cert(certificate)
        return _ServerTLS(context)


@implementer(IOpenSSLServerConnectionCreator)
class _ServerTLS:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def selfSigned(
    names: Iterable[str],
    *,
    days: float = 30,
    expired: bool = False,
    commonName: str | None = None,
) -> TestCertificate:
    """
    Make a certificate.

    @param names: the host names and addresses it is for; the first is also its
        common name.
    @param days: how long it is valid.
    @param expired: whether its time is already over.
    @param commonName: the common name, when not the first of C{names}.
    """
    names = list(names)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, commonName or names[0])]
    )
    begin = _now() - _DAY
    if expired:
        begin -= (days + 2) * _DAY
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + (days + 1) * _DAY)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    return TestCertificate(certificate, key)


def metaCertificate(publicKey: bytes, version: int = 2) -> x509.Certificate:
    """
    The certificate by which a relay tells its key during the TLS handshake.

    @param publicKey: the relay's 32-byte DERP key.
    @param version: the version of the DERP protocol.
    """
    key = ed25519.Ed25519PrivateKey.generate()
    with warnings.catch_warnings():
        # The name is longer than names may be, which no client minds.
        warnings.simplefilter("ignore")
        common: x509.NameAttribute[str] = x509.NameAttribute(
            NameOID.COMMON_NAME, META_PREFIX + publicKey.hex(), _validate=False
        )
        name = x509.Name([common])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
        return (
            builder.public_key(key.public_key())
            .serial_number(version)
            .not_valid_before(_now() - 30 * _DAY)
            .not_valid_after(_now() + 30 * _DAY)
            .add_extension(
                x509.BasicConstraints(ca=False, path_length=None), critical=True
            )
            .sign(key, None)
        )
