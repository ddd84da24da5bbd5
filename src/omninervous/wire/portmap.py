"""Asking a gateway for a UDP port: PCP (RFC 6887) and its predecessor NAT-PMP (RFC 6886), both at its port 5351.

PCP, MAP request and response (RFC 6887 sections 7 and 11.1), network byte order::

     0         1          2              4             8                  24
    +---------+----------+--------------+-------------+------------------+
    | 2       | R | 1    | 0, result    | lifetime    | client address;  |   the response: its epoch (u32) and 12 bytes
    | version | opcode   | (last byte)  | (seconds)   | 16 bytes         |   that mean nothing, in place of the address
    +---------+----------+--------------+-------------+------------------+
    +------------------+----------+-----+---------------+---------------+------------------+
    | nonce, 12 bytes  | 17 (UDP) | 0   | internal port | external port | external address |
    +------------------+----------+-----+---------------+---------------+------------------+
     24                 36         37    40              42              44                 60

NAT-PMP (RFC 6886 sections 3.2 and 3.3): the external address, and a UDP mapping::

    +---+---+                                               request: version 0, opcode 0
    +---+-----+--------+-------+---------+                  response: version, 128, result, epoch, IPv4 address
    +---+---+--------+---------------+---------------+----------+
    | 0 | 1 | 0      | internal port | external port | lifetime |                             the request of a mapping
    +---+---+--------+---------------+---------------+----------+
    +---+-----+--------+-------+---------------+---------------+----------+
    | 0 | 129 | result | epoch | internal port | external port | lifetime |                 its response
    +---+-----+--------+-------+---------------+---------------+----------+

IPv4 addresses stand in PCP as ::ffff:a.b.c.d. A lifetime of 0 deletes the mapping.

A gateway that has started again says so to 224.0.0.1, port 5350: in NAT-PMP by a response with its address (RFC 6886
section 3.2.1), in PCP by one to ANNOUNCE: the first 24 bytes of the above with opcode 0 (RFC 6887 section 14.1). The
epoch is the seconds since it lost its mappings.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from omninervous.errors import DecodeError, RemoteError

__all__ = [
    "ANNOUNCEMENT_PORT",
    "GATEWAY_PORT",
    "NONCE_SIZE",
    "GrantedMapping",
    "decode_announcement",
    "decode_pcp_mapping",
    "decode_pmp_address",
    "decode_pmp_mapping",
    "encode_pcp_mapping",
    "encode_pmp_address",
    "encode_pmp_mapping",
    "epoch_goes_on",
]

GATEWAY_PORT = 5351
ANNOUNCEMENT_PORT = 5350
NONCE_SIZE = 12
_PCP_VERSION, _PMP_VERSION = 2, 0
_RESPONSE = 0x80
_MAP = 1
_UDP = 17
_PCP_REQUEST = struct.Struct(f"!BBHI16s{NONCE_SIZE}sB3xHH16s")
_PCP_ANNOUNCEMENT = struct.Struct("!BBxBII12x")
_PCP_RESPONSE = struct.Struct(f"!BBxBII12x{NONCE_SIZE}sB3xHH16s")
_PMP_REQUEST = struct.Struct("!BBHHHI")
_PMP_ADDRESS = struct.Struct("!BBHI4s")
_PMP_RESPONSE = struct.Struct("!BBHIHHI")
_PMP_MINIMUM = 4
_V4_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class GrantedMapping:
    """What the gateway gave."""

    address: IPv4Address | None
    """Its outside address; None where the protocol says that in another message."""
    port: int
    """Outside."""
    lifetime: int
    """Seconds."""
    epoch: int
    """Of the gateway."""


def encode_pcp_mapping(nonce: bytes, client: IPv4Address, port: int, wanted: int, lifetime: int) -> bytes:
    """Ask for the outside port `wanted` (0: any) for UDP `port` of `client`."""
    return _PCP_REQUEST.pack(
        *(_PCP_VERSION, _MAP, 0, lifetime, _V4_MAPPED + client.packed),
        *(nonce, _UDP, port, wanted, _V4_MAPPED + bytes(4)),
    )


def decode_pcp_mapping(data: bytes, nonce: bytes, port: int) -> GrantedMapping:
    """The answer to our request with this nonce. DecodeError if it is none; RemoteError if it is a refusal."""
    if len(data) >= _PMP_MINIMUM and (data[0], data[1] & _RESPONSE) == (_PMP_VERSION, _RESPONSE):
        raise RemoteError("port_mapping_refused", "the gateway speaks NAT-PMP only")  # RFC 6887 appendix A
    if len(data) != _PCP_RESPONSE.size:
        raise DecodeError(f"a PCP response to MAP has {_PCP_RESPONSE.size} bytes, not {len(data)}")
    version, opcode, result, lifetime, epoch, echoed, protocol, inside, outside, address = _PCP_RESPONSE.unpack(data)
    if (version, opcode) != (_PCP_VERSION, _RESPONSE | _MAP):
        raise DecodeError("not a PCP response to MAP")
    if (echoed, protocol, inside) != (nonce, _UDP, port):
        raise DecodeError("the PCP response belongs to another request")
    _check_result("PCP", result)
    if not address.startswith(_V4_MAPPED):
        raise DecodeError("PCP gave no IPv4 address")
    return _granted(IPv4Address(address[len(_V4_MAPPED) :]), outside, lifetime, epoch)


def encode_pmp_address() -> bytes:
    """Ask for the outside address."""
    return bytes((_PMP_VERSION, 0))


def decode_pmp_address(data: bytes) -> IPv4Address:
    """The outside address. DecodeError if this is no such answer; RemoteError if it is a refusal."""
    if len(data) != _PMP_ADDRESS.size:
        raise DecodeError(f"a NAT-PMP address response has {_PMP_ADDRESS.size} bytes, not {len(data)}")
    version, opcode, result, _, address = _PMP_ADDRESS.unpack(data)
    if (version, opcode) != (_PMP_VERSION, _RESPONSE):
        raise DecodeError("not a NAT-PMP address response")
    _check_result("NAT-PMP", result)
    return IPv4Address(address)


def encode_pmp_mapping(port: int, wanted: int, lifetime: int) -> bytes:
    """Ask for the outside port `wanted` (0: any) for UDP `port` of whoever sends this."""
    return _PMP_REQUEST.pack(_PMP_VERSION, _MAP, 0, port, wanted, lifetime)


def decode_pmp_mapping(data: bytes, port: int) -> GrantedMapping:
    """The answer to our request for `port`. DecodeError if it is none; RemoteError if it is a refusal."""
    if len(data) != _PMP_RESPONSE.size:
        raise DecodeError(f"a NAT-PMP mapping response has {_PMP_RESPONSE.size} bytes, not {len(data)}")
    version, opcode, result, epoch, inside, outside, lifetime = _PMP_RESPONSE.unpack(data)
    if (version, opcode) != (_PMP_VERSION, _RESPONSE | _MAP):
        raise DecodeError("not a NAT-PMP response to a UDP mapping")
    if inside != port:
        raise DecodeError("the NAT-PMP response belongs to another request")
    _check_result("NAT-PMP", result)
    return _granted(None, outside, lifetime, epoch)


def decode_announcement(data: bytes) -> int:
    """The epoch in what a gateway says unasked. DecodeError if this is nothing of the kind."""
    if len(data) == _PMP_ADDRESS.size:
        version, opcode, result, epoch, _ = _PMP_ADDRESS.unpack(data)
        if (version, opcode, result) == (_PMP_VERSION, _RESPONSE, 0):
            return int(epoch)
    if len(data) == _PCP_ANNOUNCEMENT.size:
        version, opcode, result, _, epoch = _PCP_ANNOUNCEMENT.unpack(data)
        if (version, opcode, result) == (_PCP_VERSION, _RESPONSE, 0):
            return int(epoch)
    raise DecodeError("no announcement of a gateway")


def epoch_goes_on(before: int, after: int, passed: float) -> bool:
    """Whether a gateway still has its mappings: its clock went on about as ours did (RFC 6887 section 8.5)."""
    if after + 1 < before:
        return False
    counted = after - before
    return passed + 2 >= counted - counted / 16 and counted + 2 >= passed - passed / 16


def _check_result(protocol: str, result: int) -> None:
    if result:
        raise RemoteError("port_mapping_refused", f"{protocol} result {result}")


def _granted(address: IPv4Address | None, port: int, lifetime: int, epoch: int) -> GrantedMapping:
    if lifetime and not port:
        raise DecodeError("the gateway gave port 0")
    return GrantedMapping(address, port, lifetime, epoch)
