// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What leaves the overlay interface: the choice of the lane, and sealing. A frame that is not taken goes on to the TAP,
// to the bulk lane.
#pragma once

#include <bpf/bpf_core_read.h>

#include "receive.h"

#define FLOW_QUIET (2 * 1000000ULL)
#define SMALL_FRAME 256
#define TCP_FIN_RST 0x05
#define CHECKSUM_PARTIAL 3

// The kernel's own, as far as is needed: whether a checksum is unfinished, and where.
struct sk_buff {
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
	unsigned char *head;
	unsigned char *data;
} __attribute__((preserve_access_index));

enum lane { REFLEX, BULK };

// What the choice needs to know of a frame.
struct flow {
	__u8 tcp;
	__u8 udp;
	__u8 neighbour; // a neighbour or router message: the core answers those
	__u8 moves;     // TCP that must not overtake: it has data, or ends the connection
	__u32 slot;     // in FLOWS
};

// Which lane a frame of `len` bytes takes. The measured reason for every branch:
// - What is neither TCP nor UDP, and what of TCP carries nothing, costs no flow anything when it overtakes: the fast lane.
// - A UDP datagram does, too, unless its flow has just had something on the bulk lane (QUIC sends super-frames and single
//   datagrams in turn, and takes three that overtake for a loss).
// - A small piece of TCP data (a request, a key stroke) gains a third of its round trip there, but if it overtakes a
//   super-frame of its own flow, the receiver sees a gap and asks for what is under way: 1,000 to 3,000 spurious
//   retransmissions in 4 s. So only if the flow was quiet on the bulk lane for longer than the two lanes are apart.
// - Full segments are several times cheaper on the bulk lane (vector instructions, one system call for many).
static __always_inline enum lane choose_lane(const struct flow *f, __u32 len, __u64 bulk_at, __u64 now)
{
	if (f->udp)
		return now - bulk_at > FLOW_QUIET ? REFLEX : BULK;
	if (!f->tcp || !f->moves)
		return REFLEX;
	return len <= SMALL_FRAME && now - bulk_at > FLOW_QUIET ? REFLEX : BULK;
}

static __always_inline __u32 slot_of(const __u8 *ports, __u32 hash)
{
	return (hash ^ load32(ports)) * 0x61c88647 >> 20;
}

static __always_inline void flow_of_udp(const __u8 *udp, const void *end, __u32 hash, struct flow *f)
{
	if (udp + 8 > (const __u8 *)end)
		return;
	f->udp = 1;
	f->slot = slot_of(udp, hash);
}

static __always_inline void flow_of_tcp(const __u8 *tcp, const void *end, __u32 hash, __s32 rest, struct flow *f)
{
	f->tcp = 1;
	f->moves = 1;
	if (tcp + 20 > (const __u8 *)end)
		return; // not a whole header: bulk
	f->moves = rest - (tcp[12] >> 4) * 4 > 0 || tcp[13] & TCP_FIN_RST;
	f->slot = slot_of(tcp, hash);
}

// The flow of an untagged frame, by direct access to the packet; the stack keeps its headers together.
static __always_inline void flow_of(const __u8 *eth, const void *end, struct flow *f)
{
	const __u8 *ip = eth + ETH_HEADER;
	if (ip + 28 > (const __u8 *)end)
		return; // of a UDP super-frame only the headers are at hand
	if (eth[12] == 0x08 && eth[13] == 0x00 && (ip[9] == PROTO_TCP || ip[9] == PROTO_UDP)) {
		const __u32 header = (ip[0] & 15) * 4, hash = load32(ip + 12) ^ load32(ip + 16) * 31;
		f->tcp = f->moves = ip[9] == PROTO_TCP;
		if ((ip[6] & 0x3f) | ip[7])
			return; // a fragment
		if (f->tcp)
			flow_of_tcp(ip + header, end, hash, (ip[2] << 8 | ip[3]) - header, f);
		else
			flow_of_udp(ip + header, end, hash, f);
		return;
	}
	if (eth[12] != 0x86 || eth[13] != 0xdd || ip + 40 > (const __u8 *)end)
		return;
	if (ip[6] == PROTO_TCP || ip[6] == PROTO_UDP) {
		const __u32 hash = load32(ip + 8) ^ load32(ip + 20) ^ load32(ip + 24) * 31 ^ load32(ip + 36) * 31;
		if (ip[6] == PROTO_TCP)
			flow_of_tcp(ip + 40, end, hash, ip[4] << 8 | ip[5], f);
		else
			flow_of_udp(ip + 40, end, hash, f);
	} else if (ip[6] == PROTO_ICMPV6 && ip + 41 <= (const __u8 *)end) {
		f->neighbour = ip[40] >= ROUTER_SOLICITATION && ip[40] <= ICMPV6_REDIRECT;
	}
}

// Finish the checksum that the stack left open. Gives how many bytes lie before what it covers (0: it was finished), or
// -1: it is neither TCP's nor UDP's (SCTP has a CRC), and userspace finishes it.
//
// The skb goes on saying CHECKSUM_PARTIAL, and whoever sends it would write into the sealed bytes. No helper clears
// that directly; `encapsulate` does by removing those bytes from the front (skb_postpull_rcsum).
static __always_inline int finish_checksum(struct __sk_buff *skb, struct scratch *s, __u32 len)
{
	const struct sk_buff *it = (void *)skb;
	if (BPF_CORE_READ_BITFIELD_PROBED(it, ip_summed) != CHECKSUM_PARTIAL)
		return 0;
	const __u32 headroom = BPF_CORE_READ(it, data) - BPF_CORE_READ(it, head);
	const __u32 start = BPF_CORE_READ(it, csum_start) - headroom;
	const __u32 field = BPF_CORE_READ(it, csum_offset);
	if (start < ETH_HEADER || start > len || (field != UDP_CHECKSUM && field != TCP_CHECKSUM) ||
	    start + field + 2 > len)
		return -1;
	complete_checksum(s, start, len, field, field == UDP_CHECKSUM ? PROTO_UDP : PROTO_TCP);
	return start;
}

// Make skb->protocol that of the outer packet: bpf_redirect_neigh goes by it. Only taking a VLAN tag off sets it.
static __always_inline int set_protocol(struct __sk_buff *skb, __be16 proto_be)
{
	if (skb->protocol == proto_be)
		return 0;
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_VLAN), 1) < 0 || bpf_skb_vlan_push(skb, bpf_htons(ETH_VLAN), 1) < 0)
		return -1;
	if (bpf_skb_store_bytes(skb, 16, &proto_be, 2, 0) < 0)
		return -1;
	return bpf_skb_vlan_pop(skb) < 0 || bpf_skb_vlan_pop(skb) < 0 ? -1 : 0;
}

// Outer headers before the message of `size` UDP payload bytes. DF is set; no UDP checksum: the tag is a far better
// one, and a datagram without is never merged with others on its way in (udp_gro_receive_segment), which nothing here
// could take apart.
static __always_inline void write_ipv4(struct scratch *s, const struct config *own, const struct peer *peer, __u32 size,
					__u8 class)
{
	struct ethhdr *eth = (void *)(s->bytes + ROOM_BEFORE - 42);
	struct iphdr *ip = (void *)(s->bytes + ROOM_BEFORE - 28);
	struct udphdr *udp = (void *)(s->bytes + ROOM_BEFORE - 8);
	__builtin_memset(eth, 0, 42);
	eth->h_proto = bpf_htons(ETH_IPV4);
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = class;
	ip->tot_len = bpf_htons(size + 28);
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->protocol = PROTO_UDP;
	__builtin_memcpy(&ip->saddr, peer->source, 4);
	__builtin_memcpy(&ip->daddr, peer->endpoint.bytes, 4);
	__u64 sum = 0;
	const __u16 *half = (void *)ip;
#pragma clang loop unroll(full)
	for (int i = 0; i < 10; i++)
		sum += half[i];
	ip->check = folded(sum);
	udp->source = own->port_be;
	udp->dest = peer->endpoint.port_be;
	udp->len = bpf_htons(size + 8);
}

// IPv6 demands the checksum. What keeps these datagrams from being merged is their hop limit, which alternates.
static __always_inline void write_ipv6(struct scratch *s, const struct config *own, const struct peer *peer, __u32 size,
					__u8 class)
{
	struct ethhdr *eth = (void *)(s->bytes + ROOM_BEFORE - 62);
	struct ipv6hdr *ip = (void *)(s->bytes + ROOM_BEFORE - 48);
	struct udphdr *udp = (void *)(s->bytes + ROOM_BEFORE - 8);
	__builtin_memset(eth, 0, 62);
	eth->h_proto = bpf_htons(ETH_IPV6);
	ip->version = 6;
	ip->priority = class >> 4;
	ip->flow_lbl[0] = class << 4;
	ip->payload_len = bpf_htons(size + 8);
	ip->nexthdr = PROTO_UDP;
	ip->hop_limit = 127 + (s->counter & 1);
	__builtin_memcpy(&ip->saddr, peer->source, 16);
	__builtin_memcpy(&ip->daddr, peer->endpoint.bytes, 16);
	udp->source = own->port_be;
	udp->dest = peer->endpoint.port_be;
	udp->len = bpf_htons(size + 8);
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 32, bpf_htonl(size + 8 + PROTO_UDP));
	const __u16 check = folded(sum_of(s, ROOM_BEFORE - 8, size + 8, sum));
	udp->check = check ? check : 0xffff;
}

// Seal the frame in the scratch buffer for a peer, with outer headers. The size of the packet; 0: the peer's session
// does not send.
__noinline int seal_datagram(struct scratch *s, struct peer *peer, __u32 len, __u32 number)
{
	const struct config *own = config();
	if (!s || !peer || !own || len > MAX_PAYLOAD - HEADER - TAG - 1)
		return 0;
	struct session *it = session_at(peer->slot);
	const __u32 size = HEADER + 1 + len + TAG;
	struct taken t = {.size = size};
	if (!it || take_counter(it, &s->aead, &t, number, bpf_ktime_get_boot_ns()) < 0)
		return 0;
	if (t.exhausted)
		tell(EVENT_EXHAUSTED, number, t.local_index, 0, 0);
	s->index = t.remote_index;
	s->counter = t.counter;
	s->type = TRANSPORT;
	s->reserved[0] = s->reserved[1] = s->reserved[2] = 0;
	s->bytes[MESSAGE] = ETHERNET;
	const __u8 class = traffic_class(s, len);
	seal_message(s, 1 + len, 0);
	count(COUNT_tx_packets);
	count_more(COUNT_tx_bytes, size);
	if (peer->endpoint.family == 6) {
		write_ipv6(s, own, peer, size, class);
		return size + 62;
	}
	write_ipv4(s, own, peer, size, class);
	return size + 42;
}

// Turn the skb into the packet of `total` bytes in the scratch buffer.
static __always_inline int encapsulate(struct __sk_buff *skb, struct scratch *s, __u32 total, __u32 partial, __u32 v6)
{
	const __u32 removed = partial ? partial + 1 : 0;
	if (bpf_skb_change_tail(skb, total + removed, 0) < 0)
		return -1;
	if (set_protocol(skb, v6 ? bpf_htons(ETH_IPV6) : bpf_htons(ETH_IPV4)) < 0)
		return -1;
	if (removed && bpf_skb_adjust_room(skb, -(__s32)removed, BPF_ADJ_ROOM_MAC, 0) < 0)
		return -1;
	asm volatile("%0 &= 2047" : "+r"(total));
	if (!total)
		return -1;
	const __u8 *from = v6 ? s->bytes + ROOM_BEFORE - 62 : s->bytes + ROOM_BEFORE - 42;
	return bpf_skb_store_bytes(skb, 0, from, total, BPF_F_INVALIDATE_HASH);
}
