"""
The state of a tailnet, in memory: who is in it, and who may come in.

A pure machine: time is passed in, randomness is given at construction, and
whoever has to tell the nodes about a change is told by a callable.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping

from tsrt.addresses import Prefix
from tsrt.errors import ConfigError, UnknownPeer, WireError
from tsrt.keys import DiscoPublic, MachinePublic, NodePublic, Secret
from tsrt.tailcfg import Hostinfo
from tsrt.testing.control.names import sanitizeHostname, uniqueName
from tsrt.testing.control.pool import AddressPool
from tsrt.testing.control.records import (
    TAGGED_DEVICES,
    AuthKey,
    NodeRecord,
    User,
)
from tsrt.testing.control.refusal import Refusal
from tsrt.testing.policy.selectors import isTag

MAX_ENDPOINTS = 100
"""How many endpoints of a node are kept."""

NodeReference = NodeRecord | int | str
"""A node, its number, its name, an address of it, or its stable ID."""


class Tailnet:
    """
    Users, auth keys and nodes.
    """

    def __init__(
        self,
        domain: str,
        randbytes: Callable[[int], bytes],
        *,
        pool: AddressPool | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """
        @param domain: the DNS suffix of the nodes, without dots at its ends.
        @param randbytes: the source of secret random bytes.
        @param pool: hands out addresses.
        @param changed: called after each change that nodes have to hear of.
        """
        self.domain = domain
        self._randbytes = randbytes
        self._pool = pool or AddressPool()
        self._changed = changed
        self._users: dict[str, User] = {}
        self._keys: dict[str, AuthKey] = {}
        self._nodes: dict[int, NodeRecord] = {}
        self._byKey: dict[NodePublic, NodeRecord] = {}
        self._lastUser = 0
        self._lastKey = 0
        self._lastNode = 0

    # -- users ----------------------------------------------------------------------

    def addUser(
        self, name: str, now: float, displayName: str = "", admin: bool = False
    ) -> User:
        """
        Add a user.

        @param name: the login name; without an C{@}, the domain is added.
        @param now: seconds since 1970.
        @param displayName: the name for people; from C{name} if empty.
        @param admin: whether they administer the tailnet.
        @raise ConfigError: if the name is empty or taken.
        """
        login = self._login(name)
        if not name or login in self._users:
            raise ConfigError(f"the user name {name!r} is empty or taken")
        self._lastUser += 1
        display = displayName or login.partition("@")[0].capitalize()
        user = User(self._lastUser, login, display, admin, now)
        self._users[login] = user
        return user

    def _login(self, name: str) -> str:
        return name if "@" in name else f"{name}@{self.domain}"

    def user(self, name: str | User) -> User:
        """
        Find a user by login name; the domain may be left out.

        @raise ConfigError: if there is no such user.
        """
        login = self._login(name) if isinstance(name, str) else name.login
        found = self._users.get(login)
        if found is None:
            raise ConfigError(f"there is no user {login!r}")
        return found

    def users(self) -> list[User]:
        """All users, the oldest first."""
        return list(self._users.values())

    # -- auth keys ----------------------------------------------------------------

    def createAuthKey(
        self,
        user: User,
        *,
        text: str = "",
        reusable: bool = False,
        ephemeral: bool = False,
        preApproved: bool = True,
        tags: Iterable[str] = (),
        expires: float | None = None,
    ) -> AuthKey:
        """
        Make an auth key.

        @param user: the owner.
        @param text: the key itself; random if empty.
        @param reusable: whether more than one node may use it.
        @param ephemeral: whether its nodes are deleted when they disconnect.
        @param preApproved: whether its nodes need no approval.
        @param tags: the tags of its nodes.
        @param expires: when it ends, in seconds since 1970.
        @raise ConfigError: if a tag is malformed or the text is taken.
        """
        wanted = tuple(dict.fromkeys(tags))
        for tag in wanted:
            if not isTag(tag):
                raise ConfigError(f"{tag!r} is not a tag")
        text = text or f"tskey-auth-{self._token()}"
        if text in self._keys:
            raise ConfigError("there is such an auth key already")
        self._lastKey += 1
        key = AuthKey(
            self._lastKey,
            Secret(text),
            user,
            reusable=reusable,
            ephemeral=ephemeral,
            preApproved=preApproved,
            tags=wanted,
            expires=expires,
        )
        self._keys[text] = key
        return key

    def _token(self) -> str:
        raw = base64.b32encode(self._randbytes(20))
        return raw.decode("ascii").rstrip("=").lower()

    def authKeys(self) -> list[AuthKey]:
        """All auth keys, the oldest first."""
        return list(self._keys.values())

    def authKey(
        self, text: str, now: float, machine: MachinePublic, node: NodeRecord | None
    ) -> AuthKey:
        """
        Find a key that may be used.

        @param text: what the node sent.
        @param now: seconds since 1970.
        @param machine: the machine that the node runs on.
        @param node: the node, if it is known and its key has not ended; it may
            use a one-time key again that it used before.
        @raise Refusal: if the key is unknown, has ended or was used.
        """
        # A key wrapped for the tailnet lock carries a signature behind it.
        key = self._keys.get(text.partition("--TL")[0])
        if key is None or key.revoked:
            raise Refusal(401, "invalid auth key")
        own = node is not None and (machine, node.id) in key.usedBy
        if key.expires is not None and key.expires <= now and not own:
            raise Refusal(401, "auth key expired")
        if key.usedBy and not key.reusable and not own:
            raise Refusal(401, "auth key already used")
        return key

    def noteUse(self, key: AuthKey, node: NodeRecord) -> None:
        """Remember that a node was let in by a key."""
        key.usedBy.add((node.machineKey, node.id))

    # -- nodes ------------------------------------------------------------------------

    def nodes(self) -> list[NodeRecord]:
        """All nodes, the oldest first."""
        return list(self._nodes.values())

    def node(self, reference: NodeReference) -> NodeRecord:
        """
        Find a node.

        @raise UnknownPeer: if there is no such node.
        """
        if isinstance(reference, NodeRecord):
            found = self._nodes.get(reference.id)
            if found is reference:
                return found
        elif isinstance(reference, int):
            found = self._nodes.get(reference)
            if found is not None:
                return found
        else:
            for record in self._nodes.values():
                names = (record.name, record.stableID, f"{record.name}.{self.domain}")
                if reference.rstrip(".") in names or reference in record.ips:
                    return record
        raise UnknownPeer(f"there is no node {reference!r}")

    def byNodeKey(self, key: NodePublic) -> NodeRecord | None:
        """The node that has a key at present."""
        return self._byKey.get(key)

    def byMachine(
        self, machine: MachinePublic, user: User, tagged: bool
    ) -> NodeRecord | None:
        """The node that a user, or a tag, already has on a machine."""
        for record in self._nodes.values():
            mine = tagged or record.user.id == user.id
            if record.machineKey == machine and bool(record.tags) == tagged and mine:
                return record
        return None

    def addNode(
        self,
        machine: MachinePublic,
        key: NodePublic,
        user: User,
        hostinfo: Hostinfo,
        now: float,
    ) -> NodeRecord:
        """
        Let a new node in.

        @param machine: the machine that it runs on.
        @param key: its key.
        @param user: who owns it or lets it in.
        @param hostinfo: what it says about itself.
        @param now: seconds since 1970.
        """
        self._lastNode += 1
        used = {prefix for node in self._nodes.values() for prefix in node.addresses}
        record = NodeRecord(
            self._lastNode,
            f"n{self._token()[:11].upper()}CNTRL",
            machine,
            key,
            user,
            uniqueName(hostinfo.hostname or "", self._names()),
            self._pool.take(used),
            now,
        )
        self._nodes[record.id] = record
        self._byKey[key] = record
        self.setHostinfo(record, hostinfo)
        self._touch(record)
        return record

    def _names(self, but: NodeRecord | None = None) -> set[str]:
        return {node.name for node in self._nodes.values() if node is not but}

    def removeNode(self, record: NodeRecord) -> None:
        """Forget a node; its number and stable ID never come back."""
        self._nodes.pop(record.id, None)
        # The key may have moved on to another node meanwhile.
        if self._byKey.get(record.nodeKey) is record:
            del self._byKey[record.nodeKey]
        for key in self._keys.values():
            if key.reusable:
                key.usedBy.discard((record.machineKey, record.id))
        self._changed()

    def rekey(self, record: NodeRecord, key: NodePublic) -> None:
        """Give a node a new key; it keeps its number and its addresses."""
        if key == record.nodeKey:
            return
        if self._byKey.get(record.nodeKey) is record:
            del self._byKey[record.nodeKey]
        record.nodeKey = key
        record.keySignature = b""
        self._byKey[key] = record
        self._touch(record)

    def update(self, record: NodeRecord, **changes: object) -> None:
        """
        Change attributes of a node.

        @param changes: new values by the names of L{NodeRecord}'s attributes.
        """
        changed = False
        for name, value in changes.items():
            if getattr(record, name) != value:
                setattr(record, name, value)
                changed = True
        if changed:
            self._touch(record)

    def rename(self, record: NodeRecord, name: str) -> None:
        """
        Give a node a name that no longer follows that of its host.

        @param name: the name; an empty one lets it follow again.
        @raise ConfigError: if the name is taken or nothing is left of it.
        """
        if not name:
            record.named = False
            self._follow(record)
            return
        label = sanitizeHostname(name)
        if not label or label in self._names(record):
            raise ConfigError(f"the name {name!r} is taken or impossible")
        record.named = True
        self.update(record, name=label)

    def _follow(self, record: NodeRecord) -> None:
        """Let the name follow the host's."""
        hostname = record.hostinfo.hostname or ""
        label = sanitizeHostname(hostname)
        stem, _, number = record.name.rpartition("-")
        if record.named or not label or record.name == label:
            return
        if stem == label and number.isdigit():
            return
        self.update(record, name=uniqueName(hostname, self._names(record)))

    def setHostinfo(self, record: NodeRecord, hostinfo: Hostinfo) -> None:
        """
        Take what a node says about itself.

        Malformed routes are left out; the rest counts.
        """
        routes = []
        for text in hostinfo.routableIPs or ():
            try:
                routes.append(Prefix.parse(text))
            except WireError:
                continue
        changes: dict[str, object] = {
            "hostinfo": hostinfo,
            "advertisedRoutes": tuple(dict.fromkeys(routes)),
        }
        netInfo = hostinfo.netInfo
        if netInfo is not None and netInfo.preferredDERP:
            changes["homeDERP"] = netInfo.preferredDERP
        self.update(record, **changes)
        self._follow(record)

    def setPaths(
        self,
        record: NodeRecord,
        *,
        endpoints: Iterable[str] | None = None,
        discoKey: DiscoPublic | None = None,
    ) -> None:
        """
        Take where a node says that it may be reached.

        @param endpoints: C{ip:port}; C{None} leaves them as they are.
        @param discoKey: its key for path discovery; C{None} leaves it.
        """
        changes: dict[str, object] = {}
        if endpoints is not None:
            changes["endpoints"] = tuple(endpoints)[:MAX_ENDPOINTS]
        if discoKey is not None:
            changes["discoKey"] = discoKey
        self.update(record, **changes)

    def approveRoutes(self, record: NodeRecord, routes: Iterable[Prefix]) -> None:
        """Replace the routes that a node may serve if it advertises them."""
        self.update(record, approvedRoutes=frozenset(routes))

    def setAttributes(
        self, record: NodeRecord, attributes: Mapping[str, Iterable[object]]
    ) -> None:
        """Replace the node attributes given to this node alone."""
        kept = {name: tuple(values) for name, values in attributes.items()}
        self.update(record, attributes=kept)

    def profile(self, userID: int) -> User:
        """
        The user with a number, that of all tagged nodes included.

        @raise ConfigError: if there is no such user.
        """
        if userID == TAGGED_DEVICES:
            return User(TAGGED_DEVICES, "tagged-devices", "Tagged Devices")
        for user in self._users.values():
            if user.id == userID:
                return user
        raise ConfigError(f"there is no user number {userID}")

    def _touch(self, record: NodeRecord) -> None:
        record.revision += 1
        if self._nodes.get(record.id) is record:
            self._changed()
