"""
What the control server knows: users, auth keys and nodes.

The records are read by anybody and changed only through
L{tsrt.testing.control.tailnet.Tailnet}.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from tsrt.addresses import Prefix, formatAddress
from tsrt.keys import DiscoPublic, MachinePublic, NodePublic, Secret
from tsrt.tailcfg import Hostinfo
from tsrt.testing.policy import Subject

TAGGED_DEVICES = 2147455555
"""The number of the user that all tagged nodes belong to."""

DEFAULT_ROUTES = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))
"""What an exit node advertises."""


@frozen
class User:
    """
    Somebody who owns nodes.

    @ivar id: the number.
    @ivar login: the login name, such as C{alice@example.com}.
    @ivar displayName: the name for people.
    @ivar admin: whether they administer the tailnet.
    @ivar created: when, in seconds since 1970.
    """

    id: int
    login: str
    displayName: str
    admin: bool = False
    created: float = 0.0


@define(eq=False)
class AuthKey:
    """
    A key that lets nodes in without a person.

    @ivar id: a number to name the key by.
    @ivar secret: the key itself.
    @ivar user: the owner; nodes of untagged keys become theirs.
    @ivar reusable: whether more than one node may use it.
    @ivar ephemeral: whether its nodes are deleted when they disconnect.
    @ivar preApproved: whether its nodes need no approval.
    @ivar tags: the tags of its nodes.
    @ivar expires: when it ends, in seconds since 1970; C{None} for never.
    @ivar revoked: whether it was revoked.
    @ivar usedBy: the machines and the nodes on them that used it.
    """

    id: int
    secret: Secret
    user: User
    reusable: bool = False
    ephemeral: bool = False
    preApproved: bool = True
    tags: tuple[str, ...] = ()
    expires: float | None = None
    revoked: bool = False
    usedBy: set[tuple[MachinePublic, int]] = field(factory=set)

    @property
    def text(self) -> str:
        """The key as a node is given it."""
        return self.secret.reveal()


@define(eq=False)
class NodeRecord:
    """
    A node of the tailnet.

    @ivar id: the number.
    @ivar stableID: the text that names the node for good.
    @ivar machineKey: the machine that it runs on.
    @ivar nodeKey: its present key.
    @ivar user: the owner; for tagged nodes, who let it in.
    @ivar tags: its tags.
    @ivar name: its name in the tailnet, one label.
    @ivar named: whether the name was given, and so does not follow the host's.
    @ivar addresses: its addresses, as host prefixes.
    @ivar created: when it joined, in seconds since 1970.
    @ivar expires: when its key ends, in seconds since 1970; C{None} for never.
    @ivar ephemeral: whether it is deleted when it disconnects.
    @ivar authorized: whether it was approved.
    @ivar discoKey: its key for path discovery, once known.
    @ivar hostinfo: what it says about itself.
    @ivar endpoints: where it may be reached, C{ip:port}.
    @ivar homeDERP: its home region; 0 when unknown.
    @ivar version: its capability version.
    @ivar online: whether it listens for maps; C{None} if it never did.
    @ivar lastSeen: when it last went offline, in seconds since 1970.
    @ivar advertisedRoutes: the routes that it offers to serve.
    @ivar approvedRoutes: the routes it may serve, if it advertises them.
    @ivar attributes: node attributes given to it alone.
    @ivar keySignature: its node-key signature for the tailnet lock.
    @ivar revision: grows with each change of the above.
    """

    id: int
    stableID: str
    machineKey: MachinePublic
    nodeKey: NodePublic
    user: User
    name: str
    addresses: tuple[Prefix, ...]
    created: float
    tags: tuple[str, ...] = ()
    named: bool = False
    expires: float | None = None
    ephemeral: bool = False
    authorized: bool = True
    discoKey: DiscoPublic | None = None
    hostinfo: Hostinfo = field(factory=Hostinfo)
    endpoints: tuple[str, ...] = ()
    homeDERP: int = 0
    version: int = 0
    online: bool | None = None
    lastSeen: float | None = None
    advertisedRoutes: tuple[Prefix, ...] = ()
    approvedRoutes: frozenset[Prefix] = frozenset()
    attributes: Mapping[str, tuple[object, ...]] = field(factory=dict)
    keySignature: bytes = b""
    revision: int = 0

    @property
    def ownerID(self) -> int:
        """The number of the user that peers are told."""
        return TAGGED_DEVICES if self.tags else self.user.id

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses as text."""
        return tuple(formatAddress(prefix.address) for prefix in self.addresses)

    @property
    def servedRoutes(self) -> tuple[Prefix, ...]:
        """The routes that the node offers and may serve."""
        approved = self.approvedRoutes
        return tuple(route for route in self.advertisedRoutes if route in approved)

    def isExpired(self, now: float) -> bool:
        """Whether its key has ended."""
        return self.expires is not None and self.expires <= now

    def subject(self) -> Subject:
        """The node as a policy sees it."""
        return Subject(
            self.id,
            login="" if self.tags else self.user.login,
            admin=self.user.admin and not self.tags,
            tags=frozenset(self.tags),
            addresses=self.addresses,
            routes=self.servedRoutes,
        )
