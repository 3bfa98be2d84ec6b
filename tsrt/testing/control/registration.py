"""
Decides who comes into the tailnet: the answers to register requests.

A pure machine over L{Tailnet}.  A login that waits for a person is an object,
L{PendingLogin}; whoever waits for it leaves a callable with it and asks again
when that is called.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from attrs import frozen

from tsrt.errors import WireError
from tsrt.keys import MachinePublic, NodePublic
from tsrt.tailcfg import (
    Hostinfo,
    Login,
    RegisterRequest,
    RegisterResponse,
    present,
)
from tsrt.tailcfg import User as WireUser
from tsrt.testing.control.logins import PendingLogin, PendingLogins
from tsrt.testing.control.records import AuthKey, NodeRecord, User
from tsrt.testing.control.refusal import Refusal
from tsrt.testing.control.tailnet import Tailnet
from tsrt.testing.policy import CompiledPolicy, Subject


@frozen
class RegistrationOptions:
    """
    How nodes come in.

    @ivar requireApproval: whether an administrator has to approve each machine
        that no pre-approved auth key lets in.
    @ivar autoLogin: the user whose approval is taken for granted; empty to ask.
    @ivar rotationNeedsLogin: whether a node that wants a new key has to log in
        again even though its old key is still good.
    @ivar keyLifetime: seconds until a node key ends; C{None} for never.
    @ivar loginLifetime: seconds that a login URL is good for.
    """

    requireApproval: bool = False
    autoLogin: str = ""
    rotationNeedsLogin: bool = True
    keyLifetime: float | None = None
    loginLifetime: float = 900.0


class Registrar:
    """
    Answers register requests.
    """

    def __init__(
        self,
        tailnet: Tailnet,
        options: RegistrationOptions,
        *,
        policy: Callable[[], CompiledPolicy],
        loginURL: Callable[[str], str],
        admitted: Callable[[NodeRecord], None],
        removed: Callable[[NodeRecord], None],
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param tailnet: the state.
        @param options: how nodes come in.
        @param policy: the policy in force.
        @param loginURL: makes the URL of a login from its id.
        @param admitted: told of each node that was let in, again or anew.
        @param removed: deletes a node that logged out.
        @param randbytes: the source of secret random bytes.
        """
        self._tailnet = tailnet
        self._options = options
        self._policy = policy
        self._loginURL = loginURL
        self._admitted = admitted
        self._removed = removed
        self._logins = PendingLogins(randbytes, options.loginLifetime)

    # -- requests -------------------------------------------------------------------

    def register(
        self,
        machine: MachinePublic,
        version: int,
        request: RegisterRequest,
        now: float,
    ) -> RegisterResponse | PendingLogin:
        """
        Answer a register request.

        @param machine: the machine that sent it.
        @param version: its capability version.
        @param request: the request.
        @param now: seconds since 1970.
        @return: the answer, or a login to wait for before asking again.
        @raise Refusal: when the answer is an error.
        """
        self._logins.dropOld(now)
        key = _nodeKey(request.nodeKey)
        if key is None:
            raise Refusal(400, "missing node key")
        known = self._tailnet.byNodeKey(key)
        if known is not None and known.machineKey != machine:
            raise Refusal(401, "node key belongs to another machine")
        self._checkTailnet(request)
        expiry = _timestamp(request.expiry)
        if expiry is not None and (known is not None or expiry <= now):
            return self._changeExpiry(known, expiry, now)
        if request.followup:
            return self._followUp(machine, version, request, now)
        text = request.auth.authKey if request.auth else ""
        if text:
            return self._withAuthKey(machine, version, request, known, text, now)
        if known is not None:
            if known.isExpired(now):
                return _expired()
            return self._welcome(known)
        old = self._oldNode(machine, request)
        if (
            old is not None
            and not self._options.rotationNeedsLogin
            and not old.isExpired(now)
        ):
            self._tailnet.rekey(old, key)
            self._describe(old, version, request)
            self._admitted(old)
            return self._welcome(old)
        if self._options.autoLogin:
            user = self._tailnet.user(self._options.autoLogin)
            node = self._admit(machine, version, request, user, None, now)
            return self._welcome(node)
        return self._askPerson(machine, version, request, now)

    def _checkTailnet(self, request: RegisterRequest) -> None:
        prefix = "required:"
        wanted = request.tailnet or ""
        if wanted.startswith(prefix) and wanted != prefix + self._tailnet.domain:
            raise Refusal(401, f"this is the tailnet {self._tailnet.domain}")

    def _changeExpiry(
        self, known: NodeRecord | None, expiry: float, now: float
    ) -> RegisterResponse:
        """Log a node out, or let its key end sooner."""
        if expiry > now:
            assert known is not None
            if known.expires is not None and expiry >= known.expires:
                raise Refusal(400, "extending key is not allowed")
            self._tailnet.update(known, expires=expiry)
            return self._welcome(known)
        if known is None:
            return _expired()
        if known.ephemeral:
            self._removed(known)
        elif not known.isExpired(now):
            self._tailnet.update(known, expires=now)
        return _expired()

    def _withAuthKey(
        self,
        machine: MachinePublic,
        version: int,
        request: RegisterRequest,
        known: NodeRecord | None,
        text: str,
        now: float,
    ) -> RegisterResponse:
        good = known if known is not None and not known.isExpired(now) else None
        key = self._tailnet.authKey(text, now, machine, good)
        if good is not None and (machine, good.id) in key.usedBy:
            # The node starts again with the key that let it in; it is in.
            self._describe(good, version, request)
            return self._welcome(good)
        node = self._admit(machine, version, request, key.user, key, now)
        self._tailnet.noteUse(key, node)
        return self._welcome(node)

    # -- people -----------------------------------------------------------------------

    def _askPerson(
        self,
        machine: MachinePublic,
        version: int,
        request: RegisterRequest,
        now: float,
    ) -> RegisterResponse:
        """Give out a URL."""
        login = self._logins.ask(machine, request, version, now)
        return RegisterResponse(authURL=self._loginURL(login.id))

    def _followUp(
        self,
        machine: MachinePublic,
        version: int,
        request: RegisterRequest,
        now: float,
    ) -> RegisterResponse | PendingLogin:
        """Report a login, or have the caller wait for it."""
        login = self._logins.find(request.followup)
        if login is None:
            known = self._tailnet.byNodeKey(NodePublic.parse(request.nodeKey))
            if known is not None and not known.isExpired(now):
                return self._welcome(known)
            return self._askPerson(machine, version, request, now)
        if login.machine != machine or login.request.nodeKey != request.nodeKey:
            raise Refusal(401, "this login belongs to another machine")
        if not login.isDecided:
            return login
        self._logins.forget(login)
        if login.node is None:
            return RegisterResponse(error=login.refusal)
        return self._welcome(login.node)

    def logins(self) -> list[PendingLogin]:
        """The logins that wait for a person, the oldest first."""
        return self._logins.waiting()

    def login(self, reference: str, now: float) -> PendingLogin:
        """
        Find a login that waits, by its URL or its id.

        @raise UnknownPeer: if there is none.
        """
        self._logins.dropOld(now)
        return self._logins.get(reference)

    def approve(self, reference: str, user: User, now: float) -> NodeRecord:
        """
        Let a machine in that waits for a person.

        @param reference: the URL or its id.
        @param user: who lets it in.
        @param now: seconds since 1970.
        @raise UnknownPeer: if there is no such login.
        @raise Refusal: if it asks for tags that the user may not give; the
            login goes on waiting.
        """
        login = self.login(reference, now)
        node = self._admit(login.machine, login.version, login.request, user, None, now)
        login.node = node
        login.wake()
        return node

    def deny(self, reference: str, reason: str, now: float) -> None:
        """
        Refuse a machine that waits for a person.

        @param reason: what the machine is told.
        @raise UnknownPeer: if there is no such login.
        """
        login = self.login(reference, now)
        login.refusal = reason or "login refused"
        login.wake()

    # -- admission --------------------------------------------------------------------

    def _oldNode(
        self, machine: MachinePublic, request: RegisterRequest
    ) -> NodeRecord | None:
        """The node whose key is to be replaced, if it is on this machine."""
        key = _nodeKey(request.oldNodeKey)
        old = self._tailnet.byNodeKey(key) if key is not None else None
        return old if old is not None and old.machineKey == machine else None

    def _admit(
        self,
        machine: MachinePublic,
        version: int,
        request: RegisterRequest,
        user: User,
        key: AuthKey | None,
        now: float,
    ) -> NodeRecord:
        """Let a node in: a new one, or a known one under a new key."""
        tags = self._tags(request, user, key)
        nodeKey = NodePublic.parse(request.nodeKey)
        tailnet = self._tailnet
        node = (
            tailnet.byNodeKey(nodeKey)
            or self._oldNode(machine, request)
            or tailnet.byMachine(machine, user, bool(tags))
        )
        approved = not self._options.requireApproval or (
            key is not None and key.preApproved
        )
        if node is None:
            node = tailnet.addNode(machine, nodeKey, user, _hostinfo(request), now)
            tailnet.update(node, authorized=approved)
        else:
            tailnet.rekey(node, nodeKey)
            tailnet.update(node, authorized=node.authorized or approved)
        tailnet.update(
            node,
            user=user,
            tags=tags,
            expires=None if tags else self._expiry(request, now),
            ephemeral=bool(request.ephemeral or (key and key.ephemeral)),
        )
        self._describe(node, version, request)
        self._admitted(node)
        return node

    def _describe(
        self, node: NodeRecord, version: int, request: RegisterRequest
    ) -> None:
        """Take what the request says about the node."""
        signature = request.nodeKeySignature or node.keySignature
        self._tailnet.update(node, version=version, keySignature=signature)
        self._tailnet.setHostinfo(node, _hostinfo(request))

    def _expiry(self, request: RegisterRequest, now: float) -> float | None:
        """When the key of a node that comes in now ends."""
        lifetime = self._options.keyLifetime
        ends = [_timestamp(request.expiry), now + lifetime if lifetime else None]
        return min((end for end in ends if end is not None), default=None)

    def _tags(
        self, request: RegisterRequest, user: User, key: AuthKey | None
    ) -> tuple[str, ...]:
        """The tags that a node gets."""
        given = key.tags if key is not None else ()
        requested = tuple(_hostinfo(request).requestTags or ())
        asking = Subject(
            0,
            login="" if given else user.login,
            admin=user.admin and not given,
            tags=frozenset(given),
        )
        policy = self._policy()
        refused = [tag for tag in requested if not policy.mayHaveTag(tag, asking)]
        if refused:
            listed = " ".join(refused)
            raise Refusal(
                401, f"requested tags [{listed}] are invalid or not permitted"
            )
        return tuple(dict.fromkeys((*given, *requested)))

    def _welcome(self, node: NodeRecord) -> RegisterResponse:
        profile = self._tailnet.profile(node.ownerID)
        return RegisterResponse(
            user=WireUser(
                id=profile.id,
                displayName=profile.displayName,
                created=datetime.fromtimestamp(profile.created, UTC),
            ),
            login=Login(
                id=profile.id,
                provider="tsrt",
                loginName=profile.login,
                displayName=profile.displayName,
            ),
            machineAuthorized=node.authorized,
        )


def _expired() -> RegisterResponse:
    return RegisterResponse(nodeKeyExpired=True)


def _hostinfo(request: RegisterRequest) -> Hostinfo:
    return request.hostinfo or Hostinfo()


def _nodeKey(text: str | None) -> NodePublic | None:
    """A node key, or C{None} for an absent one."""
    if not text:
        return None
    try:
        key = NodePublic.parse(text)
    except WireError as error:
        raise Refusal(400, f"malformed node key: {error}") from None
    return None if key.isZero() else key


def _timestamp(when: datetime) -> float | None:
    """Seconds since 1970, or C{None} for the zero time."""
    told = present(when)
    return None if told is None else told.timestamp()
