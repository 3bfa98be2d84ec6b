"""
TLS with relays: what makes a certificate the right one.

A relay map says of each server how its certificate is to be judged:

  - by its host name, as usual;
  - by another name (C{CertName}), while the host name is still asked for;
  - by its hash (C{sha256-raw:}), for servers that no authority vouches for;
  - not at all (C{InsecureForTests}).
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import warnings
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from service_identity.exceptions import CertificateError, VerificationError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.errors import RelayCertificateError
from tsrt.tailcfg import DERPNode

PIN_PREFIX = "sha256-raw:"
"""What a C{CertName} begins with that is the hash of a certificate."""

META_PREFIX = "derpkey"
"""What the common name of a certificate begins with that tells a relay's key."""

_TLS_1_3 = 0x0304

Check = Callable[[SSL.Connection], None]
"""Judges a connection whose handshake is done; raises RelayCertificateError."""


def _wallClock() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _isAddress(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _commonName(certificate: x509.Certificate) -> str:
    try:
        with warnings.catch_warnings():
            # A name that tells a key is longer than names may be.
            warnings.simplefilter("ignore")
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return str(names[0].value) if names else ""


def _verifyName(certificate: x509.Certificate, name: str) -> None:
    """Raise RelayCertificateError unless C{certificate} is for C{name}."""
    try:
        if _isAddress(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except (VerificationError, CertificateError, ValueError):
        raise RelayCertificateError(
            f"the relay's certificate is not for {name}"
        ) from None


def checkName(name: str) -> Check:
    """Demand a certificate for C{name}."""

    def check(connection: SSL.Connection) -> None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise RelayCertificateError("the relay has no certificate")
        _verifyName(certificate, name)

    return check


def verifyPinned(
    chain: Sequence[x509.Certificate],
    wanted: str,
    serverName: str,
    now: datetime.datetime,
) -> None:
    """
    Demand one very certificate.

    @param chain: what the server sent; certificates that only tell its key are
        not looked at, and exactly one other must be there.
    @param wanted: the SHA-256 of its DER form, in lower-case hexadecimal.
    @param serverName: what it must be for; empty for anything.
    @param now: when it must be valid.
    @raise RelayCertificateError: when it is not.
    """
    others = [c for c in chain if not _commonName(c).startswith(META_PREFIX)]
    if len(others) != 1:
        raise RelayCertificateError(
            f"the relay shows {len(others)} certificates where one is pinned"
        )
    [certificate] = others
    found = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    if found != wanted:
        raise RelayCertificateError(
            "the relay's certificate is not the one that is pinned "
            f"(it has the hash {found})"
        )
    if serverName:
        _verifyName(certificate, serverName)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise RelayCertificateError(
            "the relay's pinned certificate is not valid at this time"
        )


def checkPinned(
    wanted: str,
    serverName: str,
    wallClock: Callable[[], datetime.datetime] = _wallClock,
) -> Check:
    """Demand the certificate with a certain hash; see L{verifyPinned}."""

    def check(connection: SSL.Connection) -> None:
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        verifyPinned(chain, wanted, serverName, wallClock())

    return check


class _Judgement:
    """What became of the certificate of one connection."""

    def __init__(self, protocol: TLSMemoryBIOProtocol) -> None:
        self.protocol = protocol
        self.isAccepted = False
        self.problem: RelayCertificateError | None = None


# By the connection, because Twisted has its own use for the one place that
# OpenSSL offers for such things.
_judgements: WeakKeyDictionary[SSL.Connection, _Judgement] = WeakKeyDictionary()


@implementer(IOpenSSLClientConnectionCreator)
class RelayTLS:
    """
    Makes the TLS connections with one relay server.

    No ALPN is offered: a server that would pick HTTP/2 could not upgrade.
    """

    def __init__(
        self, serverName: str, trustRoot: object | None, check: Check | None
    ) -> None:
        """
        @param serverName: what to ask the server for; addresses are not sent.
        @param trustRoot: what the certificate must lead to; C{None} to accept
            any.
        @param check: a further judgement.
        """
        self._serverName = serverName
        self._trustRoot = trustRoot
        self._check = check
        self._context: SSL.Context | None = None

    def _makeContext(self) -> SSL.Context:
        if self._trustRoot is None:
            options = CertificateOptions(
                verify=False, raiseMinimumTo=TLSVersion.TLSv1_2
            )
        else:
            options = CertificateOptions(
                trustRoot=self._trustRoot,  # type: ignore[arg-type]  # private type
                raiseMinimumTo=TLSVersion.TLSv1_2,
            )
        context: SSL.Context = options.getContext()
        if self._trustRoot is not None:
            context.set_verify(SSL.VERIFY_PEER, self._chainVerified)
        context.set_info_callback(self._progress)
        return context

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        if self._context is None:
            self._context = self._makeContext()
        connection = SSL.Connection(self._context, None)
        _judgements[connection] = _Judgement(tlsProtocol)
        if self._serverName and not _isAddress(self._serverName):
            connection.set_tlsext_host_name(self._serverName.encode("ascii"))
        connection.set_connect_state()
        return connection

    def _chainVerified(
        self,
        connection: SSL.Connection,
        certificate: crypto.X509,
        code: int,
        depth: int,
        ok: int,
    ) -> bool:
        judgement = _judgements.get(connection)
        if not ok and judgement is not None and judgement.problem is None:
            reason = _CHAIN_PROBLEMS.get(code, f"not trusted (code {code})")
            judgement.problem = RelayCertificateError(
                f"the relay's certificate is {reason}"
            )
        return bool(ok)

    def _progress(self, connection: SSL.Connection, where: int, ret: int) -> None:
        if not where & SSL.SSL_CB_HANDSHAKE_DONE:
            return
        # No exception finds its way through OpenSSL, so that whatever goes
        # wrong here must end in a connection that was not accepted.
        judgement = _judgements.get(connection)
        if judgement is None or judgement.isAccepted:
            return
        try:
            if self._check is not None:
                self._check(connection)
        except RelayCertificateError as problem:
            judgement.problem = problem
            judgement.protocol.failVerification(Failure(problem))
        except Exception as error:
            judgement.problem = RelayCertificateError(
                f"the relay's certificate cannot be judged: {error}"
            )
            judgement.protocol.failVerification(Failure(judgement.problem))
        else:
            judgement.isAccepted = True


_CODES = SSL.X509VerificationCodes

_CHAIN_PROBLEMS = {
    _CODES.ERR_CERT_NOT_YET_VALID: "not valid yet (or this clock is slow)",
    _CODES.ERR_CERT_HAS_EXPIRED: "expired (or this clock is fast)",
    _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed",
    _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN: "of an authority that is not trusted",
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ("of an authority that is not known"),
}


def relayTLS(
    node: DERPNode,
    trustRoot: object,
    wallClock: Callable[[], datetime.datetime] = _wallClock,
) -> RelayTLS:
    """
    TLS as the relay map wants it for C{node}.

    @param trustRoot: what certificates must lead to, unless the map says
        otherwise.
    @param wallClock: what time it is.
    """
    if node.insecureForTests:
        return RelayTLS(node.hostName, None, None)
    if node.certName.startswith(PIN_PREFIX):
        wanted = node.certName.removeprefix(PIN_PREFIX)
        # A malformed pin matches nothing, which is what it should do.
        check = checkPinned(wanted, node.hostName, wallClock)
        return RelayTLS(node.hostName, None, check)
    return RelayTLS(node.hostName, trustRoot, checkName(node.certName or node.hostName))


def _judgementOf(transport: object) -> _Judgement | None:
    handle = getattr(transport, "getHandle", lambda: None)()
    return _judgements.get(handle) if isinstance(handle, SSL.Connection) else None


def certificateAccepted(transport: object) -> bool:
    """
    Whether a TLS transport was made by a L{RelayTLS} which found everything to
    be right.  Nothing may be said to a relay before.
    """
    judgement = _judgementOf(transport)
    return judgement is not None and judgement.isAccepted


def certificateProblem(transport: object) -> RelayCertificateError | None:
    """What was wrong with the certificate of a TLS transport, if anything."""
    judgement = _judgementOf(transport)
    return None if judgement is None else judgement.problem


def announcedKey(transport: object) -> bytes | None:
    """
    The relay's key, where it told it during the handshake.

    Only from TLS 1.3 on, which keeps certificates from being seen and changed
    on the way.

    @return: 32 bytes, or C{None}.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if (
        not isinstance(handle, SSL.Connection)
        or handle.get_protocol_version() < _TLS_1_3
    ):
        return None
    for certificate in handle.get_peer_cert_chain(as_cryptography=True) or []:
        name = _commonName(certificate)
        if not name.startswith(META_PREFIX) or certificate.serial_number > 255:
            continue
        try:
            key = bytes.fromhex(name.removeprefix(META_PREFIX))
        except ValueError:
            continue
        if len(key) == 32:
            return key
    return None
