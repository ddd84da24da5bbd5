//! Address resolution in frames that the local stack sends. The same classes as `core/resolution.py`.

use crate::guard::{arp, neighbour};
use crate::ip::{self};

const ARP_REQUEST: [u8; 2] = [0, 1];
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// What a frame has to do with address resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Ordinary traffic, or an answer to one neighbour.
    None,
    /// An ARP request or a neighbour solicitation: for the core.
    Question,
    /// Gratuitous ARP, or an answer to everybody: goes nowhere.
    Announcement,
}

/// What a frame of at least an Ethernet header is. What cannot be parsed is ordinary traffic.
#[must_use]
pub fn classify(frame: &[u8]) -> Resolution {
    let to_many = frame[0] & 1 == 1;
    let (question, announcement) = match ip::network_header(frame) {
        Ok((ip::ARP, _)) => {
            let Ok(body) = arp(frame) else { return Resolution::None };
            let gratuitous = body[14..18] == body[24..28];
            (body[6..8] == ARP_REQUEST && !gratuitous, gratuitous || to_many)
        }
        // TCP and UDP right behind the header are spared the closer look.
        Ok((ip::IPV6, start)) if !matches!(frame.get(start + 6), Some(6 | 17)) => {
            let Ok(message) = neighbour(frame) else { return Resolution::None };
            (message.kind == NEIGHBOUR_SOLICITATION, to_many)
        }
        _ => return Resolution::None,
    };
    match (question, announcement) {
        (true, _) => Resolution::Question,
        (false, true) => Resolution::Announcement,
        (false, false) => Resolution::None,
    }
}
