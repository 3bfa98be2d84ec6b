"""
What a control server means when it refuses a registration.

The protocol has no codes for that, only texts, and each server has texts of
its own.  What none of the rules below knows is passed on word for word.
"""

from __future__ import annotations

import re

from tsrt.errors import (
    AuthKeyExpired,
    AuthKeyInvalid,
    AuthKeyUsed,
    ClientTooOld,
    ControlError,
    ControlHTTPError,
    KeyExpired,
    LoginError,
    RegistrationRefused,
    TagsRefused,
)

_AUTH_KEY = r"(?:pre)?[\s-]?(?:auth|api)[\s-]?key"

# The first rule that matches decides.  Words such as "expired" say little by
# themselves, so each rule also looks for what it is that has expired.
_RULES: tuple[tuple[re.Pattern[str], type[LoginError] | type[ControlError]], ...] = (
    (
        re.compile(
            r"unsupported client version|client (?:version )?(?:is )?too old"
            r"|please (?:upgrade|update) (?:your client|tailscale)"
        ),
        ClientTooOld,
    ),
    (
        re.compile(
            r"requested tags|tags?\b.*(?:not permitted|invalid|not allowed|not owned)"
        ),
        TagsRefused,
    ),
    (re.compile(rf"{_AUTH_KEY}.*(?:already )?used\b|single[\s-]use"), AuthKeyUsed),
    (
        re.compile(rf"{_AUTH_KEY}.*expired|expired.*{_AUTH_KEY}"),
        AuthKeyExpired,
    ),
    (
        re.compile(
            rf"{_AUTH_KEY}.*(?:not found|not valid|does not exist|invalid|revoked)"
            rf"|(?:invalid|unknown|bad|failed to parse|unable to validate).*{_AUTH_KEY}"
            r"|invalid key|invalid api token"
        ),
        AuthKeyInvalid,
    ),
    (re.compile(r"node ?key.*expired|key has expired"), KeyExpired),
)

# The server knows the node key, or the machine, differently than we do; a
# fresh node key gets out of that.
_STALE_KEY = re.compile(
    r"different machine key|belongs to another machine|already in use by another"
    r"|node not found|unknown node|node key in request does not match"
)

# A followup that came too late: a new login URL gets out of that.
_STALE_FOLLOWUP = re.compile(
    r"registration timed out|invalid followup|invalid registration id"
    r"|invalid auth id|followup.*(?:expired|unknown|not found)|login.*expired"
)


def classifyRefusal(text: str) -> LoginError | ControlError:
    """
    The error for the words of a server.

    @param text: what the server said.
    """
    words = " ".join(text.split())
    lowered = words.lower()
    for pattern, kind in _RULES:
        if pattern.search(lowered):
            return kind(f"the control server says: {words}")
    return RegistrationRefused(f"the control server refused the registration: {words}")


def isStaleKey(text: str) -> bool:
    """Whether the server may take a fresh node key after it said C{text}."""
    return _STALE_KEY.search(text.lower()) is not None


def isStaleFollowup(text: str) -> bool:
    """Whether C{text} means that a login URL is not good any more."""
    return _STALE_FOLLOWUP.search(text.lower()) is not None


def classifyHTTP(error: ControlHTTPError) -> LoginError | ControlError:
    """
    The error for a registration that was answered with an HTTP error.

    Errors of the server itself and requests to slow down stay what they are,
    and so may be retried.
    """
    if error.status >= 500 or error.status in (408, 425, 429):
        return error
    _, _, text = str(error).partition(f"HTTP {error.status}")
    return classifyRefusal(text.removeprefix(":").strip() or str(error))
