// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Sealing and opening the message in the scratch buffer, with the key there, under the counter there. `first` is the
// nonce's first word: zero in WireGuard.
#pragma once

#include "maps.h"

// Where the tag of a message of `len` bytes stands. The mask is for the verifier.
static __always_inline __u8 *tag_of(struct scratch *s, __u32 len)
{
	asm volatile("%0 &= 2047" : "+r"(len));
	return s->bytes + MESSAGE + len;
}

static __always_inline void set_nonce(struct scratch *s, __u32 first)
{
	s->aead.nonce[0] = first;
	s->aead.nonce[1] = s->counter;
	s->aead.nonce[2] = s->counter >> 32;
}

static __always_inline void seal_message(struct scratch *s, __u32 len, __u32 first)
{
	__u8 *tag = tag_of(s, len);
	set_nonce(s, first);
	poly1305_key(&s->aead, &s->block);
	chacha20_xor(&s->aead, &s->message, len);
	__builtin_memset(tag, 0, TAG); // the last 16 bytes that Poly1305 takes in are padded with zeros
	poly1305_tag(&s->aead, &s->message, len);
	__builtin_memcpy(tag, s->aead.tag, TAG);
}

// Whether the tag fits; only then the message is decrypted.
static __always_inline int open_message(struct scratch *s, __u32 len, __u32 first)
{
	__u32 tag[4];
	__builtin_memcpy(tag, tag_of(s, len), TAG);
	__builtin_memset(tag_of(s, len), 0, TAG);
	set_nonce(s, first);
	poly1305_key(&s->aead, &s->block);
	poly1305_tag(&s->aead, &s->message, len);
	const __u32 *made = s->aead.tag;
	if ((made[0] ^ tag[0]) | (made[1] ^ tag[1]) | (made[2] ^ tag[2]) | (made[3] ^ tag[3]))
		return 0;
	chacha20_xor(&s->aead, &s->message, len);
	return 1;
}
