"""
Tests for L{tsrt.control.refusals}: the texts that servers really send.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.refusals import (
    classifyHTTP,
    classifyRefusal,
    isStaleFollowup,
    isStaleKey,
)
from tsrt.errors import (
    AuthKeyExpired,
    AuthKeyInvalid,
    AuthKeyUsed,
    ClientTooOld,
    ControlHTTPError,
    KeyExpired,
    RegistrationRefused,
    TagsRefused,
)


class RefusalTests(SynchronousTestCase):
    """What a server means."""

    def test_texts(self) -> None:
        """Each known text has its error; unknown ones are passed on."""
        for text, kind in (
            # Tailscale's server
            ("invalid key: API key does not exist", AuthKeyInvalid),
            ("invalid key: unable to validate API key", AuthKeyInvalid),
            ("invalid key: invalid API token", AuthKeyInvalid),
            ("invalid key: API key kAbC not valid", AuthKeyInvalid),
            ("invalid key: API key expired", AuthKeyExpired),
            ("requested tags [tag:a tag:b] are invalid or not permitted", TagsRefused),
            # Headscale, of several years
            ("invalid pre auth key", AuthKeyInvalid),
            ("auth-key not found: record not found", AuthKeyInvalid),
            ("failed to parse auth-key", AuthKeyInvalid),
            ("invalid authkey", AuthKeyInvalid),
            ("authkey revoked", AuthKeyInvalid),
            ("AuthKey not found", AuthKeyInvalid),
            ("authkey expired", AuthKeyExpired),
            ("auth-key expired", AuthKeyExpired),
            ("AuthKey expired", AuthKeyExpired),
            ("authkey already used", AuthKeyUsed),
            ("auth-key has already been used", AuthKeyUsed),
            ("auth-key tag is invalid", TagsRefused),
            ("unsupported client version: v1.2.3 (9)", ClientTooOld),
            # texts of other kinds
            ("node key has expired", KeyExpired),
            ("your organization is full", RegistrationRefused),
            ("expired", RegistrationRefused),
            ("the tailnet is used up", RegistrationRefused),
        ):
            problem = classifyRefusal(text)
            self.assertIs(type(problem), kind, text)
            self.assertIn(text, str(problem))
            self.assertTrue(problem.isPermanent)

    def test_http(self) -> None:
        """The text of an HTTP error is looked at in the same way."""
        for status, text, kind in (
            (401, "authkey expired", AuthKeyExpired),
            (400, "unsupported client version: x", ClientTooOld),
            (403, "", RegistrationRefused),
        ):
            error = ControlHTTPError(
                f"the control server answered /x with HTTP {status}: {text}",
                status=status,
            )
            self.assertIs(type(classifyHTTP(error)), kind)

    def test_transientHTTP(self) -> None:
        """Troubles of the server itself are no refusal, whatever it says."""
        for status in (408, 425, 429, 500, 502, 503):
            error = ControlHTTPError(f"HTTP {status}: authkey expired", status=status)
            self.assertIs(classifyHTTP(error), error)

    def test_staleKey(self) -> None:
        """Some refusals are cured by a fresh node key."""
        for text, stale in (
            ("node exists with a different machine key", True),
            ("node key belongs to another machine", True),
            ("node key already in use by another machine", True),
            ("node not found", True),
            ("authkey expired", False),
        ):
            self.assertEqual(isStaleKey(text), stale, text)

    def test_staleFollowup(self) -> None:
        """Some are cured by a new login URL."""
        for text, stale in (
            ("registration timed out", True),
            ("invalid registration ID", True),
            ("invalid followup URL", True),
            ("login refused", False),
        ):
            self.assertEqual(isStaleFollowup(text), stale, text)
