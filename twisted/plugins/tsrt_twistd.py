"""C{twistd tsrt} and C{twistd tsrt-devtailnet}."""

from twisted.application.service import ServiceMaker

tsrt = ServiceMaker(
    "A Tailscale node",
    "tsrt._tap",
    "Join a tailnet; serve and forward without root or a kernel device.",
    "tsrt",
)

tsrtDevTailnet = ServiceMaker(
    "A whole tailnet on this machine",
    "tsrt._devtap",
    "Run a control server, DERP relays and STUN on loopback, for development.",
    "tsrt-devtailnet",
)
