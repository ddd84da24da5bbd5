// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// BLAKE2s (RFC 7693), keyed with 32 bytes, output of 16: WireGuard's MAC. Messages of up to three blocks.
#pragma once

#include "shared.h"

#define BLAKE2S_BLOCK 64

struct blake2s {
	__u32 h[8];
	__u32 m[16];
	__u32 counter; // bytes so far, this block's included
	__u32 last;    // all ones for the last block
};

#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))

// RFC 7693, section 3.1.
#define MIX(a, b, c, d, x, y)                          \
	do {                                           \
		a += b + (x); d ^= a; d = ROTR(d, 16); \
		c += d; b ^= c; b = ROTR(b, 12);       \
		a += b + (y); d ^= a; d = ROTR(d, 8);  \
		c += d; b ^= c; b = ROTR(b, 7);        \
	} while (0)

// One round with its line of section 2.7's message schedule.
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
	do {                                                                        \
		MIX(v0, v4, v8, v12, m[s0], m[s1]);                                 \
		MIX(v1, v5, v9, v13, m[s2], m[s3]);                                 \
		MIX(v2, v6, v10, v14, m[s4], m[s5]);                                \
		MIX(v3, v7, v11, v15, m[s6], m[s7]);                                \
		MIX(v0, v5, v10, v15, m[s8], m[s9]);                                \
		MIX(v1, v6, v11, v12, m[s10], m[s11]);                              \
		MIX(v2, v7, v8, v13, m[s12], m[s13]);                               \
		MIX(v3, v4, v9, v14, m[s14], m[s15]);                               \
	} while (0)

#define IV0 0x6a09e667
#define IV1 0xbb67ae85
#define IV2 0x3c6ef372
#define IV3 0xa54ff53a
#define IV4 0x510e527f
#define IV5 0x9b05688c
#define IV6 0x1f83d9ab
#define IV7 0x5be0cd19

// Section 3.2.
__noinline int blake2s_compress(struct blake2s *b)
{
	if (!b)
		return 0;
	const volatile __u32 *m = b->m; // or clang would keep all of it on the stack
	__u32 v0 = b->h[0], v1 = b->h[1], v2 = b->h[2], v3 = b->h[3];
	__u32 v4 = b->h[4], v5 = b->h[5], v6 = b->h[6], v7 = b->h[7];
	__u32 v8 = IV0, v9 = IV1, v10 = IV2, v11 = IV3;
	__u32 v12 = IV4 ^ b->counter, v13 = IV5, v14 = IV6 ^ b->last, v15 = IV7;

	ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
	ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
	ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
	ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
	ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
	ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
	ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
	ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
	ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);

	b->h[0] ^= v0 ^ v8;
	b->h[1] ^= v1 ^ v9;
	b->h[2] ^= v2 ^ v10;
	b->h[3] ^= v3 ^ v11;
	b->h[4] ^= v4 ^ v12;
	b->h[5] ^= v5 ^ v13;
	b->h[6] ^= v6 ^ v14;
	b->h[7] ^= v7 ^ v15;
	return 0;
}

// The MAC of `data`'s first `len` bytes into `b->h[0..4]`. `len` and the words of the key are constant; behind `data` come
// zeros up to a whole word.
static __always_inline void blake2s_mac(struct blake2s *b, const __u32 *key, const int key_words, const __u32 *data,
					const __u32 len)
{
	// Parameter block: 16 bytes of output, bytes of key, fan-out and depth 1 (section 2.8). The key is the first block.
	b->h[0] = IV0 ^ (0x01010010 | key_words * 4 << 8);
	b->h[1] = IV1, b->h[2] = IV2, b->h[3] = IV3, b->h[4] = IV4, b->h[5] = IV5, b->h[6] = IV6, b->h[7] = IV7;
	for (int i = 0; i < 16; i++)
		b->m[i] = i < key_words ? key[i] : 0;
	b->counter = BLAKE2S_BLOCK;
	b->last = 0;
	blake2s_compress(b);
	for (__u32 at = 0; at < len; at += BLAKE2S_BLOCK) {
		const __u32 rest = len - at < BLAKE2S_BLOCK ? len - at : BLAKE2S_BLOCK;
		for (__u32 i = 0; i < 16; i++)
			b->m[i] = i < (rest + 3) / 4 ? data[at / 4 + i] : 0;
		b->counter += rest;
		b->last = at + rest == len ? 0xffffffff : 0;
		blake2s_compress(b);
	}
}
