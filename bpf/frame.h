// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Headers of the frame in the scratch buffer. The same verdicts as `native/engine/src/ip.rs` and `packet.rs`; a hostile
// member wrote it, so every length is checked against `len`.
#pragma once

#include "maps.h"

#define ETH_HEADER 14
#define ETH_IPV4 0x0800
#define ETH_ARP 0x0806
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_VLAN_OUTER 0x88a8
#define IPV6_HEADER 40
#define MAX_EXTENSION_HEADERS 8

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define TCP_CHECKSUM 16 // its place in the header
#define UDP_CHECKSUM 6
#define PROTO_ICMPV6 58

// Where the parts of a frame are. `start`: of the network header.
struct parts {
	__u16 ethertype;
	__u16 start;
	__u16 upper;
	__u16 end;
	__u8 protocol;
	__u8 fragment;
	__u8 first;
};

// A byte of the frame. The mask is for the verifier: offsets are checked against the frame's length by the caller. It
// is opaque, or clang would drop it where it can prove what the verifier cannot.
static __always_inline __u8 *at(struct scratch *s, __u32 offset)
{
	asm volatile("%0 &= 2047" : "+r"(offset));
	return s->bytes + FRAME + offset;
}

static __always_inline __u16 be16(struct scratch *s, __u32 offset)
{
	const __u8 *p = at(s, offset);
	return (__u16)(p[0] << 8 | p[1]);
}

// Ethertype and what follows the Ethernet header and up to two tags. Negative: malformed.
static __always_inline int network_header(struct scratch *s, __u32 len, struct parts *p)
{
	__u32 offset = ETH_HEADER;
	for (int i = 0; i < 3; i++) {
		if (offset > len)
			return -1;
		__u16 ethertype = be16(s, offset - 2);
		if (ethertype != ETH_VLAN && ethertype != ETH_VLAN_OUTER) {
			p->ethertype = ethertype;
			p->start = offset;
			return 0;
		}
		offset += 4;
	}
	return -1;
}

static __always_inline int ipv4_header(struct scratch *s, __u32 len, struct parts *p)
{
	const __u32 start = p->start;
	if (start + 20 > len || *at(s, start) >> 4 != 4)
		return -1;
	const __u32 header = (*at(s, start) & 15) * 4, total = be16(s, start + 2);
	if (header < 20 || total < header || start + total > len)
		return -1;
	const __u16 fragment = be16(s, start + 6);
	p->protocol = *at(s, start + 9);
	p->upper = start + header;
	p->end = start + total;
	p->fragment = (fragment & 0x3fff) != 0;
	p->first = (fragment & 0x1fff) == 0;
	return 0;
}

__noinline int ipv6_header(struct scratch *s, __u32 len, struct parts *p)
{
	if (!s || !p || len > MAX_PAYLOAD)
		return -1;
	const __u32 start = p->start;
	__u32 upper = start + IPV6_HEADER;
	if (upper > len || *at(s, start) >> 4 != 6)
		return -1;
	const __u32 end = upper + be16(s, start + 4);
	if (end > len)
		return -1;
	__u8 protocol = *at(s, start + 6);
	p->fragment = 0;
	p->first = 1;
	p->end = end;
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u32 size = 0;
		if (protocol == 0 || protocol == 43 || protocol == 44 || protocol == 51 || protocol == 60) {
			if (upper + 8 > end)
				return -1;
			const __u32 units = *at(s, upper + 1);
			size = protocol == 44 ? 8 : protocol == 51 ? (units + 2) * 4 : (units + 1) * 8;
			if (upper + size > end)
				return -1;
			if (protocol == 44) {
				const __u16 field = be16(s, upper + 2);
				p->fragment |= (field & 0xfff9) != 0;
				p->first &= (field & 0xfff8) == 0;
			}
			protocol = *at(s, upper);
			upper += size;
		}
		if (!size || !p->first) {
			p->protocol = protocol;
			p->upper = upper;
			return 0;
		}
	}
	return -1;
}

// Checksum (RFC 1071) of `len` bytes at an offset of the scratch buffer, not folded, on top of `sum`. Clears the three
// bytes behind them. In pieces: kernels before 6.13 take 512 bytes at once.
__noinline long sum_of(struct scratch *s, __u32 offset, __u32 len, __u32 sum)
{
	if (!s || offset > MESSAGE + MAX_BLOCKS * CHACHA_BLOCK || len > MAX_BLOCKS * CHACHA_BLOCK + ROOM_BEFORE)
		return 0;
	__u32 end = offset + len;
	if (end > MESSAGE + MAX_BLOCKS * CHACHA_BLOCK)
		return 0;
	s->bytes[end] = 0;
	s->bytes[end + 1] = 0;
	s->bytes[end + 2] = 0;
	for (int i = 0; i < 5 && len; i++) {
		__u32 piece = len > 512 ? 512 : (len + 3) & ~3U;
		if (offset > MESSAGE + MAX_BLOCKS * CHACHA_BLOCK)
			return 0;
		asm volatile("%0 &= 1023" : "+r"(piece));
		if (piece > 512)
			return 0;
		sum = bpf_csum_diff(0, 0, (__be32 *)(s->bytes + offset), piece, sum);
		offset += piece;
		len = len > piece ? len - piece : 0;
	}
	return sum;
}

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// Finish a checksum whose field, `field` bytes behind `start`, holds the sum of the pseudo-header.
static __always_inline void complete_checksum(struct scratch *s, __u32 start, __u32 end, __u32 field, __u8 protocol)
{
	__u16 value = folded(sum_of(s, FRAME + start, end - start, 0));
	if (!value && protocol == PROTO_UDP)
		value = 0xffff; // RFC 768: zero would mean none
	__u8 *to = at(s, start + field);
	to[0] = value & 0xff; // the sum of the machine's own halfwords is in the machine's own order
	to[1] = value >> 8;
}
