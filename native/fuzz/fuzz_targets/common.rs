//! What the targets share: inputs cut into records.

use omninervous_engine::table::Link;

#[path = "../../engine/tests/common/mod.rs"]
pub mod edges;

/// The first byte chooses what the peer is.
pub fn link(input: &[u8]) -> (Link, &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, input));
    (if first & 1 == 0 { Link::Ethernet } else { Link::Ip }, rest)
}

/// Records of an input: two bytes of length (little-endian), then so many bytes; the last one may be shorter.
pub fn records(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = input.split_first_chunk::<2>()?;
        let (record, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        input = rest;
        Some(record)
    })
}
