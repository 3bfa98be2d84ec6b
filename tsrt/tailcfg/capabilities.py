"""The capability version that tsrt announces, and names of capabilities."""

from __future__ import annotations

CAPABILITY_VERSION = 130
"""
The version of the control protocol whose behaviours tsrt has.

Headscale of this age asks for 113 at the least.
"""

PEER_RELAY_VERSION = 121
"""The version from which nodes speak with peer relays, and are ones."""

PEER_CAP_DOH = 26
"""The version from which a peer answers DNS queries over its PeerAPI."""

# Node attributes: keys of Node.CapMap.
FILE_SHARING = "https://tailscale.com/cap/file-sharing"
IS_ADMIN = "https://tailscale.com/cap/is-admin"
SSH = "https://tailscale.com/cap/ssh"
DEBUG = "https://tailscale.com/cap/debug"
TAILNET_LOCK = "https://tailscale.com/cap/tailnet-lock"
HTTPS = "https"
FUNNEL = "funnel"
MAGICDNS_AAAA = "magicdns-aaaa"
DNS_SUBDOMAIN_RESOLVE = "dns-subdomain-resolve"
ONLY_TCP_443 = "only-tcp-443"
RANDOMIZE_CLIENT_PORT = "randomize-client-port"
SERVICE_HOST = "service-host"
SUGGEST_EXIT_NODE = "suggest-exit-node"
SILENT_DISCO = "silent-disco"
DISABLE_RELAY_CLIENT = "disable-relay-client"

# Peer capabilities: names in grants.
FILE_SHARING_TARGET = "https://tailscale.com/cap/file-sharing-target"
FILE_SEND = "https://tailscale.com/cap/file-send"
RELAY_TARGET = "tailscale.com/cap/relay-target"
INGRESS = "https://tailscale.com/cap/ingress"
