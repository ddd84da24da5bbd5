"""Addresses as values: UDP endpoints and MAC addresses.

An endpoint on the wire (network byte order)::

     0        1                 3                              7 or 19
    +--------+-----------------+------------------------------+
    | family | port (u16)      | address: 4 bytes or 16 bytes |
    +--------+-----------------+------------------------------+
      4 or 6
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from omninervous.errors import DecodeError

__all__ = [
    "ENDPOINT4_SIZE",
    "ENDPOINT6_SIZE",
    "UDP_OVER_IPV4",
    "UDP_OVER_IPV6",
    "Endpoint",
    "decode_endpoint",
    "encode_endpoint",
    "format_mac",
]

ENDPOINT4_SIZE = 7
ENDPOINT6_SIZE = 19
UDP_OVER_IPV4 = 20 + 8
UDP_OVER_IPV6 = 40 + 8


class Endpoint(NamedTuple):
    """A UDP address of the underlay. `host` is a canonical IPv4 or IPv6 literal (never a name, no scope)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def overhead(self) -> int:
        """Bytes of the IP and UDP headers of a datagram to it."""
        return UDP_OVER_IPV6 if ":" in self.host else UDP_OVER_IPV4


# A Nucleus reads and writes the same few endpoints thousands of times a second, and parsing addresses is slow.
@lru_cache(maxsize=4096)
def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Bytes of an endpoint: 7 for IPv4, 19 for IPv6."""
    address = ipaddress.ip_address(endpoint.host)
    return bytes([address.version]) + endpoint.port.to_bytes(2, "big") + address.packed


@lru_cache(maxsize=4096)
def decode_endpoint(data: bytes) -> Endpoint:
    """The endpoint in exactly these bytes; DecodeError for a wrong family, length, or port 0."""
    if (len(data), data[:1]) not in ((ENDPOINT4_SIZE, b"\x04"), (ENDPOINT6_SIZE, b"\x06")):
        raise DecodeError(f"endpoint of {len(data)} bytes with family {data[:1].hex() or 'none'}")
    port = int.from_bytes(data[1:3], "big")
    if port == 0:
        raise DecodeError("endpoint with port 0")
    return Endpoint(str(ipaddress.ip_address(data[3:])), port)


def format_mac(mac: bytes) -> str:
    """Six bytes as `aa:bb:cc:dd:ee:ff`."""
    return mac.hex(":")
