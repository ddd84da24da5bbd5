// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// DSCP and ECN between the frame in the scratch buffer and the datagram around it. The same rules as
// `native/engine/src/traffic_class.rs` (RFC 2983, uniform model; RFC 6040, normal mode).
#pragma once

#include "frame.h"

#define ECN 3
#define CE 3

// Where the frame's IP header starts that the ethertype names; 0: nowhere.
static __always_inline __u32 ip_header(struct scratch *s, __u32 len)
{
	struct parts p = {};
	if (network_header(s, len, &p) < 0 || p.start + 2 > len)
		return 0;
	const __u8 version = p.ethertype == ETH_IPV4 ? 4 : p.ethertype == ETH_IPV6 ? 6 : 0;
	return version && *at(s, p.start) >> 4 == version ? p.start : 0;
}

static __always_inline __u8 traffic_class_at(struct scratch *s, __u32 start)
{
	const __u8 *ip = at(s, start);
	return ip[0] >> 4 == 4 ? ip[1] : (__u8)(ip[0] << 4 | ip[1] >> 4);
}

// The traffic class of the frame, 0 if it holds no IP.
static __always_inline __u8 traffic_class(struct scratch *s, __u32 len)
{
	const __u32 start = ip_header(s, len);
	return start ? traffic_class_at(s, start) : 0;
}

// Take over what the ECN field of the outer header says. 0 or the counter of the drop. A global function: the verifier
// looks once.
__noinline int mark_frame(struct scratch *s, __u32 len)
{
	if (!s || len > MAX_PAYLOAD)
		return COUNT_drop_bad_payload;
	const __u8 outer = s->outer_class & ECN;
	const __u32 start = outer & 1 ? ip_header(s, len) : 0;
	if (!start)
		return 0;
	const __u8 old = traffic_class_at(s, start), class = (old & ~ECN) | outer;
	if (!(old & ECN))
		return outer == CE ? COUNT_drop_ecn : 0;
	if ((old & ECN) == CE)
		return 0;
	__u8 *ip = at(s, start);
	if (ip[0] >> 4 == 6) {
		ip[0] = (ip[0] & 0xf0) | class >> 4;
		ip[1] = class << 4 | (ip[1] & 0x0f);
		return 0;
	}
	ip[1] = class;
	if (start + 12 > len)
		return 0;
	// RFC 1624, equation 3: a wrong checksum stays as wrong as it was.
	__u32 sum = (__u16)~be16(s, start + 10) + (__u16)~(__u16)old + class;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = sum >> 8;
	ip[11] = sum;
	return 0;
}
