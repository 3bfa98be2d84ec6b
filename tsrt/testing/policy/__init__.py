"""
The policy compiler of the embedded control server.

It reads the same policy documents that tailnets are configured with and works
out the packet filter, the capabilities and the visible peers of each node.
Everything in this package is pure: text and values in, values out.
"""

from tsrt.testing.policy.check import checkTests
from tsrt.testing.policy.compile import (
    CapabilityRule,
    CompiledPolicy,
    CompiledRule,
    PacketRule,
    allows,
)
from tsrt.testing.policy.document import Policy
from tsrt.testing.policy.errors import PolicyError
from tsrt.testing.policy.ports import ALL_PORTS, PortRange
from tsrt.testing.policy.reader import parsePolicy
from tsrt.testing.policy.selectors import Selector, SelectorKind, Subject
from tsrt.testing.policy.ssh import shellRules

__all__ = [
    "ALL_PORTS",
    "CapabilityRule",
    "CompiledPolicy",
    "CompiledRule",
    "PacketRule",
    "Policy",
    "PolicyError",
    "PortRange",
    "Selector",
    "SelectorKind",
    "Subject",
    "allows",
    "checkTests",
    "parsePolicy",
    "shellRules",
]
