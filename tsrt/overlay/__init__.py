"""The tailnet seen as Twisted transports."""
