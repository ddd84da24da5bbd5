// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The maps. All are bounded; the loader sets the sizes of SESSIONS, INDICES, PEERS and FDB.
#pragma once

#include <bpf/bpf_helpers.h>

#include "blake2s.h"
#include "chacha20poly1305.h"

#define HEADER 16 // of a transport message: type, receiver index, counter
#define TAG 16
#define ROOM_BEFORE 64 // for the outer headers
#define MESSAGE (ROOM_BEFORE + HEADER)
#define FRAME (MESSAGE + 1) // behind the kind
#define MAX_PAYLOAD (MAX_BLOCKS * CHACHA_BLOCK - 128)
#define SLACK 640 // what the verifier believes that a bounded offset plus a bounded size may reach

// Where one packet is worked on: neither the stack nor the packet itself suits the verifier. One for each CPU is
// enough, since the programs run with softirqs off.
struct scratch {
	struct aead aead;
	struct chacha_block block;
	struct blake2s hash;
	__u32 cookie[4];
	__u32 cookie_of[5]; // what it is a MAC of: the sender's endpoint (docs/PROTOCOL.md), zero-padded
	struct address source;
	__u32 outer_class; // traffic class of the outer header
	// The addresses of our own that came last, and `config.locals` then: most packets spare a look into LOCALS.
	__be32 near4;
	__u32 near4_at;
	__u8 near6[16];
	__u32 near6_at;
	union {
		__u8 bytes[MESSAGE + MAX_BLOCKS * CHACHA_BLOCK + SLACK];
		struct {
			__u8 outer[ROOM_BEFORE];
			__u8 type;
			__u8 reserved[3];
			__u32 index;
			__u64 counter;
			struct message message;
		};
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} SCRATCH SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} CONFIG SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct session);
} SESSIONS SEC(".maps");

// Slot in SESSIONS, or NO_SLOT, by receiver index: every session of every peer.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} INDICES SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct peer);
} PEERS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct mac);
	__type(value, __u32);
} FDB SEC(".maps");

// Endpoints of peers: the rate of a single source is not for them.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, __u32);
} KNOWN SEC(".maps");

// Our own addresses; port 0. Only what is for them is ours.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, __u32);
} LOCALS SEC(".maps");

// Until when answers (types 2 and 3) to an index, or type 6 from an endpoint, are awaited.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} HANDSHAKES SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, __u64);
} HELLOS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct address);
	__type(value, struct bucket);
} SOURCES SEC(".maps");

// All initiations without a cookie together, by `enum total`.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct bucket);
} TOTALS SEC(".maps");

// When a TCP flow last sent through the bulk lane, by a hash: two flows that share a slot only send more through it.
#define FLOW_SLOTS 4096
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOW_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} FLOWS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNT_END);
	__type(key, __u32);
	__type(value, __u64);
} COUNTERS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} EVENTS SEC(".maps");

static __always_inline struct scratch *scratch(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&SCRATCH, &zero);
}

static __always_inline struct config *config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&CONFIG, &zero);
}

static __always_inline void count_more(__u32 which, __u64 more)
{
	__u64 *counter = bpf_map_lookup_elem(&COUNTERS, &which);
	if (counter)
		*counter += more;
}

static __always_inline void count(__u32 which)
{
	count_more(which, 1);
}
