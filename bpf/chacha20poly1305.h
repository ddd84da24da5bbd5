// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// ChaCha20-Poly1305 after RFC 8439, without additional data, in place, for the eBPF verifier.
//
// Global functions: the verifier looks at each of them once, not once a call, so that a packet of 32 blocks costs it no
// more than one of a single block. They take whole structures, whose size it knows. ChaCha20's sixteen words do not fit
// eBPF's ten registers: what spills goes to the stack, of which a call chain has 512 bytes.
#pragma once

#include "shared.h"

#define CHACHA_BLOCK 64
#define POLY_BLOCK 16

// What sealing or opening one message needs. `words` is the message, zero-padded to whole ChaCha20 blocks.
struct aead {
	__u32 key[8];
	__u32 nonce[3];
	__u32 counter;
	__u32 r[4]; // Poly1305's key: r clamped, and what is added at the end
	__u32 pad[4];
	__u32 tag[4];
};

struct chacha_block {
	__u64 words[8];
};

struct message {
	struct chacha_block blocks[MAX_BLOCKS];
};

#define ROTL(x, n) ((x) << (n) | (x) >> (32 - (n)))

// RFC 8439, section 2.1.
#define QUARTER(a, b, c, d)                       \
	do {                                      \
		a += b; d ^= a; d = ROTL(d, 16);  \
		c += d; b ^= c; b = ROTL(b, 12);  \
		a += b; d ^= a; d = ROTL(d, 8);   \
		c += d; b ^= c; b = ROTL(b, 7);   \
	} while (0)

#define PAIR(low, high) ((__u64)(low) | (__u64)(high) << 32)

// Exclusive-or of one block with the key stream at `counter`, which it advances (sections 2.3 and 2.4).
__noinline int chacha20_block(struct aead *a, struct chacha_block *block)
{
	if (!a || !block)
		return 0;
	const __u32 c0 = 0x61707865, c1 = 0x3320646e, c2 = 0x79622d32, c3 = 0x6b206574; // "expand 32-byte k"
	__u32 x0 = c0, x1 = c1, x2 = c2, x3 = c3;
	__u32 x4 = a->key[0], x5 = a->key[1], x6 = a->key[2], x7 = a->key[3];
	__u32 x8 = a->key[4], x9 = a->key[5], x10 = a->key[6], x11 = a->key[7];
	__u32 x12 = a->counter, x13 = a->nonce[0], x14 = a->nonce[1], x15 = a->nonce[2];

#pragma clang loop unroll(disable)
	for (int i = 0; i < 10; i++) {
		QUARTER(x0, x4, x8, x12);
		QUARTER(x1, x5, x9, x13);
		QUARTER(x2, x6, x10, x14);
		QUARTER(x3, x7, x11, x15);
		QUARTER(x0, x5, x10, x15);
		QUARTER(x1, x6, x11, x12);
		QUARTER(x2, x7, x8, x13);
		QUARTER(x3, x4, x9, x14);
	}
	asm volatile("" : : : "memory"); // read the key again below, instead of keeping it on the stack
	block->words[0] ^= PAIR(x0 + c0, x1 + c1);
	block->words[1] ^= PAIR(x2 + c2, x3 + c3);
	block->words[2] ^= PAIR(x4 + a->key[0], x5 + a->key[1]);
	block->words[3] ^= PAIR(x6 + a->key[2], x7 + a->key[3]);
	block->words[4] ^= PAIR(x8 + a->key[4], x9 + a->key[5]);
	block->words[5] ^= PAIR(x10 + a->key[6], x11 + a->key[7]);
	block->words[6] ^= PAIR(x12 + a->counter, x13 + a->nonce[0]);
	block->words[7] ^= PAIR(x14 + a->nonce[1], x15 + a->nonce[2]);
	a->counter++;
	return 0;
}

// The tag of `len` bytes of ciphertext, whose last 16-byte block is zero-padded (sections 2.5 and 2.8), into `a->tag`.
//
// h = (h + block) * r mod 2^130 - 5, in 32-bit limbs. Clamping leaves r's limbs below 2^28, so four products fit 64
// bits; and it clears the low two bits of r1..r3, so that r * 2^128 = (r + r / 4) mod p holds limb by limb.
__noinline int poly1305_tag(struct aead *a, struct message *m, __u32 len)
{
	if (!a || !m)
		return 0;
	const __u64 r0 = a->r[0], r1 = a->r[1], r2 = a->r[2], r3 = a->r[3];
	const __u64 s1 = r1 + (r1 >> 2), s2 = r2 + (r2 >> 2), s3 = r3 + (r3 >> 2);
	const __u32 count = (len + POLY_BLOCK - 1) / POLY_BLOCK;
	__u64 h0 = 0, h1 = 0, h2 = 0, h3 = 0, h4 = 0, carry;
	__u32 i;

	for (i = 0; i < MAX_BLOCKS * 4 + 1; i++) {
		__u64 low, high;
		if (i < count && i < MAX_BLOCKS * 4) {
			const __u64 *words = (const __u64 *)m;
			low = words[2 * i];
			high = words[2 * i + 1];
		} else { // the lengths of the additional data and of the ciphertext
			low = 0;
			high = len;
		}
		h0 += (__u32)low;
		h1 += (h0 >> 32) + (low >> 32);
		h2 += (h1 >> 32) + (__u32)high;
		h3 += (h2 >> 32) + (high >> 32);
		h4 += (h3 >> 32) + 1;
		h0 = (__u32)h0, h1 = (__u32)h1, h2 = (__u32)h2, h3 = (__u32)h3;

		__u64 d0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
		__u64 d1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + h4 * s1;
		__u64 d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + h4 * s2;
		__u64 d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * s3;
		h4 *= r0;

		h0 = (__u32)d0;
		d1 += d0 >> 32;
		h1 = (__u32)d1;
		d2 += d1 >> 32;
		h2 = (__u32)d2;
		d3 += d2 >> 32;
		h3 = (__u32)d3;
		h4 += d3 >> 32;
		// What lies above 2^130 comes back five times as large, at the bottom: h4 / 4 * 4 + h4 / 4.
		h0 += (h4 >> 2) + (h4 & ~3ULL);
		h4 &= 3;
		if (i >= count)
			break;
	}
	// Whole carries, then h mod p: h + 5 - 2^130 if that is not negative.
	h1 += h0 >> 32, h2 += h1 >> 32, h3 += h2 >> 32, h4 += h3 >> 32;
	h0 = (__u32)h0, h1 = (__u32)h1, h2 = (__u32)h2, h3 = (__u32)h3;
	__u64 g0 = h0 + 5, g1 = h1 + (g0 >> 32), g2 = h2 + (g1 >> 32), g3 = h3 + (g2 >> 32), g4 = h4 + (g3 >> 32);
	const __u64 keep = (g4 >> 2) - 1; // all ones if h < p: the comparison is no branch
	h0 = (h0 & keep) | ((__u32)g0 & ~keep);
	h1 = (h1 & keep) | ((__u32)g1 & ~keep);
	h2 = (h2 & keep) | ((__u32)g2 & ~keep);
	h3 = (h3 & keep) | ((__u32)g3 & ~keep);

	carry = h0 + a->pad[0];
	a->tag[0] = carry;
	carry = h1 + a->pad[1] + (carry >> 32);
	a->tag[1] = carry;
	carry = h2 + a->pad[2] + (carry >> 32);
	a->tag[2] = carry;
	a->tag[3] = h3 + a->pad[3] + (carry >> 32);
	return 0;
}

// The one-time key of Poly1305: the first half of key stream block 0 (section 2.6). Leaves the counter at 1.
static __always_inline void poly1305_key(struct aead *a, struct chacha_block *scratch)
{
	__builtin_memset(scratch, 0, sizeof(*scratch));
	a->counter = 0;
	chacha20_block(a, scratch);
	a->r[0] = scratch->words[0] & 0x0fffffff;
	a->r[1] = scratch->words[0] >> 32 & 0x0ffffffc;
	a->r[2] = scratch->words[1] & 0x0ffffffc;
	a->r[3] = scratch->words[1] >> 32 & 0x0ffffffc;
	a->pad[0] = scratch->words[2];
	a->pad[1] = scratch->words[2] >> 32;
	a->pad[2] = scratch->words[3];
	a->pad[3] = scratch->words[3] >> 32;
}

static __always_inline void chacha20_xor(struct aead *a, struct message *m, __u32 len)
{
	for (__u32 i = 0; i < MAX_BLOCKS && i * CHACHA_BLOCK < len; i++)
		chacha20_block(a, &m->blocks[i]);
}
