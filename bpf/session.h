// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Sessions: counters and the replay window, under the session's lock. The invariant: **a (key, counter) pair is never
// used twice**. A key is copied and its counter taken in one locked step, so a slot that changes hands in between
// cannot mix two sessions.
#pragma once

#include "maps.h"

#define LANE 8ULL
#define LANE_SHIFT 60
#define SEQUENCE_MASK ((1ULL << LANE_SHIFT) - 1)
#define REJECT_AFTER ((1ULL << LANE_SHIFT) - (1 << 13) - 1)
#define REKEY_AFTER (1ULL << 59)
#define WINDOW ((WINDOW_BLOCKS - 1) * 64)
#define SECOND 1000000000ULL

// A sequence number's place in the ring of blocks. The comparison is for the verifier, which does not follow a
// remainder.
static __always_inline __u32 place_of(__u64 sequence)
{
	__u32 place = (sequence >> 6) % WINDOW_BLOCKS;
	asm volatile("" : "+r"(place));
	return place < WINDOW_BLOCKS ? place : 0;
}

static __always_inline int fresh(const struct session *it, __u64 sequence)
{
	if (sequence >= it->next)
		return 1;
	const struct window_block *block = &it->blocks[place_of(sequence)];
	return it->next - sequence <= WINDOW && !(block->number == sequence >> 6 && block->bits >> (sequence & 63) & 1);
}

// Record a sequence number for which `fresh` holds: whether it is the highest so far.
static __always_inline int accept(struct session *it, __u64 sequence)
{
	const int highest = sequence >= it->next;
	struct window_block *block = &it->blocks[place_of(sequence)];
	if (block->number != sequence >> 6) {
		block->number = sequence >> 6;
		block->bits = 0;
	}
	block->bits |= 1ULL << (sequence & 63);
	if (highest)
		it->next = sequence + 1;
	return highest;
}

static __always_inline struct session *session_at(__u32 slot)
{
	return bpf_map_lookup_elem(&SESSIONS, &slot);
}

// Prepare to open: the receive key into `a`. 0 or the counter of the drop.
static __always_inline int before_open(struct session *it, struct aead *a, __u32 index, __u64 sequence, __u64 now)
{
	int verdict = 0;
	bpf_spin_lock(&it->lock);
	if (!it->live || it->local_index != index)
		verdict = COUNT_drop_lane;
	else if (it->expires_at < now)
		verdict = COUNT_drop_expired;
	else if (sequence >= REJECT_AFTER)
		verdict = COUNT_drop_counter_limit;
	else if (!fresh(it, sequence))
		verdict = COUNT_drop_replay;
	else
		__builtin_memcpy(a->key, it->recv_key, 32);
	bpf_spin_unlock(&it->lock);
	return verdict;
}

// What an authenticated datagram told beside its content.
struct arrival {
	__u32 size; // UDP payload bytes
	__u32 data; // whether it is more than a keepalive
	__u32 confirms;
	__u32 highest;
};

// Record an authenticated datagram. 0 or the counter of the drop: another CPU was faster with a copy, or the slot
// changed hands.
static __always_inline int after_open(struct session *it, struct arrival *what, __u32 index, __u64 sequence, __u64 now)
{
	int verdict = 0;
	__u32 confirms = 0, highest = 0;
	const __u32 size = what->size, data = what->data;
	bpf_spin_lock(&it->lock);
	if (!it->live || it->local_index != index) {
		verdict = COUNT_drop_lane;
	} else if (!fresh(it, sequence)) {
		verdict = COUNT_drop_replay;
	} else {
		highest = accept(it, sequence);
		confirms = !it->rx_packets;
		it->rx_at = now;
		it->rx_packets++;
		it->rx_bytes += size;
		if (data)
			it->rx_data_at = now;
	}
	bpf_spin_unlock(&it->lock);
	what->confirms = confirms;
	what->highest = highest;
	return verdict;
}

// Whether the core may be told of a new source now: once a second.
static __always_inline int may_tell_source(struct session *it, __u64 now)
{
	int may = 0;
	bpf_spin_lock(&it->lock);
	if (now - it->source_told_at >= SECOND) {
		it->source_told_at = now;
		may = 1;
	}
	bpf_spin_unlock(&it->lock);
	return may;
}

// What sealing needs, taken in one step.
struct taken {
	__u32 remote_index;
	__u32 local_index;
	__u32 exhausted; // the core must be told that a rekey is due
	__u32 size;      // of the datagram: in
	__u64 counter;
};

// Take a counter and copy the key that belongs to it. Negative: this session does not send.
static __always_inline int take_counter(struct session *it, struct aead *a, struct taken *t, __u32 peer, __u64 now)
{
	int verdict = -1;
	__u64 sequence = 0;
	__u32 exhausted = 0, remote_index = 0, local_index = 0;
	const __u32 size = t->size;
	bpf_spin_lock(&it->lock);
	if (it->live && it->peer == peer && it->expires_at >= now && it->counter < REJECT_AFTER) {
		sequence = it->counter++;
		remote_index = it->remote_index;
		local_index = it->local_index;
		__builtin_memcpy(a->key, it->send_key, 32);
		it->tx_at = now;
		it->tx_packets++;
		it->tx_bytes += size;
		if (sequence >= REKEY_AFTER && !it->exhaustion_told) {
			it->exhaustion_told = 1;
			exhausted = 1;
		}
		verdict = 0;
	}
	bpf_spin_unlock(&it->lock);
	t->remote_index = remote_index;
	t->local_index = local_index;
	t->exhausted = exhausted;
	t->counter = LANE << LANE_SHIFT | sequence;
	return verdict;
}

static __always_inline void tell(__u32 kind, __u32 peer, __u32 index, const struct address *source, __u32 size)
{
	struct event event = {.kind = kind, .peer = peer, .local_index = index, .size = size};
	if (source)
		event.source = *source;
	if (bpf_ringbuf_output(&EVENTS, &event, sizeof(event), 0) < 0)
		count(COUNT_drop_event_overflow);
}
