//! How one track of a PLAY leaves the camera: its RTP stream and sender reports (RFC 3550), between the RTSP messages of the
//! connection or in datagrams of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};

use camagent_media::rtp::rtcp::{NtpTime, SenderReport};
use camagent_media::rtp::{self, Packetizer};
use tokio::net::UdpSocket;

use super::encoder::{Live, LiveTrack};

/// What fits into a datagram of an Ethernet.
const MOST_PAYLOAD: usize = 1_400;
/// How often wall clock and RTP time are told.
const REPORT_EVERY_US: i64 = 2_000_000;

/// Where packets go.
#[derive(Debug)]
pub(super) enum Way {
    /// Between the RTSP messages: the channel of RTP, RTCP has the next one.
    Interleaved(u8),
    /// In datagrams.
    Udp { rtp: UdpSocket, rtcp: UdpSocket },
}

impl Way {
    /// The way that a `Transport` header asks for, and what to answer. `Err` when there is none.
    pub(super) async fn agree(header: &str, here: IpAddr, peer: IpAddr) -> io::Result<(Self, String)> {
        let value = |name: &str| {
            let (first, second) = header.split(';').find_map(|part| part.strip_prefix(name))?.split_once('-')?;
            Some((first.parse::<u16>().ok()?, second.parse::<u16>().ok()?))
        };
        if header.starts_with("RTP/AVP/TCP") {
            let (channel, _) = value("interleaved=").unwrap_or((0, 1));
            let channel = u8::try_from(channel).map_err(|_| io::ErrorKind::InvalidInput)?;
            let answer = format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", u16::from(channel) + 1);
            return Ok((Self::Interleaved(channel), answer));
        }
        let (rtp_port, rtcp_port) = value("client_port=").ok_or(io::ErrorKind::InvalidInput)?;
        let (rtp, rtcp) = pair(here).await?;
        rtp.connect(SocketAddr::new(peer, rtp_port)).await?;
        rtcp.connect(SocketAddr::new(peer, rtcp_port)).await?;
        let server = format!("{}-{}", rtp.local_addr()?.port(), rtcp.local_addr()?.port());
        let answer = format!("RTP/AVP;unicast;client_port={rtp_port}-{rtcp_port};server_port={server}");
        Ok((Self::Udp { rtp, rtcp }, answer))
    }
}

/// Two sockets on neighbouring ports, the first of them even (RFC 3550 11).
async fn pair(here: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..100 {
        let rtp = UdpSocket::bind((here, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((here, port + 1)).await
        {
            return Ok((rtp, rtcp));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The RTP stream of one track.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) track: usize,
    pub(super) way: Way,
    packetizer: Packetizer,
    ssrc: u32,
    clock_rate: u32,
    /// RTP time of the encoder's time 0.
    offset: u32,
    packets: u32,
    octets: u32,
    last_report_us: Option<i64>,
}

impl Outlet {
    pub(super) fn new(track: usize, live: &LiveTrack, way: Way) -> Self {
        let random = getrandom::u64().expect("the system has random numbers");
        let (ssrc, offset) = (random as u32, (random >> 32) as u32);
        let codec = live.parameters.codec();
        Self {
            track,
            way,
            packetizer: Packetizer::new(codec, live.payload_type, ssrc, offset as u16, MOST_PAYLOAD),
            ssrc,
            clock_rate: live.parameters.rtp_clock_rate(),
            offset,
            packets: 0,
            octets: 0,
            last_report_us: None,
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(super) fn next_sequence(&self) -> u16 {
        self.packetizer.next_sequence()
    }

    pub(super) fn rtp_time(&self, time_us: i64) -> u32 {
        rtp::timestamp(time_us, self.clock_rate, self.offset)
    }

    /// Sends a frame, and a report when one is due; octets that went out. Interleaved packets are put behind `out`.
    pub(super) async fn send(&mut self, live: &Live, unix_us: i64, out: &mut Vec<u8>) -> io::Result<u64> {
        let rtp_time = self.rtp_time(live.time_us);
        let mut packets = Vec::new();
        if self.last_report_us.is_none_or(|last| live.time_us - last >= REPORT_EVERY_US) {
            self.last_report_us = Some(live.time_us);
            let (packet_count, octet_count) = (self.packets, self.octets);
            let ntp = NtpTime::from_unix_micros(unix_us);
            let mut report = Vec::new();
            SenderReport { ssrc: self.ssrc, ntp, rtp_time, packet_count, octet_count }.write("camera", &mut report);
            packets.push((1, report));
        }
        self.packetizer.packetize(&live.parts, rtp_time, &mut |header, pieces| {
            let mut packet = header.to_vec();
            pieces.iter().for_each(|piece| packet.extend_from_slice(piece));
            packets.push((0, packet));
        });
        let mut sent = 0;
        for (part, packet) in packets {
            sent += packet.len() as u64;
            if part == 0 {
                self.packets = self.packets.wrapping_add(1);
                self.octets = self.octets.wrapping_add(packet.len() as u32 - rtp::HEADER_BYTES as u32);
            }
            match &self.way {
                Way::Interleaved(channel) => {
                    out.extend_from_slice(&[b'$', channel + part]);
                    out.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                    out.extend_from_slice(&packet);
                }
                Way::Udp { rtp, rtcp } => {
                    // A port that is closed already is told by ICMP; the connection tells when the viewer has left.
                    let _ = if part == 0 { rtp } else { rtcp }.send(&packet).await;
                }
            }
        }
        Ok(sent)
    }
}
