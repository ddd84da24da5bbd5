//! DSCP and ECN between a frame's IP header and the datagram around it (RFC 2983, uniform model; RFC 6040, normal mode). The
//! same rules as `core/traffic_class.py`.

use crate::ip;

const CE: u8 = 0b11;
const ECN: u8 = 0b11;

/// No ECN-capable transport inside, congestion outside: the packet is to be dropped (RFC 6040, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCapable;

/// The traffic class (IPv4: TOS) of a frame's IP packet, 0 where there is none.
#[must_use]
pub fn of_frame(frame: &[u8]) -> u8 {
    match ip_header(frame) {
        Some(start) => of_packet(&frame[start..]),
        None => 0,
    }
}

/// Take over what the datagram's ECN field `outer` says about the way of the frame in it.
pub fn mark_frame(frame: &mut [u8], outer: u8) -> Result<(), NotCapable> {
    if outer & 1 == 0 {
        return Ok(()); // Not-ECT and ECT(0) say nothing: most datagrams
    }
    match ip_header(frame) {
        Some(start) => mark_packet(&mut frame[start..], outer),
        None => Ok(()),
    }
}

/// The same for an IP packet of two bytes at least.
pub fn mark_packet(packet: &mut [u8], outer: u8) -> Result<(), NotCapable> {
    let inner = of_packet(packet) & ECN;
    match (inner, outer & ECN) {
        (_, 0b00 | 0b10) | (CE, _) => Ok(()),
        (0, CE) => Err(NotCapable),
        (0, _) => Ok(()),
        (_, mark) => {
            set(packet, of_packet(packet) & !ECN | mark);
            Ok(())
        }
    }
}

/// Where the IP header starts that the ethertype names, if it is there.
fn ip_header(frame: &[u8]) -> Option<usize> {
    let (ethertype, start) = ip::network_header(frame).ok()?;
    let version = match ethertype {
        ip::IPV4 => 4,
        ip::IPV6 => 6,
        _ => return None,
    };
    let first = frame.get(start..start + 2)?[0];
    (first >> 4 == version).then_some(start)
}

fn of_packet(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

fn set(packet: &mut [u8], class: u8) {
    if packet[0] >> 4 == 6 {
        packet[0] = packet[0] & 0xf0 | class >> 4;
        packet[1] = class << 4 | packet[1] & 0x0f;
        return;
    }
    let old = packet[1];
    packet[1] = class;
    if let Some(field) = packet.get_mut(10..12) {
        // RFC 1624, equation 3: a wrong checksum stays as wrong as it was.
        let stored = u32::from(!u16::from_be_bytes([field[0], field[1]]));
        let sum = stored + u32::from(!u16::from(old)) + u32::from(class);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use crate::packet::{parse, samples};
    use proptest::prelude::*;

    const NOT_ECT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;

    fn frame(v6: bool, tags: usize, class: u8) -> Vec<u8> {
        let mut frame = samples::tcp(&samples::Tcp { v6, tags, ..Default::default() });
        let layout = parse(&frame).expect("parses");
        set(&mut frame[layout.l3..], class);
        checksum::finish_ip(&mut frame, &layout);
        frame
    }

    /// RFC 6040, figure 4. None: dropped.
    const TABLE: [[Option<u8>; 4]; 4] = [
        // outer: Not-ECT, ECT(1), ECT(0), CE
        [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
        [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)],
        [Some(ECT0), Some(ECT1), Some(ECT0), Some(CE)],
        [Some(CE), Some(CE), Some(CE), Some(CE)],
    ];

    #[test]
    fn every_pair_of_marks_gives_what_the_rfc_says() {
        for (v6, tags, inner, outer) in [(false, 0), (true, 0), (false, 2), (true, 1)]
            .into_iter()
            .flat_map(|(v6, tags)| (0..16u8).map(move |it| (v6, tags, it >> 2, it & 3)))
        {
            let mut it = frame(v6, tags, 0xb8 | inner);
            assert_eq!(of_frame(&it), 0xb8 | inner);
            let before = it.clone();
            match TABLE[usize::from(inner)][usize::from(outer)] {
                None => {
                    assert_eq!(mark_frame(&mut it, outer), Err(NotCapable));
                    assert_eq!(it, before);
                }
                Some(expected) => {
                    assert_eq!(mark_frame(&mut it, outer), Ok(()));
                    assert_eq!(it, frame(v6, tags, 0xb8 | expected), "checksum included: {inner} in {outer}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_ip_packet_has_no_class_and_stays() {
        for frame in [
            vec![0; 14],
            vec![],
            [&[0; 12][..], &[0x88, 0xb5, 0x45, 0xff]].concat(),
            [&[0; 12][..], &[8, 0, 0x45]].concat(),
        ] {
            let mut it = frame.clone();
            assert_eq!((of_frame(&it), mark_frame(&mut it, CE)), (0, Ok(())));
            assert_eq!(it, frame);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), outer in 0u8..4) {
            let _ = of_frame(&bytes);
            let _ = mark_frame(&mut bytes, outer);
        }
    }
}
