//! The way back, for tests and fuzz bodies only: packets in, units out. Strict, it panics at whatever no packetizer of ours
//! may do. It is written from the RFCs and not from the packetizers.

use alloc::vec::Vec;

use crate::codec::Codec;

/// One packet as the sink got it, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) marker: bool,
    pub(crate) sequence: u16,
    pub(crate) time: u32,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(header: &[u8; 12], pieces: &[&[u8]]) -> Self {
        assert_eq!(header[0], 0x80, "version 2, no padding, no extension, no CSRC");
        Self {
            marker: header[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            time: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            payload: pieces.concat(),
        }
    }
}

/// The units of some packets in order, each with the time of its packet.
pub(crate) fn depacketize(codec: Codec, packets: &[Packet]) -> Vec<(u32, Vec<u8>)> {
    let mut units = Vec::new();
    let mut fragment: Option<Vec<u8>> = None;
    for packet in packets {
        let payload = packet.payload.as_slice();
        let mut push = |unit: &[u8]| units.push((packet.time, unit.to_vec()));
        match codec {
            Codec::Pcma | Codec::Pcmu => push(payload),
            Codec::Aac => {
                let [0, 16, high, low, data @ ..] = payload else { panic!("AU-headers-length is 16 bits") };
                let header = u16::from_be_bytes([*high, *low]);
                assert_eq!(header & 7, 0, "AU-Index");
                let so_far = fragment.get_or_insert_default();
                so_far.extend_from_slice(data);
                assert!(so_far.len() <= usize::from(header >> 3), "AU-size");
                assert_eq!(so_far.len() == usize::from(header >> 3), packet.marker, "marker at the end of a unit");
                if packet.marker {
                    push(&fragment.take().unwrap_or_default());
                }
            }
            Codec::H264 | Codec::H265 => {
                let header_bytes = if codec == Codec::H264 { 1 } else { 2 };
                let (header, data) = payload.split_at(header_bytes);
                let kind = if codec == Codec::H264 { header[0] & 0x1f } else { header[0] >> 1 & 0x3f };
                match (codec, kind) {
                    (Codec::H264, 24) | (Codec::H265, 48) => {
                        assert!(fragment.is_none(), "aggregation inside a fragmented unit");
                        let mut rest = data;
                        let mut count = 0;
                        while let [high, low, behind @ ..] = rest {
                            let (unit, next) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                            push(unit);
                            rest = next;
                            count += 1;
                        }
                        assert!(rest.is_empty() && count >= 2, "an aggregation of at least two");
                    }
                    (Codec::H264, 28) | (Codec::H265, 49) => {
                        let (fu, data) = data.split_first().unwrap_or_else(|| panic!("a FU header"));
                        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                        assert!(!(start && end), "a unit in one fragment");
                        assert_eq!(start, fragment.is_none(), "S bit");
                        assert!(!data.is_empty(), "an empty fragment");
                        let unit = fragment.get_or_insert_with(|| match codec {
                            Codec::H264 => [header[0] & 0xe0 | fu & 0x1f].to_vec(),
                            _ => [header[0] & 0x81 | (fu & 0x3f) << 1, header[1]].to_vec(),
                        });
                        unit.extend_from_slice(data);
                        if end {
                            push(&fragment.take().unwrap_or_default());
                        }
                    }
                    _ => {
                        assert!(fragment.is_none(), "a single unit inside a fragmented one");
                        push(payload);
                    }
                }
            }
        }
    }
    assert!(fragment.is_none(), "the last fragment is missing");
    units
}
