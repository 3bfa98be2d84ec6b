"""
A program that tells which numbered packets come out of a tunnel device.  Run by
L{tsrt.test.interop.test_filteroracle} with the name of the device; each packet that
carries C{case#NNNNNN#} becomes a line with the number.
"""

from __future__ import annotations

import re
import socket
import sys

_ETH_P_ALL = 3
_OUTGOING = 4
_BUFFER = 4 << 20
_NUMBER = re.compile(rb"case#(\d{6})#")


def main() -> None:
    """Watch until the process is ended."""
    # What the machine itself sends into the device is of no interest.
    watching = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    watching.bind((sys.argv[1], _ETH_P_ALL))
    print("watching", flush=True)
    while True:
        packet, address = watching.recvfrom(65535)
        if address[2] != _OUTGOING:
            for number in _NUMBER.findall(packet):
                print(int(number), flush=True)


if __name__ == "__main__":
    main()
