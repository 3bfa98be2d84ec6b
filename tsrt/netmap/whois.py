"""Who is behind a tailnet address."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from tsrt.errors import WireError
from tsrt.netmap.node import Node
from tsrt.tailcfg import Raw, UserProfile, decodeRaw


@frozen
class WhoIs:
    """
    A node, its user, and what it may do here.

    @ivar profile: what control says of the user; C{None} where it says
        nothing, and for tagged nodes, which belong to nobody.
    @ivar capabilities: names of capabilities that the policy grants the node
        towards this one, each with the list of its raw JSON values.
    """

    node: Node
    profile: UserProfile | None
    capabilities: Mapping[str, list[Raw]]

    @property
    def user(self) -> str:
        """The user's login name, or the display name, or nothing."""
        if self.node.tags or self.profile is None:
            return ""
        return self.profile.loginName or self.profile.displayName

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the node."""
        return self.node.tags

    def can(self, capability: str) -> bool:
        """Whether the policy grants the node a capability towards this one."""
        return capability in self.capabilities

    def values(self, capability: str) -> list[object]:
        """
        What the policy says with a capability, as Python values.

        @return: one value for each grant that has any; a value that is no JSON
            is left out.
        """
        found: list[object] = []
        for raw in self.capabilities.get(capability, ()):
            try:
                found.append(decodeRaw(raw))
            except WireError:
                continue
        return found
