// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The source guard: what a peer may say on our segment. The same verdicts as `native/engine/src/guard.rs` and
// `core/guard.py`, which holds the rules. Each function gives 0 or the counter of the drop.
#pragma once

#include "frame.h"

#define ARP_SIZE 28
#define NEIGHBOUR_SIZE 24
#define ROUTER_SOLICITATION 133
#define ROUTER_ADVERTISEMENT 134
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define ICMPV6_REDIRECT 137
#define ICMP_REDIRECT 5

static __always_inline __u32 load32(const __u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (__u32)p[3] << 24;
}

static __always_inline int same6(const __u8 *a, const __u8 *b)
{
	return load32(a) == load32(b) && load32(a + 4) == load32(b + 4) && load32(a + 8) == load32(b + 8) &&
	       load32(a + 12) == load32(b + 12);
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return load32(a) == load32(b) && a[4] == b[4] && a[5] == b[5];
}

static __always_inline int is_zero6(const __u8 *a)
{
	return !(load32(a) | load32(a + 4) | load32(a + 8) | load32(a + 12));
}

static __always_inline int may_use4(const struct peer *peer, const __u8 *address)
{
	const __u32 wanted = load32(address);
	if (!wanted)
		return 1;
	for (__u32 i = 0; i < MAX_ADDRESSES && i < peer->ipv4_count; i++)
		if (load32(peer->ipv4[i]) == wanted)
			return 1;
	return 0;
}

// The list includes its EUI-64 link-local address: the loader puts it there.
static __always_inline int owns6(const struct peer *peer, const __u8 *address)
{
	for (__u32 i = 0; i < MAX_ADDRESSES && i < peer->ipv6_count; i++)
		if (same6(peer->ipv6[i], address))
			return 1;
	return 0;
}

// Options of a neighbour message that are still to be looked at.
struct options {
	struct scratch *scratch;
	const struct peer *peer;
	__u32 offset;
	__u32 end;
	__u32 malformed;
	__u32 foreign;
};


static long check_option(__u32 number, struct options *o)
{
	struct scratch *s = o->scratch;
	const __u32 offset = o->offset;
	if (offset >= o->end)
		return 1;
	const __u32 size = *at(s, offset + 1) * 8;
	if (!size || offset + size > o->end) {
		o->malformed = 1;
		return 1;
	}
	const __u8 kind = *at(s, offset);
	if ((kind == 1 || kind == 2) && !(size == 8 && same_mac(at(s, offset + 2), o->peer->mac)))
		o->foreign = 1;
	__u32 next = offset + size;
	asm volatile("%0 &= 4095" : "+r"(next)); // the verifier sees the same range each time, and is content
	o->offset = next;
	return 0;
}

// Every link-layer address in the options of a neighbour message must be the peer's own (RFC 4861, section 4.6).
static __always_inline int check_options(struct scratch *s, const struct peer *peer, __u32 offset, __u32 end)
{
	struct options o = {.scratch = s, .peer = peer, .offset = offset, .end = end};
	bpf_loop(MAX_PAYLOAD / 8, check_option, &o, 0);
	return o.malformed ? COUNT_drop_bad_payload : o.foreign ? COUNT_drop_source_guard : 0;
}

static __always_inline int check_neighbour(struct scratch *s, const struct peer *peer, const struct parts *p, __u8 kind)
{
	if (p->fragment || p->upper + NEIGHBOUR_SIZE > p->end)
		return COUNT_drop_bad_payload;
	const int options = check_options(s, peer, p->upper + NEIGHBOUR_SIZE, p->end);
	if (options)
		return options;
	// A solicitation from the unspecified address would make another target's owner give that address up (RFC 4862,
	// 5.4.3).
	const int claims = kind == NEIGHBOUR_ADVERTISEMENT || is_zero6(at(s, p->start + 8));
	return claims && !owns6(peer, at(s, p->upper + 8)) ? COUNT_drop_source_guard : 0;
}

static __always_inline int check_ipv6(struct scratch *s, __u32 len, const struct peer *peer, struct parts *p)
{
	if (ipv6_header(s, len, p) < 0)
		return COUNT_drop_bad_payload;
	const __u8 *source = at(s, p->start + 8);
	if (!is_zero6(source) && !owns6(peer, source))
		return COUNT_drop_source_guard;
	if (p->protocol != PROTO_ICMPV6 || !p->first)
		return 0;
	if (p->upper >= p->end)
		return COUNT_drop_bad_payload;
	const __u8 kind = *at(s, p->upper);
	if (kind == ROUTER_ADVERTISEMENT)
		return COUNT_drop_router_advertisement;
	if (kind == ICMPV6_REDIRECT)
		return COUNT_drop_redirect;
	if (kind < ROUTER_SOLICITATION || kind > ICMPV6_REDIRECT)
		return 0;
	if (p->fragment)
		return COUNT_drop_source_guard; // RFC 6980
	if (kind == ROUTER_SOLICITATION)
		return p->upper + 8 > p->end ? 0 : check_options(s, peer, p->upper + 8, p->end);
	return check_neighbour(s, peer, p, kind);
}

static __always_inline int check_ipv4(struct scratch *s, __u32 len, const struct peer *peer, struct parts *p)
{
	if (ipv4_header(s, len, p) < 0)
		return COUNT_drop_bad_payload;
	if (!may_use4(peer, at(s, p->start + 12)))
		return COUNT_drop_source_guard;
	if (p->protocol != PROTO_ICMP || !p->first)
		return 0;
	if (p->upper >= p->end)
		return COUNT_drop_bad_payload;
	return *at(s, p->upper) == ICMP_REDIRECT ? COUNT_drop_redirect : 0;
}

static __always_inline int check_arp(struct scratch *s, __u32 len, const struct peer *peer, const struct parts *p)
{
	const __u32 start = p->start;
	if (start + ARP_SIZE > len)
		return COUNT_drop_bad_payload;
	const __u8 *body = at(s, start);
	if (load32(body) != 0x00080100 || body[4] != 6 || body[5] != 4) // Ethernet, IPv4: 00 01 08 00 06 04
		return COUNT_drop_bad_payload;
	return same_mac(body + 8, peer->mac) && may_use4(peer, body + 14) ? 0 : COUNT_drop_source_guard;
}

// Whether the peer may send the frame in the scratch buffer to us.
__noinline int guard(struct scratch *s, struct peer *peer, __u32 len)
{
	const struct config *own = config();
	struct parts p = {};
	if (!s || !peer || !own || len > MAX_PAYLOAD)
		return COUNT_drop_bad_payload;
	if (len < ETH_HEADER || network_header(s, len, &p) < 0)
		return COUNT_drop_bad_payload;
	if (!same_mac(at(s, 6), peer->mac))
		return COUNT_drop_source_guard;
	if (!(*at(s, 0) & 1) && !same_mac(at(s, 0), own->own_mac))
		return COUNT_drop_destination_guard;
	switch (p.ethertype) {
	case ETH_IPV4:
		return check_ipv4(s, len, peer, &p);
	case ETH_IPV6:
		return check_ipv6(s, len, peer, &p);
	case ETH_ARP:
		return check_arp(s, len, peer, &p);
	default:
		return 0;
	}
}
