"""
How the control client is doing, as one value.
"""

from __future__ import annotations

from attrs import frozen

from tsrt.control.loginmachine import LoginState
from tsrt.control.steps import Step
from tsrt.errors import TSRTError


@frozen
class ControlStatus:
    """
    A moment of the control client.

    @ivar state: where the node stands with the server.
    @ivar loginURL: what a person has to open, or empty.
    @ivar isConnected: whether there is a Noise connection.
    @ivar isMapAlive: whether there is a map stream that has brought a map.
    @ivar error: the last error, until a map comes.
    @ivar steps: what was tried so far, with results.
    """

    state: LoginState
    loginURL: str
    isConnected: bool
    isMapAlive: bool
    error: TSRTError | None
    steps: tuple[Step, ...]
