// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the programs and their loader share: keys and values of the maps, byte for byte as `native/reflex/src/layout.rs`
// writes and reads them. Numbers are the machine's own; addresses and ports are in network byte order, names ending in
// `_be` say so.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#define ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)

#define MAX_BLOCKS 32 // ChaCha20 blocks of the longest payload: 2,048 bytes, an outer packet of the usual MTU
#define MAX_ADDRESSES 4
#define WINDOW_BLOCKS 129
#define NO_SLOT 0xffffffff

// CONFIG, one entry: what is the same for every packet. Written before anything is attached, and `counted` whenever it
// changes.
struct config {
	__u32 mac1_key[8];   // BLAKE2s("mac1----" || own public key)
	__u8 own_mac[6];     // of the overlay interface
	__be16 port_be;      // our UDP port
	__u32 overlay;       // interface index
	__u32 lenient;       // sessions that found no room in INDICES: unknown ones must pass
	__u32 rate;          // initiations of a source that pass: so many at once, and so many in a second; not 0
	__u32 locals;        // changes with LOCALS; not 0
	__u64 opened_mark;   // random: marks datagrams that xdp_synapse has opened for tc_synapse
	__u32 cookie_secret[8];
	__u64 cookie_until;  // boot-time nanoseconds; 0: nobody was given a cookie yet
};
ASSERT_SIZE(struct config, 104);

// 64 sequence numbers of a replay window: those of block `number`, which was seen. A block with another number is
// empty, so that nothing need ever be cleared.
struct window_block {
	__u64 number;
	__u64 bits;
};
ASSERT_SIZE(struct window_block, 16);

// SESSIONS, by slot. The lock guards all of it: a (key, counter) pair is taken together, so it cannot be torn apart by
// a slot that changes hands; the loader writes only whole sessions, under the same lock (BPF_F_LOCK).
struct session {
	struct bpf_spin_lock lock;
	__u32 local_index;   // 0 and all keys 0: the slot is free
	__u32 remote_index;
	__u32 peer;
	__u64 expires_at;    // boot-time nanoseconds
	__u32 send_key[8];
	__u32 recv_key[8];
	__u64 counter;       // sequence number of the next datagram
	__u64 tx_at;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 rx_at;
	__u64 rx_data_at;
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 source_told_at;
	__u32 exhaustion_told;
	__u32 live;
	__u64 next;          // replay window: one more than the highest sequence number so far
	struct window_block blocks[WINDOW_BLOCKS];
};
ASSERT_SIZE(struct session, 2240);

struct address {
	__u8 bytes[16]; // IPv4: the first four
	__be16 port_be;
	__u8 family;    // 4, 6, or 0 for none
	__u8 proven;    // in keys of SOURCES: for initiations with a cookie; else 0
};
ASSERT_SIZE(struct address, 20);

// PEERS, by number. Replaced as a whole by the loader, only read by the programs.
struct peer {
	__u8 mac[6];             // of its omni0; zero: not proven
	__u16 mtu;               // of the outer packet
	__u32 slot;              // session to send on; NO_SLOT: the bulk lane sends
	__u32 interface;         // underlay by which its endpoint is reached; 0: none
	struct address endpoint; // family 0: unknown
	__u8 source[16];         // our own outer address
	__u32 proven;            // whether a round trip proved the endpoint
	__u8 ipv4[MAX_ADDRESSES][4];
	__u8 ipv6[MAX_ADDRESSES][16];
	__u32 ipv4_count;
	__u32 ipv6_count;
	__u64 delivered_at;      // the one field that programs write
};
ASSERT_SIZE(struct peer, 152);

struct mac {
	__u8 bytes[6];
};
ASSERT_SIZE(struct mac, 6);

// SOURCES, by address (IPv6: its /64, zero-padded), and TOTALS: token buckets of those who want a session.
struct bucket {
	__u64 at;
	__u64 tokens; // in nanoseconds of refill
};
ASSERT_SIZE(struct bucket, 16);

enum event_kind {
	EVENT_CONFIRMED = 1,
	EVENT_SOURCE = 2,
	EVENT_EXHAUSTED = 3,
};

// EVENTS, a ring buffer.
struct event {
	__u32 kind;
	__u32 peer;
	__u32 local_index;
	__u32 size;
	struct address source;
	__u32 unused;
};
ASSERT_SIZE(struct event, 40);

// COUNTERS, per CPU. Up to COUNT_DROPS they are totals, then drops by the names of docs/PROTOCOL.md, then frames left
// to the bulk lane.
#define COUNTERS_OF(X)                                                                                  \
	X(rx_packets) X(rx_bytes) X(tx_packets) X(tx_bytes) X(drop_runt) X(drop_bad_type)               \
	X(drop_bad_length) X(drop_unknown_session) X(drop_expired) X(drop_lane)                         \
	X(drop_counter_limit) X(drop_replay) X(drop_bad_tag) X(drop_bad_payload)                        \
	X(drop_payload_kind) X(drop_relayed) X(drop_no_membership) X(drop_source_guard)                 \
	X(drop_destination_guard) X(drop_router_advertisement) X(drop_redirect)                         \
	X(drop_frame_too_big) X(drop_ecn) X(drop_tap_write) X(drop_bad_mac1) X(drop_rate_limited)       \
	X(drop_unknown_handshake) X(drop_unknown_hello) X(drop_not_a_nucleus) X(drop_send_buffer)       \
	X(drop_event_overflow) X(reflex_pass_super_frame) X(reflex_pass_many)                           \
	X(reflex_pass_unresolved) X(reflex_pass_tag) X(reflex_pass_neighbour)                           \
	X(reflex_pass_no_session) X(reflex_pass_no_endpoint) X(reflex_pass_too_big)                     \
	X(reflex_pass_tcp) X(reflex_pass_udp) X(reflex_pass_other) X(reflex_pass_handshake)             \
	X(reflex_pass_bulk)                                                                           \
	X(reflex_pass_merged)

#define COUNTER_NAME(name) COUNT_##name,
enum counter { COUNTERS_OF(COUNTER_NAME) COUNT_END };
#undef COUNTER_NAME
