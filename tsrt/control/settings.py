"""
What the control client is told once, and who the node is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from attrs import evolve, field, frozen, validators

from tsrt.control.urls import ControlURL, parseControlURL
from tsrt.keys import DiscoPublic, LockKey, MachineKey, NodeKey, NodePublic, Secret
from tsrt.tailcfg import Hostinfo, NetInfo

_WRAPPED = "--TL"


def _asTuple(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen(kw_only=True)
class ControlSettings:
    """
    How to use a control server.

    @ivar url: the server.
    @ivar authKey: lets the node in where no saved key does.
    @ivar hostname: the name that the node asks for.
    @ivar tags: the tags that the node asks for.
    @ivar ephemeral: whether the server forgets the node when it is gone.
    @ivar expiry: when the node key shall expire, if sooner than the server has
        in mind.
    @ivar tailnet: the tailnet to join, where the server has several.
    @ivar forceReauth: get a new node key although a saved one may be good.
    @ivar allowHTTP: permit a plain C{http://} server anywhere.
    @ivar forceTLS: never try plain HTTP for the Noise connection, unless the
        server has nothing else.
    @ivar compress: ask for compressed maps.
    @ivar server: C{url}, checked.
    """

    url: str
    authKey: Secret | None = None
    hostname: str = ""
    tags: tuple[str, ...] = field(default=(), converter=_asTuple)
    ephemeral: bool = False
    expiry: datetime | None = None
    tailnet: str = ""
    forceReauth: bool = False
    allowHTTP: bool = False
    forceTLS: bool = False
    compress: bool = True
    server: ControlURL = field(init=False)

    @server.default
    def _server(self) -> ControlURL:
        return parseControlURL(self.url, allowHTTP=self.allowHTTP)


@frozen(kw_only=True)
class Identity:
    """
    The keys and names under which the control server knows the node.

    @ivar machineKey: never changes.
    @ivar nodeKey: the current node key, once there is one.
    @ivar oldNodeKey: the one before, which proves that both are one node.
    @ivar lockKey: signs node keys where the tailnet lock is in use.
    @ivar discoPublic: the key for finding paths; new for each process.
    @ivar backendLogID: 64 hexadecimal digits; servers insist on it.
    """

    machineKey: MachineKey
    lockKey: LockKey
    discoPublic: DiscoPublic
    backendLogID: str = field(validator=validators.min_len(1))
    nodeKey: NodeKey | None = None
    oldNodeKey: NodeKey | None = None

    def withNodeKey(self, key: NodeKey) -> Identity:
        """The same node under a new key, which remembers the one before."""
        if self.nodeKey is not None and self.nodeKey.raw == key.raw:
            return self
        return evolve(self, nodeKey=key, oldNodeKey=self.nodeKey)


@frozen
class LoginInfo:
    """
    Whose node this is.

    @ivar userID: the number of the user.
    @ivar loginName: such as an e-mail address.
    @ivar displayName: for people to read.
    @ivar profilePicture: a URL, or empty.
    """

    userID: int = 0
    loginName: str = ""
    displayName: str = ""
    profilePicture: str = ""


class LockSigner(Protocol):
    """Signs node keys for the tailnet lock."""

    def rotate(self, signature: bytes, nodeKey: NodePublic) -> bytes:
        """
        Extend a signature to a new node key.

        @param signature: of the node key before.
        """

    def credential(
        self, credential: bytes, secret: bytes, nodeKey: NodePublic
    ) -> bytes:
        """
        Sign a node key with what came along with an auth key.

        @param credential: the signature inside of the auth key.
        @param secret: the private key inside of the auth key.
        """


@frozen
class AuthKeyParts:
    """
    An auth key taken apart.

    @ivar plain: what the control server may see.
    @ivar wrapped: the part for the tailnet lock, or empty; it is secret.
    """

    plain: Secret
    wrapped: Secret

    @classmethod
    def of(cls, key: Secret) -> AuthKeyParts:
        """Take C{key} apart; most keys have nothing for the tailnet lock."""
        plain, separator, wrapped = key.reveal().strip().partition(_WRAPPED)
        if not separator:
            return cls(Secret(plain), Secret(""))
        return cls(Secret(plain), Secret(wrapped))


def describeHost(
    base: Hostinfo,
    settings: ControlSettings,
    identity: Identity,
    netInfo: NetInfo | None = None,
) -> Hostinfo:
    """
    What the server is told about this machine.

    @param base: what the caller knows.
    @param netInfo: what is known about the network.
    @return: C{base} with everything added that is set elsewhere.
    """
    changes: dict[str, object] = {"backendLogID": identity.backendLogID}
    if settings.hostname:
        changes["hostname"] = settings.hostname
    if settings.tags:
        changes["requestTags"] = sorted(settings.tags)
    if netInfo is not None:
        changes["netInfo"] = netInfo
    result = copy.copy(base)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


HostSource = Callable[[], Hostinfo]
