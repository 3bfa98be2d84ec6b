"""The real network: datagrams and outgoing streams."""
