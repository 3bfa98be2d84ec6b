"""
The Internet checksum, as arithmetic modulo 65535.

A one's-complement sum of 16-bit words is the number that the bytes spell,
modulo 65535, because 65536 leaves remainder 1.  Python divides one big integer
much faster than it adds six hundred small ones, faster still when the integer
is first folded to a few hundred bits.

Sums here are plain integers and may be added as they are, 32-bit fields too:
they stay right modulo 65535.  A checksum field is then C{-total % 65535}.

Reference: RFC 1071, RFC 768, RFC 8200 section 8.1.
"""

from __future__ import annotations

# Widths to fold at.  Multiples of 16 bits keep words on words; multiples of
# 30, the digit of Python's integers, make the shift a copy.
_WIDTHS = (5280, 2640, 1440, 720)
_FIRST, _SECOND, _THIRD, _FOURTH = _WIDTHS
_FIRST_MASK, _SECOND_MASK, _THIRD_MASK, _FOURTH_MASK = (
    (1 << width) - 1 for width in _WIDTHS
)
_LONG = 2 * _FIRST // 8
_SHORT = 180


def onesSum(data: bytes) -> int:
    """
    A sum of the 16-bit words of C{data}, right modulo 65535.

    Data of odd length counts as padded with a zero byte at its end.
    """
    size = len(data)
    if size > _LONG:
        # Larger than any tunnelled packet: a datagram put together.
        return sum(onesSum(data[at : at + _LONG]) for at in range(0, size, _LONG))
    # Read in little-endian order, where the padding of odd data is implied;
    # swapping the bytes of the result is a multiplication by 256.
    number = int.from_bytes(data, "little")
    if size > _SHORT:
        number = (number >> _FIRST) + (number & _FIRST_MASK)
        number = (number >> _SECOND) + (number & _SECOND_MASK)
        number = (number >> _THIRD) + (number & _THIRD_MASK)
        number = (number >> _FOURTH) + (number & _FOURTH_MASK)
    return number % 65535 << 8


def onesSums(pieces: list[bytes]) -> list[int]:
    """
    L{onesSum} of each of some pieces, all of one length.

    The arithmetic stands here once more: a call for each would cost a tenth.
    """
    if not pieces or not _SHORT < len(pieces[0]) <= _LONG:
        return [*map(onesSum, pieces)]
    sums = []
    fromBytes = int.from_bytes
    first, second, third, fourth = (
        _FIRST_MASK,
        _SECOND_MASK,
        _THIRD_MASK,
        _FOURTH_MASK,
    )
    for piece in pieces:
        number = fromBytes(piece, "little")
        number = (number >> _FIRST) + (number & first)
        number = (number >> _SECOND) + (number & second)
        number = (number >> _THIRD) + (number & third)
        number = (number >> _FOURTH) + (number & fourth)
        sums.append(number % 65535 << 8)
    return sums


def checksum(data: bytes) -> int:
    """The checksum of C{data} alone, as IPv4 headers and ICMPv4 have it."""
    reduced = onesSum(data) % 65535
    if reduced == 0 and data.count(0) == len(data):
        # Only a sum of nothing but zeros is zero; others are 0xFFFF.
        return 0xFFFF
    return -reduced % 65535


def verify(data: bytes) -> bool:
    """Whether C{data}, with its checksum inside, sums to all ones."""
    return onesSum(data) % 65535 == 0 and data.count(0) != len(data)


def pseudoSum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """
    The sum of the pseudo-header of IPv4 or IPv6.

    @param source: packed address, 4 or 16 bytes.
    @param length: bytes of the transport header and its payload.
    """
    return onesSum(source) + onesSum(destination) + protocol + length


def transportChecksum(
    source: bytes, destination: bytes, protocol: int, message: bytes
) -> int:
    """
    The checksum of a TCP, UDP or ICMPv6 message whose own field is zero.

    The result is in 0..65534; UDP has to send 0 as 0xFFFF.
    """
    total = pseudoSum(source, destination, protocol, len(message)) + onesSum(message)
    return -total % 65535


def verifyTransport(
    packet: bytes,
    addresses: int,
    addressesEnd: int,
    start: int,
    end: int,
    protocol: int,
) -> bool:
    """
    Whether a TCP, UDP or ICMPv6 message has a right checksum.

    @param addresses: offset of the source address in the IP header.
    @param addressesEnd: offset just past the destination address.
    @param start: offset of the transport header.
    @param end: offset just past the transport payload.
    """
    if start == addressesEnd:
        # Nothing between addresses and transport header: one sum does both.
        total = onesSum(packet[addresses:end])
    else:
        total = onesSum(packet[addresses:addressesEnd]) + onesSum(packet[start:end])
    return (total + protocol + end - start) % 65535 == 0
