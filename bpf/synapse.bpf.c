// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The reflex lane: single frames sealed and opened in the kernel. docs/PROTOCOL.md draws the bytes, ARCHITECTURE.md the
// journey.
//
//   omni_egress   egress of the overlay interface: chooses the lane; seals, and sends by the underlay
//   tc_synapse    ingress of an underlay: judges, opens, delivers as received by the overlay interface
//   xdp_synapse   the same at XDP: it opens in place and marks the datagram, and tc_synapse only takes the wrapping off
//
// aead_seal and aead_open are the cipher alone, for tests by BPF_PROG_TEST_RUN.

#include "receive.h"
#include "transmit.h"

#define TCX_NEXT -1 // what else is attached there decides
#define TCX_DROP 2
#define HEADERS 96 // longest outer headers, and the message's
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7) // not in the headers of Debian 12
#define SHORTEST 34 // what bpf_skb_adjust_room leaves at least: Ethernet and IPv4 headers

static __always_inline int load(void *ctx, const int xdp, __u32 offset, void *to, __u32 len)
{
	return xdp ? bpf_xdp_load_bytes(ctx, offset, to, len) : bpf_skb_load_bytes(ctx, offset, to, len);
}

// The datagram's bytes into the scratch buffer.
static __always_inline int load_datagram(void *ctx, const int xdp, struct scratch *s, const struct datagram *d)
{
	__u32 len = d->len;
	asm volatile("%0 &= 2047" : "+r"(len));
	return len ? load(ctx, xdp, d->offset, s->bytes + ROOM_BEFORE, len) : -1;
}

// What becomes of a datagram for our port.
static __always_inline int judge(void *ctx, const int xdp, const struct config *own, struct scratch *s,
				 const struct datagram *d, __u32 *slot)
{
	if (d->len < 4)
		return drop(COUNT_drop_runt);
	if (d->type == TRANSPORT && !d->reserved)
		return judge_transport(own, d, slot);
	const __u32 size = size_of_type(d->type);
	if (!size || d->reserved)
		return drop(COUNT_drop_bad_type);
	if (d->len != size)
		return drop(COUNT_drop_bad_length);
	if (d->type > RESPONSE)
		return judge_rest(s, d);
	return load_datagram(ctx, xdp, s, d) < 0 ? DROP : judge_handshake(s, d->type);
}

// Let the overlay interface receive the frame of `len` bytes in the scratch buffer in the place of the packet.
static __always_inline int deliver(struct __sk_buff *skb, struct scratch *s, const struct config *own, __u32 len)
{
	for (__u32 i = len; i < SHORTEST; i++)
		*at(s, i) = 0;
	if (len < SHORTEST)
		len = SHORTEST;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb) < 0)
		goto failed;
	const __s32 shorter = (__s32)len - (__s32)skb->len;
	if (shorter >= 0 || bpf_skb_adjust_room(skb, shorter, BPF_ADJ_ROOM_MAC, ADJ_ROOM_DECAP_L3_IPV4) < 0)
		goto failed;
	const __u64 flags = BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH;
	asm volatile("%0 &= 2047" : "+r"(len));
	if (!len || bpf_skb_store_bytes(skb, 0, s->bytes + FRAME, len, flags) < 0)
		goto failed;
	return bpf_redirect(own->overlay, BPF_F_INGRESS);
failed:
	count(COUNT_drop_tap_write);
	return TCX_DROP;
}

// Whether a packet at the ingress is a datagram for our port, and stands alone.
static __always_inline int arrived(struct __sk_buff *skb, const struct config *own, struct scratch *s,
				   struct datagram *d)
{
	const __u32 linear = skb->data_end - skb->data;
	if (linear < HEADERS && skb->len > linear)
		bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
	if (!find_datagram((void *)(long)skb->data, (void *)(long)skb->data_end, own, s, d))
		return 0;
	if (skb->gso_size)
		count(COUNT_reflex_pass_merged);
	return !skb->gso_size;
}

SEC("classifier")
int tc_synapse(struct __sk_buff *skb)
{
	const struct config *own = config();
	struct scratch *s = scratch();
	struct datagram d = {};
	__u32 slot = 0;
	int len = 0;
	if (!own || !s || !arrived(skb, own, s, &d))
		return TCX_NEXT;
	const int verdict = judge(skb, 0, own, s, &d, &slot);
	if (verdict == PASS)
		return TCX_NEXT;
	if (verdict == OPEN && load_datagram(skb, 0, s, &d) == 0)
		len = open_datagram(s, slot, d.len);
	return len > 0 && len <= MAX_PAYLOAD ? deliver(skb, s, own, len) : TCX_DROP;
}

// Behind xdp_synapse: what that has opened. All else it has judged already, and taken off the budget of whoever sent it.
SEC("classifier")
int tc_opened(struct __sk_buff *skb)
{
	const struct config *own = config();
	struct scratch *s = scratch();
	struct datagram d = {};
	if (!own || !s || !arrived(skb, own, s, &d))
		return TCX_NEXT;
	if (d.type != OPENED || d.len < HEADER + TAG || d.counter != own->opened_mark)
		return TCX_NEXT;
	const int len = load_datagram(skb, 0, s, &d) == 0 ? s->index : 0;
	return len > 0 && len <= MAX_PAYLOAD ? deliver(skb, s, own, len) : TCX_DROP;
}

SEC("xdp.frags")
int xdp_synapse(struct xdp_md *xdp)
{
	const struct config *own = config();
	struct scratch *s = scratch();
	struct datagram d = {};
	__u32 slot = 0;
	if (!own || !s || !find_datagram((void *)(long)xdp->data, (void *)(long)xdp->data_end, own, s, &d))
		return XDP_PASS;
	const int verdict = judge(xdp, 1, own, s, &d, &slot);
	if (verdict != OPEN)
		return verdict == PASS ? XDP_PASS : XDP_DROP;
	if (load_datagram(xdp, 1, s, &d) < 0)
		return XDP_DROP;
	const int frame = open_datagram(s, slot, d.len);
	if (frame <= 0)
		return XDP_DROP;
	s->type = OPENED;
	s->index = frame;
	s->counter = own->opened_mark;
	__u32 len = HEADER + 1 + frame;
	asm volatile("%0 &= 2047" : "+r"(len));
	return len && bpf_xdp_store_bytes(xdp, d.offset, s->bytes + ROOM_BEFORE, len) == 0 ? XDP_PASS : XDP_DROP;
}

static __always_inline int leave(__u32 why)
{
	count(why);
	return TCX_NEXT;
}

SEC("classifier")
int omni_egress(struct __sk_buff *skb)
{
	const struct config *own = config();
	struct scratch *s = scratch();
	const __u8 *eth = (void *)(long)skb->data;
	const void *end = (void *)(long)skb->data_end;
	struct flow f = {};
	if (!own || !s || eth + ETH_HEADER > (const __u8 *)end)
		return TCX_NEXT;
	if (eth[0] & 1)
		return leave(COUNT_reflex_pass_many);
	flow_of(eth, end, &f);
	__u32 flow_slot = f.slot & (FLOW_SLOTS - 1);
	__u64 *bulk_at = bpf_map_lookup_elem(&FLOWS, &flow_slot);
	const __u64 now = bpf_ktime_get_ns();
	if (!bulk_at)
		return TCX_NEXT;
	if (skb->gso_size || choose_lane(&f, skb->len, *bulk_at, now) == BULK) {
		if (f.tcp || f.udp)
			*bulk_at = now;
		return leave(skb->gso_size ? COUNT_reflex_pass_super_frame :
			     f.tcp         ? COUNT_reflex_pass_tcp :
					     COUNT_reflex_pass_udp);
	}
	if (skb->vlan_present)
		return leave(COUNT_reflex_pass_tag);
	if (f.neighbour || (eth[12] == 0x08 && eth[13] == 0x06))
		return leave(COUNT_reflex_pass_neighbour);
	if (!same_mac(eth + 6, own->own_mac))
		return leave(COUNT_reflex_pass_other);

	struct mac mac;
	__builtin_memcpy(mac.bytes, eth, 6);
	const __u32 *found = bpf_map_lookup_elem(&FDB, &mac);
	if (!found)
		return leave(COUNT_reflex_pass_unresolved);
	const __u32 number = *found;
	struct peer *peer = bpf_map_lookup_elem(&PEERS, &number);
	if (!peer || peer->slot == NO_SLOT)
		return leave(COUNT_reflex_pass_no_session);
	if (!peer->proven || !peer->interface)
		return leave(COUNT_reflex_pass_no_endpoint);
	const __u32 v6 = peer->endpoint.family == 6, interface = peer->interface;
	__u32 len = skb->len;
	__u32 outer = len + (v6 ? 48 : 28) + HEADER + 1 + TAG;
	// What the underlay's own MTU refuses would vanish behind the redirect; the engine sends it in fragments.
	if (outer > peer->mtu || len > MAX_PAYLOAD - HEADER - TAG - 1 || bpf_check_mtu(skb, interface, &outer, 0, 0)) {
		if (f.udp)
			*bulk_at = now;
		return leave(COUNT_reflex_pass_too_big);
	}
	asm volatile("%0 &= 2047" : "+r"(len));
	if (!len || bpf_skb_load_bytes(skb, 0, s->bytes + FRAME, len) < 0)
		return leave(COUNT_reflex_pass_other);
	const int partial = finish_checksum(skb, s, len);
	if (partial < 0)
		return leave(COUNT_reflex_pass_other);
	const int total = seal_datagram(s, peer, len, number);
	if (total <= 0)
		return leave(COUNT_reflex_pass_no_session);
	if (encapsulate(skb, s, total, partial, v6) < 0) {
		count(COUNT_drop_send_buffer);
		return TCX_DROP;
	}
	return bpf_redirect_neigh(interface, 0, 0, 0);
}

// Key 32, nonce 12, message, tag 16: sealed or opened in place. 0: done.
static __always_inline int aead_test(struct __sk_buff *skb, const int seal)
{
	struct scratch *s = scratch();
	const __u32 fixed = 32 + 12 + TAG;
	__u32 first;
	if (!s || skb->len < fixed || skb->len > fixed + MAX_PAYLOAD)
		return 2;
	__u32 len = skb->len - fixed, size = len + TAG;
	asm volatile("%0 &= 2047" : "+r"(size));
	if (!size || bpf_skb_load_bytes(skb, 0, s->aead.key, 32) < 0 ||
	    bpf_skb_load_bytes(skb, 32, &first, 4) < 0 || bpf_skb_load_bytes(skb, 36, &s->counter, 8) < 0 ||
	    bpf_skb_load_bytes(skb, 44, s->bytes + MESSAGE, size) < 0)
		return 2;
	if (seal)
		seal_message(s, len, first);
	else if (!open_message(s, len, first))
		return 1;
	return bpf_skb_store_bytes(skb, 44, s->bytes + MESSAGE, size, 0) < 0 ? 2 : 0;
}

SEC("classifier")
int aead_seal(struct __sk_buff *skb)
{
	return aead_test(skb, 1);
}

SEC("classifier")
int aead_open(struct __sk_buff *skb)
{
	return aead_test(skb, 0);
}

char _license[] SEC("license") = "GPL";
