// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What both receive programs do: find our datagrams, judge them, open those of lane 8 in the scratch buffer. Nothing
// here depends on the hook; the packet is only read.
#pragma once

#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "aead.h"
#include "guard.h"
#include "handshake.h"
#include "session.h"
#include "traffic_class.h"

#define RESPONSE 2
#define COOKIE_REPLY 3
#define TRANSPORT 4
#define HELLO 5
#define HELLO_REPLY 6
#define OPENED 0xf0 // never on a wire: what xdp_synapse hands to tc_opened
#define COOKIE_REPLY_SIZE 64
#define HELLO_SIZE 64
#define HELLO_REPLY_SIZE 56
#define ETHERNET 1
#define ETHERNET_PARTIAL 2
#define RELAYED 5

// A UDP datagram for our port.
struct datagram {
	__u32 offset; // of the UDP payload in the packet
	__u32 len;    // of it
	__u8 type;
	__u8 reserved; // whether any of the three bytes behind it is not zero
	__u32 index;
	__u64 counter;
};

struct outer_vlan {
	__be16 tci;
	__be16 proto_be;
};

// Read once, before LOCALS: an answer that has been overtaken must not be remembered as the newest.
static __always_inline __u32 locals_version(const struct config *own)
{
	return *(const volatile __u32 *)&own->locals;
}

static __always_inline int is_local4(struct scratch *s, const struct config *own, __be32 ip)
{
	const __u32 now = locals_version(own);
	if (s->near4 == ip && s->near4_at == now)
		return 1;
	struct address to = {.family = 4};
	__builtin_memcpy(to.bytes, &ip, 4);
	if (!bpf_map_lookup_elem(&LOCALS, &to))
		return 0;
	s->near4 = ip;
	s->near4_at = now;
	return 1;
}

static __always_inline int is_local6(struct scratch *s, const struct config *own, const struct in6_addr *ip)
{
	const __u32 now = locals_version(own);
	if (s->near6_at == now && same6(s->near6, (const __u8 *)ip))
		return 1;
	struct address to = {.family = 6};
	__builtin_memcpy(to.bytes, ip, 16);
	if (!bpf_map_lookup_elem(&LOCALS, &to))
		return 0;
	__builtin_memcpy(s->near6, ip, 16);
	s->near6_at = now;
	return 1;
}

// The UDP header for our port behind the IP header, or NULL; source and payload are noted.
static __always_inline struct udphdr *outer_ipv4(void *at, void *start, void *end, const struct config *own,
						 struct scratch *s, struct datagram *d)
{
	struct address *from = &s->source;
	struct iphdr *ip = at;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->protocol != PROTO_UDP)
		return 0;
	if (udp->dest != own->port_be || ip->frag_off & bpf_htons(0x3fff))
		return 0;
	const __u32 len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || bpf_ntohs(ip->tot_len) != len + sizeof(*ip) || !is_local4(s, own, ip->daddr))
		return 0;
	__builtin_memcpy(from->bytes, &ip->saddr, 4);
	from->family = 4;
	s->outer_class = ip->tos;
	d->offset = (void *)(udp + 1) - start;
	d->len = len - sizeof(*udp);
	return udp;
}

static __always_inline struct udphdr *outer_ipv6(void *at, void *start, void *end, const struct config *own,
						 struct scratch *s, struct datagram *d)
{
	struct address *from = &s->source;
	struct ipv6hdr *ip = at;
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end || ip->version != 6 || ip->nexthdr != PROTO_UDP || udp->dest != own->port_be)
		return 0;
	const __u32 len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || bpf_ntohs(ip->payload_len) != len || !is_local6(s, own, &ip->daddr))
		return 0;
	__builtin_memcpy(from->bytes, &ip->saddr, 16);
	from->family = 6;
	s->outer_class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	d->offset = (void *)(udp + 1) - start;
	d->len = len - sizeof(*udp);
	return udp;
}

// Whether the packet is a datagram for our port; what it says in its first 16 bytes.
static __always_inline int find_datagram(void *start, void *end, const struct config *own, struct scratch *s,
					 struct datagram *d)
{
	struct ethhdr *eth = start;
	void *network = eth + 1;
	struct udphdr *udp;
	if (network > end)
		return 0;
	__be16 proto_be = eth->h_proto;
	if (proto_be == bpf_htons(ETH_VLAN)) {
		struct outer_vlan *tag = network;
		network = tag + 1;
		if (network > end)
			return 0;
		proto_be = tag->proto_be;
	}
	__builtin_memset(&s->source, 0, sizeof(s->source));
	if (proto_be == bpf_htons(ETH_IPV4))
		udp = outer_ipv4(network, start, end, own, s, d);
	else if (proto_be == bpf_htons(ETH_IPV6))
		udp = outer_ipv6(network, start, end, own, s, d);
	else
		return 0;
	if (!udp)
		return 0;
	s->source.port_be = udp->source;
	const __u8 *head = (void *)(udp + 1);
	if (d->len < 4 || (void *)(head + 4) > end) {
		d->type = 0;
		return 1;
	}
	d->type = head[0];
	d->reserved = head[1] | head[2] | head[3];
	if (d->len >= HEADER && (void *)(head + HEADER) <= end) {
		__builtin_memcpy(&d->index, head + 4, 4);
		__builtin_memcpy(&d->counter, head + 8, 8);
	} else if (d->len >= 8 && d->type != TRANSPORT) {
		d->type = 0xff; // no datagram is so short
	}
	return 1;
}

// Lanes 0 to 7 are the engine's, 8 is ours.
static __always_inline int judge_transport(const struct config *own, const struct datagram *d, __u32 *slot)
{
	if (d->len < HEADER + TAG)
		return drop(COUNT_drop_runt);
	const __u32 *found = bpf_map_lookup_elem(&INDICES, &d->index);
	if (!found)
		return own->lenient ? pass(COUNT_reflex_pass_bulk) : drop(COUNT_drop_unknown_session);
	const __u64 lane = d->counter >> LANE_SHIFT;
	if (lane < LANE)
		return pass(COUNT_reflex_pass_bulk);
	if (lane > LANE || *found == NO_SLOT)
		return drop(COUNT_drop_lane);
	if (d->len > MAX_PAYLOAD)
		return drop(COUNT_drop_frame_too_big);
	*slot = *found;
	return OPEN;
}

// Types 3, 5 and 6; their lengths are right.
static __always_inline int judge_rest(struct scratch *s, const struct datagram *d)
{
	if (d->type == HELLO)
		return drop(COUNT_drop_not_a_nucleus);
	if (d->type == COOKIE_REPLY) {
		const int known = awaited(bpf_map_lookup_elem(&HANDSHAKES, &d->index));
		return known ? pass(COUNT_reflex_pass_handshake) : drop(COUNT_drop_unknown_handshake);
	}
	const int known = awaited(bpf_map_lookup_elem(&HELLOS, &s->source));
	return known ? pass(COUNT_reflex_pass_handshake) : drop(COUNT_drop_unknown_hello);
}

// Length that a type asks for; 0: no such type.
static __always_inline __u32 size_of_type(__u8 type)
{
	switch (type) {
	case INITIATION:
		return INITIATION_SIZE;
	case RESPONSE:
		return RESPONSE_SIZE;
	case COOKIE_REPLY:
		return COOKIE_REPLY_SIZE;
	case HELLO:
		return HELLO_SIZE;
	case HELLO_REPLY:
		return HELLO_REPLY_SIZE;
	default:
		return 0;
	}
}

// The frame of a payload of kind ETHERNET or ETHERNET_PARTIAL, checked: its length, or minus the counter of the drop.
static __always_inline int checked_frame(struct scratch *s, struct peer *peer, __u32 payload, __u64 now)
{
	const __u8 kind = s->bytes[MESSAGE];
	const __u32 len = payload - 1;
	if (kind != ETHERNET && kind != ETHERNET_PARTIAL)
		return -(kind == RELAYED ? COUNT_drop_relayed : COUNT_drop_payload_kind);
	if (!load32(peer->mac) && !peer->mac[4] && !peer->mac[5])
		return -COUNT_drop_no_membership;
	const int refused = guard(s, peer, len);
	if (refused)
		return -refused;
	const int unmarked = mark_frame(s, len);
	if (unmarked)
		return -unmarked;
	if (kind == ETHERNET_PARTIAL) {
		struct parts p = {};
		if (network_header(s, len, &p) < 0)
			return -COUNT_drop_bad_payload;
		const int ip = p.ethertype == ETH_IPV4   ? ipv4_header(s, len, &p)
			       : p.ethertype == ETH_IPV6 ? ipv6_header(s, len, &p)
							 : -1;
		if (ip < 0 || p.fragment || p.end != len || (p.protocol != PROTO_TCP && p.protocol != PROTO_UDP))
			return -COUNT_drop_bad_payload;
		const __u32 least = p.protocol == PROTO_TCP ? 20 : 8;
		if (p.upper + least > p.end)
			return -COUNT_drop_bad_payload;
		const __u32 header = p.protocol == PROTO_TCP ? (*at(s, p.upper + 12) >> 4) * 4 : least;
		if (header < least || p.upper + header > p.end)
			return -COUNT_drop_bad_payload;
		complete_checksum(s, p.upper, p.end, p.protocol == PROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM,
				  p.protocol);
	}
	peer->delivered_at = now;
	return len;
}

// Tell the core what it must know of an authenticated datagram.
static __always_inline void note_source(struct scratch *s, struct session *it, const struct peer *peer,
					const struct arrival *what, __u32 number, __u64 now)
{
	if (what->confirms)
		tell(EVENT_CONFIRMED, number, s->index, &s->source, what->size);
	const struct address *known = &peer->endpoint;
	const int same = same6(known->bytes, s->source.bytes) && known->port_be == s->source.port_be &&
			 known->family == s->source.family;
	if (what->highest && !same && may_tell_source(it, now))
		tell(EVENT_SOURCE, number, s->index, &s->source, what->size);
}

// Open the datagram of lane 8 in the scratch buffer, `len` bytes from its type on. The length of the frame that is then
// at FRAME, to be delivered; 0: consumed, everything is counted.
__noinline int open_datagram(struct scratch *s, __u32 slot, __u32 len)
{
	struct session *it = session_at(slot);
	if (!s || !it || len < HEADER + TAG || len > MAX_PAYLOAD)
		return 0;
	const __u64 now = bpf_ktime_get_boot_ns(), sequence = s->counter & SEQUENCE_MASK;
	const __u32 payload = len - HEADER - TAG;
	int reason = before_open(it, &s->aead, s->index, sequence, now);
	if (reason) {
		count(reason);
		return 0;
	}
	if (!open_message(s, payload, 0)) {
		count(COUNT_drop_bad_tag);
		return 0;
	}
	struct arrival what = {.size = len, .data = payload > 0};
	reason = after_open(it, &what, s->index, sequence, now);
	if (reason) {
		count(reason);
		return 0;
	}
	count(COUNT_rx_packets);
	count_more(COUNT_rx_bytes, len);
	__u32 number = it->peer;
	struct peer *peer = bpf_map_lookup_elem(&PEERS, &number);
	if (!peer) {
		count(COUNT_drop_unknown_session);
		return 0;
	}
	note_source(s, it, peer, &what, number, now);
	if (!payload)
		return 0;
	const int frame = checked_frame(s, peer, payload, now);
	if (frame < 0) {
		count(-frame);
		return 0;
	}
	return frame;
}
