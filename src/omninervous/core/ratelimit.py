"""Token buckets per source address, in bounded memory."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["RateLimiter", "source_key"]

_IPV6_SITE_BYTES = 8


def source_key(host: str) -> str:
    """What one sender cannot vary freely: an IPv4 address, or the /64 of an IPv6 address (one machine owns a whole
    /64). An IPv4-mapped address counts as its IPv4 address."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:_IPV6_SITE_BYTES].hex(":", 2) + "::/64"


class RateLimiter:
    """`rate` per second and key, after a first burst.

    The table holds the `capacity` keys heard last. Whoever can send from more addresses than that gets fresh buckets:
    a limit per address cannot stop him, cookies and the work limit behind them must.
    """

    __slots__ = ("_buckets", "_burst", "_capacity", "_rate")

    def __init__(self, rate: float = 10, burst: int = 10, capacity: int = 4096) -> None:
        assert rate > 0 and burst >= 1 and capacity >= 1
        self._rate = rate
        self._burst = float(burst)
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when), oldest first

    def set_rate(self, rate: float) -> None:
        """From now on `rate` per second and key, and bursts of as many."""
        assert rate > 0
        self._rate, self._burst = rate, float(max(1.0, rate))

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, now_boot: float, key: str) -> bool:
        """Take one token of the key's bucket; False if there is none. A refusal costs the sender nothing more."""
        tokens, at = self._buckets.pop(key, (self._burst, now_boot))
        tokens = min(self._burst, tokens + max(0.0, now_boot - at) * self._rate)
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now_boot)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return allowed
