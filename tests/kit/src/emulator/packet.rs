//! What the emulator reads and changes of a packet: IPv4 (RFC 791), TCP (RFC 9293) and UDP (RFC 768) headers, checksums
//! that follow a changed address (RFC 1624), and the reset segment that a middlebox forges.
//!
//! Packets come from a kernel, but nothing is trusted: what does not fit is no packet, and options are stepped over.

use std::net::{Ipv4Addr, SocketAddrV4};

/// IPv4's number of TCP.
pub(crate) const TCP: u8 = 6;
/// IPv4's number of UDP.
pub(crate) const UDP: u8 = 17;

/// The shortest headers.
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Bits of TCP's flags octet.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A packet's headers, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) protocol: u8,
    /// Ports are 0 where there are none: other protocols, later fragments.
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) tcp: Option<Segment>,
}

/// The part of a TCP header that says where in its octets a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) rst: bool,
    /// The sequence number after this segment (SYN and FIN count as one octet each).
    pub(crate) end: u32,
}

/// Reads the headers; nothing when it is no IPv4 packet or not a whole one.
pub(crate) fn read(packet: &[u8]) -> Option<Headers> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < IPV4_HEADER {
        return None;
    }
    let packet = packet.get(..usize::from(u16_at(packet, 2)?))?;
    let body = packet.get(header..)?;
    let protocol = packet[9];
    let is_later_fragment = u16_at(packet, 6)? & 0x1fff != 0;
    let (ports, tcp) = match protocol {
        _ if is_later_fragment => ((0, 0), None),
        TCP => ((u16_at(body, 0)?, u16_at(body, 2)?), Some(segment(body)?)),
        UDP => ((u16_at(body, 0)?, u16_at(body, 2)?), None),
        _ => ((0, 0), None),
    };
    Some(Headers {
        protocol,
        source: SocketAddrV4::new(address(packet, 12)?, ports.0),
        destination: SocketAddrV4::new(address(packet, 16)?, ports.1),
        tcp,
    })
}

fn segment(body: &[u8]) -> Option<Segment> {
    let header = usize::from(*body.get(12)? >> 4) * 4;
    if header < TCP_HEADER {
        return None;
    }
    let payload = u32::try_from(body.get(header..)?.len()).ok()?;
    let (sequence, flags) = (u32_at(body, 4)?, body[13]);
    let (syn, fin) = (flags & SYN != 0, flags & FIN != 0);
    Some(Segment {
        sequence,
        acknowledgement: if flags & ACK != 0 { Some(u32_at(body, 8)?) } else { None },
        syn,
        rst: flags & RST != 0,
        end: sequence.wrapping_add(payload).wrapping_add(u32::from(syn)).wrapping_add(u32::from(fin)),
    })
}

/// Writes another source address into a packet that [`read`] understood.
pub(crate) fn set_source(packet: &mut [u8], new: Ipv4Addr) {
    set_address(packet, 12, new);
}

/// Writes another destination address into a packet that [`read`] understood.
pub(crate) fn set_destination(packet: &mut [u8], new: Ipv4Addr) {
    set_address(packet, 16, new);
}

fn set_address(packet: &mut [u8], at: usize, new: Ipv4Addr) {
    let (Some(old), Some(fragment)) = (address(packet, at), u16_at(packet, 6)) else { return };
    let header = usize::from(packet[0] & 0x0f) * 4;
    packet[at..at + 4].copy_from_slice(&new.octets());
    mend(packet, 10, old, new);
    if fragment & 0x1fff != 0 {
        return;
    }
    match packet[9] {
        TCP => mend(packet, header + 16, old, new),
        // A UDP checksum of zero says that there is none.
        UDP if packet.len() >= header + UDP_HEADER && u16_at(packet, header + 6) != Some(0) => {
            mend(packet, header + 6, old, new);
            if u16_at(packet, header + 6) == Some(0) {
                packet[header + 6..header + 8].fill(0xff);
            }
        }
        _ => {}
    }
}

/// RFC 1624, equation 3: the checksum at `at` after `old` became `new`.
fn mend(packet: &mut [u8], at: usize, old: Ipv4Addr, new: Ipv4Addr) {
    let Some(checksum) = u16_at(packet, at) else { return };
    let mut sum = u32::from(!checksum);
    for (old, new) in old.octets().chunks_exact(2).zip(new.octets().chunks_exact(2)) {
        sum += u32::from(!u16::from_be_bytes([old[0], old[1]])) + u32::from(u16::from_be_bytes([new[0], new[1]]));
    }
    packet[at..at + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
}

/// A reset segment from `source` to `destination`, at the sequence number that the destination expects (RFC 5961: any
/// other is only challenged).
pub(crate) fn forge_reset(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    sequence: u32,
    acknowledgement: Option<u32>,
) -> Vec<u8> {
    const LENGTH: usize = IPV4_HEADER + TCP_HEADER;
    let mut packet = vec![0; LENGTH];
    packet[0] = 0x45;
    packet[3] = LENGTH as u8;
    packet[6] = 0x40; // don't fragment
    packet[8] = 64;
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&source.ip().octets());
    packet[16..20].copy_from_slice(&destination.ip().octets());
    packet[20..22].copy_from_slice(&source.port().to_be_bytes());
    packet[22..24].copy_from_slice(&destination.port().to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&acknowledgement.unwrap_or(0).to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = RST | if acknowledgement.is_some() { ACK } else { 0 };
    let header = !fold(sum(&packet[..IPV4_HEADER]));
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    let segment = !fold(sum(&packet[12..]) + u32::from(TCP) + TCP_HEADER as u32);
    packet[36..38].copy_from_slice(&segment.to_be_bytes());
    packet
}

fn sum(octets: &[u8]) -> u32 {
    octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn address(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    u32_at(octets, at).map(Ipv4Addr::from)
}

/// Packets for the tests of this folder, with right checksums.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A segment with payload. Flags as in the header.
    pub(crate) fn tcp(
        from: SocketAddrV4,
        to: SocketAddrV4,
        sequence: u32,
        acknowledgement: u32,
        flags: &str,
        payload: usize,
    ) -> Vec<u8> {
        let mut packet = forge_reset(from, to, sequence, Some(acknowledgement));
        packet.resize(packet.len() + payload, 0x55);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[33] = flags
            .chars()
            .map(|flag| match flag {
                'S' => SYN,
                'A' => ACK,
                'F' => FIN,
                'R' => RST,
                _ => 0,
            })
            .sum();
        renew(packet)
    }

    /// A datagram of `length` octets in all.
    pub(crate) fn udp(from: SocketAddrV4, to: SocketAddrV4, length: usize) -> Vec<u8> {
        let mut packet = forge_reset(from, to, 0, None);
        packet.truncate(IPV4_HEADER + UDP_HEADER);
        packet.resize(length.max(packet.len()), 0x55);
        packet[9] = UDP;
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
        packet[26..28].fill(0);
        packet[10..12].fill(0);
        let header = !fold(sum(&packet[..IPV4_HEADER]));
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let datagram = !fold(sum(&packet[12..]) + u32::from(UDP) + u32::from(length - 20));
        let datagram = if datagram == 0 { 0xffff } else { datagram };
        packet[26..28].copy_from_slice(&datagram.to_be_bytes());
        packet
    }

    fn renew(mut packet: Vec<u8>) -> Vec<u8> {
        packet[10..12].fill(0);
        packet[36..38].fill(0);
        let header = !fold(sum(&packet[..IPV4_HEADER]));
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let length = (packet.len() - IPV4_HEADER) as u32;
        let segment = !fold(sum(&packet[12..]) + u32::from(TCP) + length);
        packet[36..38].copy_from_slice(&segment.to_be_bytes());
        packet
    }

    /// Whether both checksums are right.
    pub(crate) fn is_intact(packet: &[u8]) -> bool {
        let length = (packet.len() - IPV4_HEADER) as u32;
        fold(sum(&packet[..IPV4_HEADER])) == 0xffff
            && fold(sum(&packet[12..]) + u32::from(packet[9]) + length) == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 108), 40_000);
    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 2), 443);

    #[test]
    fn headers_are_read() {
        let headers = read(&samples::tcp(CAMERA, SERVER, u32::MAX, 7, "SA", 3)).unwrap();
        assert_eq!((headers.source, headers.destination, headers.protocol), (CAMERA, SERVER, TCP));
        let segment = headers.tcp.unwrap();
        assert_eq!(
            (segment.sequence, segment.end),
            (u32::MAX, 3),
            "SYN and three octets, around the end of the numbers"
        );
        assert_eq!((segment.acknowledgement, segment.syn, segment.rst), (Some(7), true, false));
        let headers = read(&samples::udp(SERVER, CAMERA, 60)).unwrap();
        assert_eq!((headers.source, headers.destination, headers.tcp), (SERVER, CAMERA, None));
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        let packet = samples::tcp(CAMERA, SERVER, 1, 1, "A", 0);
        assert!((0..packet.len()).all(|length| read(&packet[..length]).is_none()));
        assert!(read(&[0x60; 60]).is_none(), "IPv6");
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut packet = samples::udp(CAMERA, SERVER, 100);
        packet[7] = 1;
        assert_eq!(read(&packet).unwrap().source.port(), 0);
    }

    #[test]
    fn checksums_follow_the_address() {
        for mut packet in [samples::tcp(CAMERA, SERVER, 1, 2, "A", 11), samples::udp(CAMERA, SERVER, 77)] {
            assert!(samples::is_intact(&packet));
            set_source(&mut packet, Ipv4Addr::new(198, 51, 100, 1));
            set_destination(&mut packet, Ipv4Addr::new(10, 255, 0, 255));
            assert!(samples::is_intact(&packet));
            assert_eq!(*read(&packet).unwrap().source.ip(), Ipv4Addr::new(198, 51, 100, 1));
        }
    }

    #[test]
    fn a_forged_reset_is_a_whole_segment() {
        let packet = forge_reset(SERVER, CAMERA, 1234, Some(99));
        assert!(samples::is_intact(&packet));
        let segment = read(&packet).unwrap().tcp.unwrap();
        assert!(segment.rst);
        assert_eq!((segment.sequence, segment.acknowledgement), (1234, Some(99)));
    }
}
