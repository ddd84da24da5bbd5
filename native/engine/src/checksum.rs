//! The Internet checksum (RFC 1071) and the sums that offloads need.

use crate::ip::Ip;
use crate::packet::{Layout, Transport};

/// Ones-complement sum of the bytes, not complemented, in a wide accumulator. An odd last byte counts as a high byte.
#[must_use]
pub fn sum(data: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0u8; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    // The sum of native words is the byte-swapped sum of network words (RFC 1071, section 2 B).
    u64::from(u16::from_be(fold(total)))
}

/// A wide sum as 16 bits.
#[must_use]
pub fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Sum of the pseudo header for a transport length of `length` bytes: what a checksum field holds when an offload is to
/// complete it.
#[must_use]
pub fn pseudo_header(frame: &[u8], layout: &Layout, length: usize) -> u16 {
    let addresses = match layout.ip {
        Ip::V4 => &frame[layout.l3 + 12..layout.l3 + 20],
        Ip::V6 => &frame[layout.l3 + 8..layout.l3 + 40],
    };
    fold(sum(addresses) + u64::from(layout.transport.number()) + length as u64)
}

/// Compute the IPv4 header checksum; nothing to do for IPv6.
pub fn finish_ip(frame: &mut [u8], layout: &Layout) {
    if layout.ip == Ip::V4 {
        let header = layout.l3..layout.l3 + usize::from(frame[layout.l3] & 0x0f) * 4;
        frame[layout.l3 + 10..layout.l3 + 12].fill(0);
        let check = !fold(sum(&frame[header]));
        frame[layout.l3 + 10..layout.l3 + 12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Complete a transport checksum that is begun: whatever the field holds is part of the sum, as in a network card.
pub fn complete_transport(frame: &mut [u8], layout: &Layout) {
    let field = layout.l4 + layout.transport.checksum_offset();
    let mut check = !fold(sum(&frame[layout.l4..layout.end]));
    if check == 0 && layout.transport == Transport::Udp {
        check = 0xffff; // zero says "no checksum" (RFC 768)
    }
    frame[field..field + 2].copy_from_slice(&check.to_be_bytes());
}

/// Compute the whole transport checksum.
pub fn finish_transport(frame: &mut [u8], layout: &Layout) {
    begin_transport(frame, layout);
    complete_transport(frame, layout);
}

/// Write the pseudo-header sum into the transport checksum field, for an offload to complete.
pub fn begin_transport(frame: &mut [u8], layout: &Layout) {
    let field = layout.l4 + layout.transport.checksum_offset();
    let pseudo = pseudo_header(frame, layout, layout.end - layout.l4);
    frame[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
}

/// Whether the checksum is begun as it should be: only then may it be begun anew, for a super-frame.
#[must_use]
pub fn transport_begun(frame: &[u8], layout: &Layout) -> bool {
    stored(frame, layout) == pseudo_header(frame, layout, layout.end - layout.l4)
}

fn stored(frame: &[u8], layout: &Layout) -> u16 {
    let field = layout.l4 + layout.transport.checksum_offset();
    u16::from_be_bytes([frame[field], frame[field + 1]])
}

/// Whether the IPv4 header checksum is the one that `finish_ip` computes; true for IPv6.
#[must_use]
pub fn ip_valid(frame: &[u8], layout: &Layout) -> bool {
    let right = || fold(sum(&frame[layout.l3..layout.l3 + usize::from(frame[layout.l3] & 0x0f) * 4])) == 0xffff;
    layout.ip == Ip::V6 || (frame[layout.l3 + 10..layout.l3 + 12] != [0xff, 0xff] && right())
}

/// Whether the transport checksum is right, and the one that `finish_transport` computes for TCP (0, not the other zero,
/// 0xffff).
#[must_use]
pub fn transport_valid(frame: &[u8], layout: &Layout) -> bool {
    if layout.transport == Transport::Tcp && stored(frame, layout) == 0xffff {
        return false;
    }
    let pseudo = pseudo_header(frame, layout, layout.end - layout.l4);
    fold(u64::from(pseudo) + sum(&frame[layout.l4..layout.end])) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{parse, samples};
    use proptest::prelude::*;

    fn slow(data: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in data.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn a_finished_frame_is_valid_and_a_flipped_bit_is_not() {
        for v6 in [false, true] {
            let mut frame = samples::tcp(&samples::Tcp { v6, ..Default::default() });
            let layout = parse(&frame).expect("parses");
            assert!(transport_valid(&frame, &layout));
            frame[layout.payload] ^= 1;
            assert!(!transport_valid(&frame, &layout));
        }
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_slow_one(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (fast, slow) = (fold(sum(&data)), slow(&data));
            // 0 and 0xffff are the same number in ones-complement arithmetic.
            prop_assert_eq!(fast % 0xffff, slow % 0xffff);
        }
    }
}
