//! An RTSP client that plays over one connection, and the way back from packets to NAL units.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An RTSP client that plays all tracks interleaved.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    url: String,
    cseq: u32,
    /// Packets by channel, in order.
    pub packets: BTreeMap<u8, Vec<Vec<u8>>>,
}

impl Client {
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        let url = format!("rtsp://{address}/{path}");
        Self { stream, buffer: Vec::new(), url, cseq: 0, packets: BTreeMap::new() }
    }

    pub async fn ask(&mut self, method: &str, suffix: &str, headers: &str) -> String {
        self.cseq += 1;
        let request = format!("{method} {}{suffix} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.url, self.cseq);
        self.stream.write_all(request.as_bytes()).await.expect("writes");
        loop {
            while self.take_packet() {}
            if let Some(response) = self.take_response() {
                return response;
            }
            self.fill().await;
        }
    }

    pub async fn play(&mut self, channels: &[u8]) -> String {
        let described = self.ask("DESCRIBE", "", "").await;
        assert!(described.starts_with("RTSP/1.0 200"), "{described}");
        for (track, channel) in channels.iter().enumerate() {
            let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n", channel + 1);
            let response = self.ask("SETUP", &format!("/trackID={track}"), &transport).await;
            assert!(response.starts_with("RTSP/1.0 200"), "{response}");
        }
        let played = self.ask("PLAY", "/", "").await;
        assert!(played.starts_with("RTSP/1.0 200"), "{played}");
        played
    }

    pub async fn fill(&mut self) {
        let mut bytes = [0; 65_536];
        let length = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut bytes))
            .await
            .expect("the server speaks")
            .expect("reads");
        assert_ne!(length, 0, "the server closed");
        self.buffer.extend_from_slice(&bytes[..length]);
    }

    fn take_packet(&mut self) -> bool {
        let [b'$', channel, high, low, rest @ ..] = &self.buffer[..] else { return false };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(packet) = rest.get(..length) else { return false };
        self.packets.entry(*channel).or_default().push(packet.to_vec());
        self.buffer.drain(..4 + length);
        true
    }

    fn take_response(&mut self) -> Option<String> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.buffer[..end].to_vec()).expect("text");
        assert!(head.starts_with("RTSP/1.0 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let whole = self.buffer.get(..end + length)?;
        let text = String::from_utf8(whole.to_vec()).expect("text");
        self.buffer.drain(..end + length);
        Some(text)
    }

    /// Reads until the channel has so many packets.
    pub async fn read_packets(&mut self, channel: u8, count: usize) {
        loop {
            while self.take_packet() {}
            if self.packets.get(&channel).map_or(0, Vec::len) >= count {
                return;
            }
            self.fill().await;
        }
    }
}

/// NAL units out of RFC 6184 packets; sequence numbers must have no gap.
pub fn depacketize(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut units, mut open): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut expected = None;
    for packet in packets {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        assert!(expected.is_none_or(|expected| expected == sequence), "no gap");
        expected = Some(sequence.wrapping_add(1));
        let payload = &packet[12..];
        match payload[0] & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                while let [high, low, more @ ..] = rest {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    units.push(more[..length].to_vec());
                    rest = &more[length..];
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    open = vec![payload[0] & 0xe0 | payload[1] & 0x1f];
                }
                open.extend_from_slice(&payload[2..]);
                if payload[1] & 0x40 != 0 {
                    units.push(std::mem::take(&mut open));
                }
            }
            _ => units.push(payload.to_vec()),
        }
    }
    units
}

/// Slices only: parameter sets may be repeated, delimiters left out.
pub fn slices<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    units.into_iter().filter(|unit| matches!(unit[0] & 0x1f, 1 | 5)).map(<[u8]>::to_vec).collect()
}
