"""
One login from its beginning to its end, however many requests that takes.

The saved node key comes first: a node that is in the tailnet stays in it even
if the auth key that it was started with is stale.  The auth key is sent when
the node key alone does not get in; a person is asked when both do not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tsrt.control.api import CALL_TIMEOUT, ControlAPI
from tsrt.control.backoff import Backoff, randomFraction
from tsrt.control.refusals import (
    classifyHTTP,
    classifyRefusal,
    isStaleFollowup,
    isStaleKey,
)
from tsrt.control.settings import (
    AuthKeyParts,
    ControlSettings,
    HostSource,
    Identity,
    LockSigner,
    LoginInfo,
    describeHost,
)
from tsrt.control.steps import REGISTER, StepLog
from tsrt.errors import (
    AuthKeyExpired,
    AuthKeyInvalid,
    AuthKeyUsed,
    ControlError,
    ControlHTTPError,
    KeyExpired,
    TSRTError,
)
from tsrt.keys import NodeKey, NodePublic, Secret
from tsrt.tailcfg import UNSET, RegisterAuth, RegisterRequest, RegisterResponse

_log = Logger(namespace="tsrt.control")

LOGOUT_EXPIRY = datetime.fromtimestamp(123, UTC)
"""The expiry that means "log out": long past, and not the zero time."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds that a server may have us wait."""

APPROVAL_POLL = 5.0
"""Seconds until the first question whether an administrator has approved."""

LONGEST_APPROVAL_POLL = 30.0

_BAD_AUTH_KEY = (AuthKeyInvalid, AuthKeyExpired, AuthKeyUsed)


class CampaignEvents(Protocol):
    """Whom a campaign tells how it goes."""

    def save(self, identity: Identity) -> None:
        """Save C{identity}; errors end the campaign."""

    def needsURL(self, url: str) -> None:
        """A person has to open C{url}."""

    def needsApproval(self, identity: Identity, login: LoginInfo) -> None:
        """The node key is known, and an administrator has to approve it."""

    def retrying(self, error: TSRTError) -> None:
        """Something failed and will be tried again."""


class Campaign:
    """A login under way."""

    def __init__(
        self,
        reactor: IReactorTime,
        api: ControlAPI,
        *,
        settings: ControlSettings,
        identity: Identity,
        authKey: Secret | None,
        regenerate: bool,
        hostinfo: HostSource,
        events: CampaignEvents,
        steps: StepLog,
        randbytes: Callable[[int], bytes],
        signer: LockSigner | None = None,
        mayAsk: bool = False,
    ) -> None:
        """
        @param reactor: the clock.
        @param api: the server.
        @param settings: what the user wants.
        @param identity: who the node is so far.
        @param authKey: an auth key to use when the node key does not get in.
        @param regenerate: whether a new node key is wanted in any case.
        @param hostinfo: what is known about this machine.
        @param events: told how it goes.
        @param steps: where the steps are noted.
        @param randbytes: the source of secret random bytes.
        @param signer: signs node keys for the tailnet lock.
        @param mayAsk: whether to ask a person when the auth key is refused,
            rather than to give up.
        """
        self._reactor = reactor
        self._api = api
        self._mayAsk = mayAsk
        self._settings = settings
        self._identity = identity
        parts = AuthKeyParts.of(authKey or Secret(""))
        self._authKey = parts if parts.plain.reveal() else None
        self._hostinfo = hostinfo
        self._events = events
        self._steps = steps
        self._randbytes = randbytes
        self._signer = signer
        self._backoff = Backoff(randbytes)
        self._followup = ""
        self._signature = b""
        self._regenerated = False
        self._forgetOld = False
        self._approvalPolls = 0
        self._trying: NodeKey
        saved = identity.nodeKey
        if regenerate and saved is not None:
            self._trying = saved
            self._regenerate()
            self._useAuthKey = self._authKey is not None
        elif saved is not None:
            self._trying = saved
            self._useAuthKey = False
        else:
            self._trying = NodeKey.generate(randbytes)
            self._useAuthKey = self._authKey is not None

    async def run(self) -> tuple[Identity, LoginInfo]:
        """
        Try until the node is in.

        @return: who the node is now, and whose it is.
        @raise TSRTError: when trying any longer makes no sense.
        """
        if self._identity.nodeKey is None:
            # Saved first: should we stop right after the server used up a
            # one-time key for us, the same node key still gets in.
            self._identity = self._identity.withNodeKey(self._trying)
            self._events.save(self._identity)
        while True:
            self._steps.newRound((REGISTER,))
            self._steps.begin(REGISTER)
            try:
                response = await self._api.register(
                    self._request(),
                    timeout=None if self._followup else CALL_TIMEOUT,
                )
            except ControlHTTPError as error:
                await self._takeHTTPError(error)
                continue
            except ControlError as error:
                if error.isPermanent:
                    self._steps.failed(REGISTER, str(error))
                    raise
                await self._pause(error, self._backoff.next())
                continue
            login = await self._take(response)
            if login is not None:
                self._steps.succeeded(REGISTER, login.loginName)
                return self._identity, login

    # -- what the server answers ----------------------------------------------------

    async def _takeHTTPError(self, error: ControlHTTPError) -> None:
        error = ControlHTTPError(
            self._withoutAuthKey(str(error)),
            status=error.status,
            retryAfter=error.retryAfter,
        )
        problem = classifyHTTP(error)
        if problem is error:
            await self._pause(error, self._retryAfter(error))
        else:
            await self._refused(str(error), problem)

    def _withoutAuthKey(self, text: str) -> str:
        """Servers have been seen to repeat the key that they refuse."""
        key = "" if self._authKey is None else self._authKey.plain.reveal()
        # What is shorter than that is no key, and may be part of any word.
        return text.replace(key, "*****") if len(key) >= 8 else text

    async def _take(self, response: RegisterResponse) -> LoginInfo | None:
        """Look at an answer; C{None} means that another request is due."""
        if response.error:
            text = self._withoutAuthKey(response.error)
            await self._refused(text, classifyRefusal(text))
            return None
        if response.nodeKeySignature and self._rotateSignature(
            response.nodeKeySignature
        ):
            return None
        if response.nodeKeyExpired:
            await self._expired()
            return None
        if response.authURL:
            await self._urlGiven(response.authURL)
            return None
        login = loginInfo(response)
        self._commit()
        if response.machineAuthorized:
            return login
        self._steps.waiting(REGISTER, "an administrator has to approve this machine")
        self._events.needsApproval(self._identity, login)
        self._followup = ""
        self._useAuthKey = False
        self._approvalPolls += 1
        await self._sleep(
            min(APPROVAL_POLL * self._approvalPolls, LONGEST_APPROVAL_POLL)
        )
        return None

    def _commit(self) -> None:
        """The server has taken the key that we tried."""
        identity = self._identity.withNodeKey(self._trying)
        if self._forgetOld:
            identity = evolve(identity, oldNodeKey=None)
        if identity != self._identity:
            self._events.save(identity)
            self._identity = identity
        self._backoff.reset()

    async def _urlGiven(self, url: str) -> None:
        if self._authKey is not None and not self._useAuthKey:
            _log.info("the saved node key does not get in; using the auth key")
            self._useAuthKey = True
            self._followup = ""
            return
        if self._authKey is not None and not self._followup:
            _log.warn(
                "the control server did not take the auth key; it asks for a login"
            )
        self._steps.waiting(REGISTER, f"to log in, open {url}")
        if url == self._followup:
            # It let go of our request without a decision.
            await self._sleep(self._backoff.next())
            return
        self._followup = url
        self._events.needsURL(url)

    async def _expired(self) -> None:
        if self._regenerated:
            raise KeyExpired("the control server takes a new node key for expired")
        self._regenerate()
        self._useAuthKey = self._authKey is not None

    async def _refused(self, text: str, problem: ControlError | TSRTError) -> None:
        """
        Go on if there is another way, else raise C{problem}.

        Each way is tried once: a new URL, the auth key, a fresh node key.
        """
        if self._followup and isStaleFollowup(text):
            self._followup = ""
            await self._sleep(self._backoff.next())
            return
        stale = isStaleKey(text)
        if stale and not self._regenerated:
            self._regenerate(keepOld=False)
            self._useAuthKey = self._authKey is not None
            return
        if isinstance(problem, KeyExpired) and not self._regenerated:
            await self._expired()
            return
        if self._authKey is not None and not self._useAuthKey and not self._followup:
            self._useAuthKey = True
            return
        if self._mayAsk and self._useAuthKey and isinstance(problem, _BAD_AUTH_KEY):
            _log.warn("{error}; asking for a login instead", error=str(problem))
            self._authKey = None
            self._useAuthKey = False
            return
        self._steps.failed(REGISTER, str(problem))
        raise problem

    def _regenerate(self, keepOld: bool = True) -> None:
        """Go on with a fresh node key, which so far only we know."""
        self._trying = NodeKey.generate(self._randbytes)
        self._regenerated = True
        self._forgetOld = not keepOld
        self._followup = ""

    def _rotateSignature(self, signature: bytes) -> bool:
        """The server wants the tailnet lock's signature on a new key."""
        if self._signer is None or self._signature:
            return False
        self._regenerate()
        try:
            self._signature = self._signer.rotate(signature, self._trying.public())
        except TSRTError as error:
            _log.warn("the node key cannot be signed: {error}", error=str(error))
            return False
        return True

    # -- what we send -----------------------------------------------------------------

    def _request(self) -> RegisterRequest:
        saved = self._identity.nodeKey
        old = self._identity.oldNodeKey
        if saved is not None and saved.raw != self._trying.raw:
            old = saved
        request = registerRequest(
            self._api.version,
            self._settings,
            self._identity,
            self._trying,
            None if self._forgetOld else old,
            self._hostinfo,
        )
        if self._settings.expiry is not None:
            request.expiry = self._settings.expiry
        request.followup = self._followup
        signature = self._signature
        if self._useAuthKey and self._authKey is not None:
            request.auth = RegisterAuth(authKey=self._authKey.plain.reveal())
            signature = self._credential(self._authKey) or signature
        if signature:
            request.nodeKeySignature = signature
        return request

    def _credential(self, key: AuthKeyParts) -> bytes:
        """Sign with what came along with the auth key, if anything did."""
        wrapped = key.wrapped.reveal()
        if not wrapped:
            return b""
        if self._signer is None:
            _log.warn(
                "the auth key carries a signature for the tailnet lock, which is "
                "not in use here; the node may be locked out"
            )
            return b""
        credential, _, secret = wrapped.partition("-")
        try:
            return self._signer.credential(
                _unpadded(credential), _unpadded(secret), self._trying.public()
            )
        except (TSRTError, binascii.Error) as error:
            raise AuthKeyInvalid(
                f"the tailnet lock's part of the auth key is bad: {error}"
            ) from None

    # -- waiting ----------------------------------------------------------------------

    def _retryAfter(self, error: ControlHTTPError) -> float:
        if error.status != 429:
            return self._backoff.next()
        wait = error.retryAfter
        if wait is None or not 0 < wait <= LONGEST_RETRY_AFTER:
            return 5.0 + 5.0 * randomFraction(self._randbytes)
        return wait

    async def _pause(self, error: ControlError, seconds: float) -> None:
        self._steps.failed(REGISTER, str(error))
        self._events.retrying(error)
        await self._sleep(seconds)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds, lambda: None)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def registerRequest(
    version: int,
    settings: ControlSettings,
    identity: Identity,
    nodeKey: NodeKey,
    oldNodeKey: NodeKey | None,
    hostinfo: HostSource,
) -> RegisterRequest:
    """The parts that all register requests have in common."""
    old = NodePublic.zero() if oldNodeKey is None else oldNodeKey.public()
    return RegisterRequest(
        version=version,
        nodeKey=nodeKey.public().text(),
        oldNodeKey=old.text(),
        nlKey=identity.lockKey.public().text(),
        hostinfo=describeHost(hostinfo(), settings, identity),
        ephemeral=True if settings.ephemeral else UNSET,
        tailnet=settings.tailnet or UNSET,
    )


def loginInfo(response: RegisterResponse) -> LoginInfo:
    """Whose node it is, in the words of the server."""
    user, login = response.user, response.login
    return LoginInfo(
        userID=user.id,
        loginName=login.loginName,
        displayName=login.displayName,
        profilePicture=login.profilePicURL,
    )
