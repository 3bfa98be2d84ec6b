"""What an administrator of the tailnet does: the calls of the control server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tsrt.addresses import Prefix
from tsrt.tailcfg import ControlDialPlan, DERPMap
from tsrt.testing.control.core import ControlCore
from tsrt.testing.control.logins import PendingLogin
from tsrt.testing.control.records import AuthKey, NodeRecord, User
from tsrt.testing.control.settings import DNSSettings
from tsrt.testing.control.tailnet import NodeReference


class Administration:
    """
    Users, auth keys, nodes, and what all nodes are told.

    Methods that take a node take a record, a number, a name or an address, and
    raise L{tsrt.errors.UnknownPeer} when there is no such node.
    """

    _core: ControlCore
    _wallTime: Callable[[], float]

    # -- users and keys ---------------------------------------------------------------

    def addUser(self, name: str, displayName: str = "", admin: bool = False) -> User:
        """
        Add a user.

        @param name: the login name; without an C{@}, the domain is added.
        @param displayName: the name for people; made from C{name} if empty.
        @param admin: whether they administer the tailnet.
        @raise ConfigError: if the name is empty or taken.
        """
        return self._core.tailnet.addUser(name, self._wallTime(), displayName, admin)

    def users(self) -> list[User]:
        """All users, the oldest first."""
        return self._core.tailnet.users()

    def _user(self, user: User | str | None) -> User:
        return self._core.tailnet.user(user) if user else self.users()[0]

    def createAuthKey(
        self,
        user: User | str | None = None,
        *,
        text: str = "",
        reusable: bool = False,
        ephemeral: bool = False,
        preApproved: bool = True,
        tags: Iterable[str] = (),
        lifetime: float | None = None,
    ) -> AuthKey:
        """
        Make an auth key; its C{text} is what a node is given.

        @param user: the owner; the first user if not given.
        @param text: the key itself; random if empty.
        @param reusable: whether more than one node may use it.
        @param ephemeral: whether its nodes are deleted when they disconnect.
        @param preApproved: whether its nodes need no approval.
        @param tags: the tags of its nodes.
        @param lifetime: seconds until it ends; C{None} for never.
        @raise ConfigError: if the user is unknown, a tag is malformed or the
            text is taken.
        """
        return self._core.tailnet.createAuthKey(
            self._user(user),
            text=text,
            reusable=reusable,
            ephemeral=ephemeral,
            preApproved=preApproved,
            tags=tags,
            expires=None if lifetime is None else self._wallTime() + lifetime,
        )

    def revokeAuthKey(self, key: AuthKey) -> None:
        """Let no more nodes in by a key; those that it let in stay."""
        key.revoked = True

    def logins(self) -> list[PendingLogin]:
        """The machines that wait for a person to let them in."""
        return self._core.registrar.logins()

    def approve(self, login: str, user: User | str | None = None) -> NodeRecord:
        """
        Let a machine in that waits for a person.

        @param login: the URL that the machine was given, or its last part.
        @param user: whose node it becomes; the first user's if not given.
        @raise UnknownPeer: if there is no such login.
        @raise Refusal: if it asks for tags that the user may not give.
        """
        return self._core.registrar.approve(login, self._user(user), self._wallTime())

    def deny(self, login: str, reason: str = "") -> None:
        """
        Refuse a machine that waits for a person.

        @param login: the URL that the machine was given, or its last part.
        @param reason: what it is told.
        @raise UnknownPeer: if there is no such login.
        """
        self._core.registrar.deny(login, reason, self._wallTime())

    # -- nodes ------------------------------------------------------------------------

    def nodes(self) -> list[NodeRecord]:
        """All nodes, the oldest first."""
        return self._core.tailnet.nodes()

    def node(self, node: NodeReference) -> NodeRecord:
        """Find a node."""
        return self._core.tailnet.node(node)

    def _update(self, node: NodeReference, **changes: object) -> None:
        self._core.tailnet.update(self.node(node), **changes)

    def approveNode(self, node: NodeReference) -> None:
        """Let a machine take part that waits for approval."""
        self._update(node, authorized=True)

    def deleteNode(self, node: NodeReference) -> None:
        """Remove a node; it has to register again."""
        self._core.removeNode(self.node(node))

    def expireNode(self, node: NodeReference) -> None:
        """End the key of a node now; it has to log in again."""
        self._update(node, expires=self._wallTime())

    def setExpiry(self, node: NodeReference, when: float | None) -> None:
        """
        Set when the key of a node ends; a later time brings a node back whose
        key has ended.

        @param when: seconds since 1970; C{None} for never.
        """
        self._update(node, expires=when)

    def renameNode(self, node: NodeReference, name: str) -> None:
        """
        Give a node another name, whatever its host is called.

        @param name: the name; an empty one goes back to that of the host.
        @raise ConfigError: if the name is taken or impossible.
        """
        self._core.tailnet.rename(self.node(node), name)

    def approveRoutes(
        self, node: NodeReference, routes: Iterable[str] | None = None
    ) -> None:
        """
        Approve the routes that a node may serve.

        @param routes: prefixes; C{None} for all that it advertises now.
        """
        record = self.node(node)
        prefixes = (
            record.advertisedRoutes
            if routes is None
            else [Prefix.parse(route) for route in routes]
        )
        self._core.tailnet.approveRoutes(record, prefixes)

    def setAddresses(self, node: NodeReference, addresses: Iterable[str]) -> None:
        """
        Give a node other addresses.

        @param addresses: of any family, one or several.
        """
        hosts = tuple(Prefix.parse(address) for address in addresses)
        self._update(node, addresses=hosts)

    def setAttributes(
        self, node: NodeReference, attributes: Mapping[str, Iterable[object]]
    ) -> None:
        """
        Replace the node attributes that are given to one node alone.

        @param attributes: names and lists of values.
        """
        self._core.tailnet.setAttributes(self.node(node), attributes)

    def overridePeer(
        self, viewer: NodeReference, peer: NodeReference, **fields: object
    ) -> None:
        """
        Show one node another differently than it is.

        @param viewer: the node that is shown something.
        @param peer: the node that is shown.
        @param fields: values by attribute of L{tsrt.tailcfg.WireNode}, such as
            C{isJailed}; none shows it as it is.
        """
        self._core.view.override(self.node(viewer).id, self.node(peer).id, fields)
        self._core.changed()

    # -- what all nodes are told ------------------------------------------------------

    def setPolicy(self, text: str) -> None:
        """
        Put another policy in force.

        @param text: the document; empty to let all talk with all.
        @raise PolicyError: if it is malformed or a test in it fails; the one
            before stays in force.
        """
        self._core.setPolicy(text)

    def setDERPMap(self, derpMap: DERPMap) -> None:
        """Replace the relays."""
        self._core.view.derpMap = derpMap
        self._core.changed()

    @property
    def dns(self) -> DNSSettings:
        """How nodes resolve names."""
        return self._core.view.dns

    def setDNS(self, settings: DNSSettings) -> None:
        """Change how nodes resolve names."""
        self._core.view.dns = settings
        self._core.changed()

    def setHealth(self, *problems: str) -> None:
        """
        Have all nodes show problems to their users.

        @param problems: one sentence each; none means all is well.
        """
        self._core.view.health = problems
        self._core.changed()

    def setDialPlan(self, plan: ControlDialPlan | None) -> None:
        """Tell nodes how to reach the server when names do not resolve."""
        self._core.view.dialPlan = plan
        self._core.changed()

    # -- for inspection -----------------------------------------------------------

    @property
    def dnsRecords(self) -> list[tuple[int, str, str, str]]:
        """
        The records that nodes asked to publish: the number of the node, name,
        type and value.
        """
        return list(self._core.api.dnsRecords)

    @property
    def auditLog(self) -> list[tuple[int, str, str]]:
        """
        What nodes reported: the number of the node, action and details.
        """
        return list(self._core.api.auditLog)

    def failNext(
        self,
        path: str,
        status: int,
        message: str = "failed on demand",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """
        Let the next requests for a path fail, to see how a client takes it.

        @param path: of a page or a node's request, such as
            C{/machine/register}.
        @param status: the status code of the answers.
        @param message: their body.
        @param headers: their further headers, such as C{Retry-After}.
        @param times: how many requests fail.
        """
        self._core.faults.plan(path, status, message, headers, times)
