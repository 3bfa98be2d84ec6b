"""What this machine tells the control server about itself."""

from __future__ import annotations

import platform
import sys

from tsrt._version import __version__
from tsrt.runtime.preferences import Preferences
from tsrt.tailcfg import Hostinfo

_SYSTEMS = {"Darwin": "macOS", "Windows": "windows", "Linux": "linux"}
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "i686": "386"}


def describeNode(preferences: Preferences, exitNodeID: str = "") -> Hostinfo:
    """
    What control is told of a node, beside its keys and its network.

    @param exitNodeID: the stable id of its exit node, or empty.
    """
    hostinfo = describeMachine()
    hostinfo.hostname = preferences.hostname
    hostinfo.shieldsUp = preferences.shieldsUp
    hostinfo.exitNodeID = exitNodeID
    hostinfo.requestTags = sorted(preferences.advertiseTags) or None
    routes = [prefix.text() for prefix in preferences.advertised]
    hostinfo.routableIPs = routes or None
    return hostinfo


def describeMachine() -> Hostinfo:
    """
    The operating system, the architecture and this software.

    Nothing that a user would not see in the tailnet's list of machines anyway.
    """
    system = platform.system()
    machine = platform.machine()
    return Hostinfo(
        ipnVersion=f"{__version__}-tsrt",
        os=_SYSTEMS.get(system, system.lower()),
        osVersion=platform.release(),
        app="tsrt",
        machine=machine,
        goArch=_MACHINES.get(machine, machine),
        package="tsrt",
        userspace=True,
        userspaceRouter=True,
        deviceModel="",
        env=f"py{sys.version_info.major}.{sys.version_info.minor}",
    )
