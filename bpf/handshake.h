// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Which handshake messages reach the core (docs/PROTOCOL.md, "Silence"). They are in the scratch buffer, whole.
#pragma once

#include "blake2s.h"
#include "session.h"

#define INITIATION 1
#define INITIATION_SIZE 148
#define RESPONSE_SIZE 92
#define MAC_SIZE 16

enum verdict { PASS, DROP, OPEN };

static __always_inline int drop(__u32 reason)
{
	count(reason);
	return DROP;
}

static __always_inline int pass(__u32 why)
{
	count(why);
	return PASS;
}

// Initiations in a second, of all strangers together and of all known endpoints together, that the core gets to see
// without a cookie: a few percent of a processor, and far from what its queue of events holds.
#define TOTAL_RATE 1000
enum total { STRANGERS, KNOWN_ENDPOINTS };

// Take a share of a bucket of one second.
static __always_inline int take(struct bucket *bucket, __u64 share)
{
	const __u64 now = bpf_ktime_get_boot_ns(), at = bucket->at;
	__u64 tokens = bucket->tokens + (now > at ? now - at : 0); // another CPU may have been here meanwhile
	if (tokens > SECOND)
		tokens = SECOND;
	bucket->at = now;
	const int allowed = tokens >= share;
	bucket->tokens = allowed ? tokens - share : tokens;
	return allowed;
}

static __always_inline int within_total(__u32 which)
{
	struct bucket *bucket = bpf_map_lookup_elem(&TOTALS, &which);
	return bucket && take(bucket, SECOND / TOTAL_RATE);
}

static __always_inline int within_rate(const struct config *own, const struct address *source, int proven)
{
	struct address key = *source;
	const __u64 share = SECOND / own->rate;
	key.port_be = 0;
	key.proven = proven;
	if (key.family == 6)
		__builtin_memset(key.bytes + 8, 0, 8);
	struct bucket *bucket = bpf_map_lookup_elem(&SOURCES, &key);
	if (bucket)
		return take(bucket, share);
	struct bucket fresh_one = {.at = bpf_ktime_get_boot_ns(), .tokens = SECOND - share};
	bpf_map_update_elem(&SOURCES, &key, &fresh_one, BPF_ANY);
	return 1;
}

static __always_inline int awaited(const __u64 *until)
{
	return until && *until >= bpf_ktime_get_boot_ns();
}

static __always_inline int same_tag(const __u32 *one, const __u32 *other)
{
	return !((one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]));
}

// Whether mac1 of the message in the scratch buffer (its size constant) is made with our key.
static __always_inline int mac1_valid(struct scratch *s, const struct config *own, const __u32 size)
{
	const __u32 *message = (void *)(s->bytes + ROOM_BEFORE);
	const __u32 body = size - 2 * MAC_SIZE;
	blake2s_mac(&s->hash, own->mac1_key, 8, message, body);
	return same_tag(s->hash.h, message + body / 4);
}

// Whether mac2 of the initiation in the scratch buffer is made with the cookie that the core gives to its source.
static __always_inline int mac2_valid(struct scratch *s, const struct config *own)
{
	const __u32 *message = (void *)(s->bytes + ROOM_BEFORE);
	const __u32 signed_part = INITIATION_SIZE - MAC_SIZE;
	const __u32 *mac2 = message + signed_part / 4;
	if (!(mac2[0] | mac2[1] | mac2[2] | mac2[3]) || own->cookie_until < bpf_ktime_get_boot_ns())
		return 0;
	__u8 *of = (void *)s->cookie_of;
	__builtin_memset(s->cookie_of, 0, sizeof(s->cookie_of));
	of[0] = s->source.family;
	__builtin_memcpy(of + 1, &s->source.port_be, 2);
	if (s->source.family == 4) {
		__builtin_memcpy(of + 3, s->source.bytes, 4);
		blake2s_mac(&s->hash, own->cookie_secret, 8, s->cookie_of, 7);
	} else {
		__builtin_memcpy(of + 3, s->source.bytes, 16);
		blake2s_mac(&s->hash, own->cookie_secret, 8, s->cookie_of, 19);
	}
	__builtin_memcpy(s->cookie, s->hash.h, sizeof(s->cookie));
	blake2s_mac(&s->hash, s->cookie, 4, message, signed_part);
	return same_tag(s->hash.h, mac2);
}

// Whether the core gets to see an initiation. Who shows a cookie receives where it says it is, and shares its budget with
// nobody who does not: without one a spoofer could use up that of a known endpoint, too.
static __always_inline int may_initiate(struct scratch *s, const struct config *own)
{
	if (mac2_valid(s, own))
		return within_rate(own, &s->source, 1);
	if (bpf_map_lookup_elem(&KNOWN, &s->source))
		return within_total(KNOWN_ENDPOINTS);
	return within_rate(own, &s->source, 0) && within_total(STRANGERS);
}

__noinline int judge_handshake(struct scratch *s, __u32 type)
{
	const struct config *own = config();
	if (!s || !own)
		return DROP;
	if (type == INITIATION) {
		if (!mac1_valid(s, own, INITIATION_SIZE))
			return drop(COUNT_drop_bad_mac1);
		return may_initiate(s, own) ? pass(COUNT_reflex_pass_handshake) : drop(COUNT_drop_rate_limited);
	}
	if (!mac1_valid(s, own, RESPONSE_SIZE))
		return drop(COUNT_drop_bad_mac1);
	const __u32 *message = (void *)(s->bytes + ROOM_BEFORE);
	const __u32 index = message[2]; // the receiver's
	const int known = awaited(bpf_map_lookup_elem(&HANDSHAKES, &index));
	return known ? pass(COUNT_reflex_pass_handshake) : drop(COUNT_drop_unknown_handshake);
}
