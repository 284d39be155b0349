//! RTP packets in, units out: RFC 3550 headers, RFC 6184 (H.264), RFC 7798 (H.265), RFC 3640 AAC-hbr, RFC 3551 (G.711).
//!
//! Strict: what a packetizer may not do is an error in words. A hole in the sequence numbers ends what was being put
//! together and is reported, because a viewer that was too slow is meant to see one.

use camagent_core::Codec;

/// The fixed header of a packet (RFC 3550 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last packet of a picture.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Time stamp.
    pub time: u32,
    /// Synchronization source.
    pub ssrc: u32,
}

impl Header {
    /// Reads header and payload.
    pub fn read(packet: &[u8]) -> Result<(Self, &[u8]), String> {
        let [first, second, a, b, c, d, e, f, g, h, i, j, payload @ ..] = packet else {
            return Err(format!("an RTP packet of {} bytes", packet.len()));
        };
        if *first != 0x80 {
            return Err(format!("first byte {first:#x}: version 2 without padding, extension and CSRC is expected"));
        }
        let header = Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([*a, *b]),
            time: u32::from_be_bytes([*c, *d, *e, *f]),
            ssrc: u32::from_be_bytes([*g, *h, *i, *j]),
        };
        Ok((header, payload))
    }
}

/// Puts the units of one track together.
#[derive(Debug)]
pub struct Depacketizer {
    codec: Codec,
    expected: Option<u16>,
    open: Option<(u32, Vec<u8>)>,
    holes: u32,
}

impl Depacketizer {
    /// For one track.
    pub fn new(codec: Codec) -> Self {
        Self { codec, expected: None, open: None, holes: 0 }
    }

    /// Holes in the sequence numbers so far.
    pub fn holes(&self) -> u32 {
        self.holes
    }

    /// Takes a packet; the units that it completes, each with its RTP time.
    pub fn take(&mut self, packet: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let (header, payload) = Header::read(packet)?;
        if self.expected.is_some_and(|expected| expected != header.sequence) {
            self.holes += 1;
            self.open = None;
        }
        self.expected = Some(header.sequence.wrapping_add(1));
        if payload.is_empty() {
            return Err("an empty payload".into());
        }
        match self.codec {
            Codec::H264 => self.h264(header, payload),
            Codec::H265 => self.h265(header, payload),
            Codec::Aac => self.aac(header, payload),
            _ => Ok(vec![(header.time, payload.to_vec())]),
        }
    }

    fn h264(&mut self, header: Header, payload: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        match payload[0] & 0x1f {
            1..=23 => Ok(vec![(header.time, payload.to_vec())]),
            24 => aggregated(header.time, &payload[1..]),
            28 => {
                let [indicator, fu, data @ ..] = payload else { return Err("a FU-A without header".into()) };
                self.fragment(header, *fu, &[indicator & 0xe0 | fu & 0x1f], data)
            }
            other => Err(format!("H.264 packet type {other} has no place in packetization mode 1")),
        }
    }

    fn h265(&mut self, header: Header, payload: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let [first, second, rest @ ..] = payload else { return Err("an H.265 payload of one byte".into()) };
        match first >> 1 & 0x3f {
            0..=47 => Ok(vec![(header.time, payload.to_vec())]),
            48 => aggregated(header.time, rest),
            49 => {
                let [fu, data @ ..] = rest else { return Err("a FU without header".into()) };
                self.fragment(header, *fu, &[first & 0x81 | (fu & 0x3f) << 1, *second], data)
            }
            other => Err(format!("H.265 packet type {other} is not known")),
        }
    }

    fn fragment(
        &mut self,
        header: Header,
        fu: u8,
        unit_header: &[u8],
        data: &[u8],
    ) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        if start {
            if self.open.is_some() || end {
                return Err("a fragment begins inside another, or begins and ends a unit".into());
            }
            self.open = Some((header.time, unit_header.to_vec()));
        }
        let Some((time, unit)) = &mut self.open else { return Err("a fragment without beginning".into()) };
        if *time != header.time {
            return Err("the fragments of a unit have several times".into());
        }
        unit.extend_from_slice(data);
        if end { Ok(self.open.take().into_iter().collect()) } else { Ok(Vec::new()) }
    }

    /// sizeLength 13, indexLength and indexDeltaLength 3.
    fn aac(&mut self, header: Header, payload: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let [high, low, rest @ ..] = payload else { return Err("AAC without AU-headers-length".into()) };
        let headers = usize::from(u16::from_be_bytes([*high, *low])) / 16;
        if headers == 0 || rest.len() < headers * 2 {
            return Err(format!("{headers} AU headers in {} bytes", payload.len()));
        }
        let (sizes, mut data) = rest.split_at(headers * 2);
        let mut units = Vec::new();
        for (index, size) in sizes.chunks_exact(2).enumerate() {
            let size = usize::from(u16::from_be_bytes([size[0], size[1]]) >> 3);
            let time = header.time.wrapping_add(index as u32 * 1_024);
            if headers == 1 && size > data.len() || self.open.is_some() {
                let (_, unit) = self.open.get_or_insert((time, Vec::new()));
                unit.extend_from_slice(data);
                if unit.len() == size {
                    units.extend(self.open.take());
                }
                return Ok(units);
            }
            let Some(unit) = data.get(..size) else { return Err("an AU that is longer than its packet".into()) };
            units.push((time, unit.to_vec()));
            data = &data[size..];
        }
        Ok(units)
    }
}

/// STAP-A and AP: each unit with two bytes of length before it.
fn aggregated(time: u32, mut rest: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
    let mut units = Vec::new();
    while let [high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let unit = behind.get(..length).ok_or("an aggregated unit that is longer than its packet")?;
        units.push((time, unit.to_vec()));
        rest = &behind[length..];
    }
    if rest.is_empty() { Ok(units) } else { Err("a byte behind the last aggregated unit".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        [&[0x80, 96, 0, sequence, 0, 0, 0, 9, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn fragments_aggregates_and_holes() {
        let mut video = Depacketizer::new(Codec::H264);
        assert_eq!(video.take(&packet(1, &[24, 0, 2, 0x67, 1, 0, 1, 0x68])).unwrap().len(), 2);
        assert_eq!(video.take(&packet(2, &[0x7c, 0x85, 7])).unwrap(), []);
        assert_eq!(video.take(&packet(3, &[0x7c, 0x45, 8])).unwrap(), [(9, vec![0x65, 7, 8])]);
        assert_eq!(video.holes(), 0);
        assert_eq!(video.take(&packet(9, &[0x41, 1])).unwrap(), [(9, vec![0x41, 1])]);
        assert_eq!(video.holes(), 1);
        assert!(video.take(&packet(10, &[0x7c, 0x05, 8])).is_err());
        let mut audio = Depacketizer::new(Codec::Aac);
        assert_eq!(audio.take(&packet(1, &[0, 16, 0, 2 << 3, 5, 6])).unwrap(), [(9, vec![5, 6])]);
    }
}
