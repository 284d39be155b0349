//! Finds where RTSP messages and interleaved frames begin and end in one direction of a connection (RFC 2326, 4 and 10.12),
//! and nothing else: the octets themselves are the caller's. What it cannot follow it says so, once and for good.

/// A head longer than this is not followed.
const MAX_HEAD: usize = 16 << 10;
/// The first word of a message: a method, or `RTSP/1.0`.
const MAX_WORD: usize = 32;

/// What the next octets are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Octets of a frame, of a body, or between messages.
    Pass(usize),
    /// Octets of a head that is not complete.
    Partial(usize),
    /// The last octets of a head, which is given whole; its body follows.
    Head(usize, Head),
    /// The message whose head was given has ended.
    End,
    /// There are no more octets.
    More,
    /// This is not RTSP; the octets of an incomplete head are [`Follower::take_partial`].
    Lost,
}

/// The begin of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its octets, with the empty line.
    pub(super) octets: Vec<u8>,
    first_line: String,
    fields: Vec<(String, String)>,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Follower {
    head: Vec<u8>,
    line_start: usize,
    /// The first octets of a frame, which were passed already.
    frame: Vec<u8>,
    /// Octets of a frame or a body to come.
    rest: usize,
    in_message: bool,
}

impl Follower {
    /// True between messages and frames.
    pub(super) fn is_between(&self) -> bool {
        self.head.is_empty() && self.frame.is_empty() && self.rest == 0 && !self.in_message
    }

    /// The octets of an incomplete head.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        self.line_start = 0;
        std::mem::take(&mut self.head)
    }

    /// Looks at octets; the piece says how many of them it is.
    pub(super) fn next(&mut self, octets: &[u8]) -> Piece {
        if self.rest > 0 && !octets.is_empty() {
            let count = self.rest.min(octets.len());
            self.rest -= count;
            return Piece::Pass(count);
        }
        if self.rest == 0 && self.in_message {
            self.in_message = false;
            return Piece::End;
        }
        let Some(first) = self.frame.first().or(self.head.first()).or(octets.first()).copied() else {
            return Piece::More;
        };
        match first {
            _ if octets.is_empty() => Piece::More,
            b'\r' | b'\n' => Piece::Pass(octets.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count()),
            b'$' => self.next_frame(octets),
            b'A'..=b'Z' => self.next_head(octets),
            _ => Piece::Lost,
        }
    }

    fn next_frame(&mut self, octets: &[u8]) -> Piece {
        let count = octets.len().min(4 - self.frame.len());
        self.frame.extend_from_slice(&octets[..count]);
        if let [_, _, high, low] = self.frame[..] {
            self.rest = usize::from(u16::from_be_bytes([high, low]));
            self.frame.clear();
        }
        Piece::Pass(count)
    }

    fn next_head(&mut self, octets: &[u8]) -> Piece {
        for (at, octet) in octets.iter().enumerate() {
            if self.head.len() >= MAX_HEAD {
                return self.lost(octets, at);
            }
            self.head.push(*octet);
            let is_first_line = self.line_start == 0;
            if *octet != b'\n' {
                if is_first_line && !may_begin(&self.head) {
                    self.head.pop();
                    return self.lost(octets, at);
                }
                continue;
            }
            let is_empty = matches!(&self.head[self.line_start..], b"\n" | b"\r\n");
            self.line_start = self.head.len();
            if is_first_line && !is_first_line_of_rtsp(&self.head) {
                self.head.pop();
                return self.lost(octets, at);
            }
            if is_empty {
                let head = Head::read(std::mem::take(&mut self.head));
                self.line_start = 0;
                let Some(length) = head.content_length() else {
                    self.head = head.octets;
                    self.head.truncate(self.head.len() - 1);
                    return self.lost(octets, at);
                };
                self.rest = length;
                self.in_message = true;
                return Piece::Head(at + 1, head);
            }
        }
        Piece::Partial(octets.len())
    }

    /// The octets before `at` were put into the head in this call and are the caller's still.
    fn lost(&mut self, octets: &[u8], at: usize) -> Piece {
        debug_assert!(octets.len() >= at && self.head.len() >= at);
        self.head.truncate(self.head.len() - at);
        Piece::Lost
    }
}

/// Whether a first line may begin so.
fn may_begin(line: &[u8]) -> bool {
    let word = line.split(|octet| *octet == b' ').next().unwrap_or_default();
    let plain = |octet: &u8| matches!(octet, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'/' | b'.');
    word.len() <= MAX_WORD && (line.len() > word.len() || word.last().is_none_or(plain))
}

fn is_first_line_of_rtsp(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let last = line.rsplit(|octet| *octet == b' ').next().unwrap_or_default();
    line.starts_with(b"RTSP/1.") || last.starts_with(b"RTSP/1.")
}

impl Head {
    fn read(octets: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&octets);
        let mut lines = text.lines();
        let first_line = lines.next().unwrap_or_default().trim().to_owned();
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines.filter(|line| !line.trim().is_empty()) {
            match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
                (true, Some((_, value)), _) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (_, _, Some((name, value))) => fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
                _ => {}
            }
        }
        Self { first_line, fields, octets }
    }

    /// The method of a request; none for a response.
    pub(super) fn method(&self) -> Option<&str> {
        self.first_line.split(' ').next().filter(|_| self.status().is_none())
    }

    /// The status of a response; none for a request.
    pub(super) fn status(&self) -> Option<&str> {
        self.first_line.strip_prefix("RTSP/1.").map(|rest| rest.split(' ').nth(1).unwrap_or_default())
    }

    /// The values of a header; its name in small letters.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// None when it cannot be told where the message ends.
    fn content_length(&self) -> Option<usize> {
        let mut values = self.values("content-length");
        let Some(first) = values.next() else { return Some(0) };
        let digits = first.bytes().all(|octet| octet.is_ascii_digit());
        (digits && values.all(|other| other == first)).then(|| first.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, whatever the octets are cut into.
    fn follow(octets: &[u8], cut: usize) -> Vec<String> {
        let mut follower = Follower::default();
        let mut found: Vec<String> = Vec::new();
        for mut chunk in octets.chunks(cut) {
            loop {
                let count = match follower.next(chunk) {
                    Piece::Pass(count) | Piece::Partial(count) => count,
                    Piece::Head(count, head) => {
                        found.push(head.method().or(head.status()).unwrap_or_default().to_owned());
                        count
                    }
                    Piece::End => {
                        found.push("end".into());
                        0
                    }
                    Piece::More => break,
                    Piece::Lost => {
                        let partial = follower.take_partial();
                        found.push(format!("lost {}", String::from_utf8_lossy(&partial)));
                        return found;
                    }
                };
                chunk = &chunk[count..];
            }
        }
        found
    }

    #[test]
    fn messages_bodies_and_frames() {
        let octets =
            b"\r\nOPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x00\x00\x03\nPLRTSP/1.0 200 OK\nContent-Length: 4\n\nPLAY\
                       $\x01\x00\x00SETUP rtsp://h RTSP/1.0\r\n\r\n";
        for cut in 1..octets.len() {
            assert_eq!(follow(octets, cut), ["OPTIONS", "end", "200", "end", "SETUP", "end"], "{cut}");
        }
    }

    #[test]
    fn what_is_not_rtsp_is_lost_as_soon_as_it_shows() {
        for (octets, lost) in [
            (&b"\x16\x03\x01"[..], "lost "),
            (b"GET / HTTP/1.1\r\n", "lost "),
            (b"Get", "lost "),
            (b"OPTIONS * RTSP/1.0\r\nContent-Length: x\r\n\r\n", "lost "),
            (&[b'A'; 40], "lost "),
        ] {
            assert_eq!(follow(octets, 1000), [lost], "{octets:?}");
        }
        let found = follow(b"GET / HTTP/1.1\r\n", 1);
        assert_eq!(found, ["lost GET / HTTP/1.1\r"], "the octets that came before are not forgotten");
    }
}
