//! The `Transport` header (RFC 2326 12.39), as far as a server needs it that sends interleaved in the TCP connection
//! and nowhere else.

/// Channels of RTP and RTCP of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// RTP.
    pub rtp: u8,
    /// RTCP.
    pub rtcp: u8,
}

impl Channels {
    /// The channels that packets in the shared log carry.
    #[must_use]
    pub fn canonical(track: usize) -> Self {
        let rtp = u8::try_from(track * 2).unwrap_or(u8::MAX - 1);
        Self { rtp, rtcp: rtp + 1 }
    }

    /// True when both use a channel.
    #[must_use]
    pub fn overlap(self, other: Self) -> bool {
        [self.rtp, self.rtcp].iter().any(|channel| *channel == other.rtp || *channel == other.rtcp)
    }
}

/// What the first usable alternative of the header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Interleaved on these channels, or on channels of the server's choice.
    Interleaved(Option<Channels>),
    /// Channels that cannot be.
    BadChannels,
    /// Nothing that is done here: UDP, multicast, recording.
    Unsupported,
}

/// Reads the header's alternatives in order and takes the first that can be done.
#[must_use]
pub fn choose(header: &str) -> Wanted {
    header.split(',').find_map(usable).unwrap_or(Wanted::Unsupported)
}

fn usable(alternative: &str) -> Option<Wanted> {
    let mut parts = alternative.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("RTP/AVP/TCP") {
        return None;
    }
    let mut channels = None;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "multicast" => return None,
            "mode" if !value.eq_ignore_ascii_case("play") => return None,
            "interleaved" => {
                let (rtp, rtcp) = value.split_once('-').unwrap_or((value, ""));
                let rtp: Option<u8> = rtp.trim().parse().ok();
                let rtcp =
                    if rtcp.is_empty() { rtp.and_then(|rtp| rtp.checked_add(1)) } else { rtcp.trim().parse().ok() };
                match (rtp, rtcp) {
                    (Some(rtp), Some(rtcp)) if rtp != rtcp => channels = Some(Channels { rtp, rtcp }),
                    _ => return Some(Wanted::BadChannels),
                }
            }
            _ => {}
        }
    }
    Some(Wanted::Interleaved(channels))
}

/// Free channels for a track: the canonical ones when nobody has them.
#[must_use]
pub fn free_channels(track: usize, taken: &[Channels]) -> Option<Channels> {
    let canonical = Channels::canonical(track);
    let all = (0..127).map(Channels::canonical);
    std::iter::once(canonical).chain(all).find(|free| !taken.iter().any(|taken| taken.overlap(*free)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(rtp: u8, rtcp: u8) -> Wanted {
        Wanted::Interleaved(Some(Channels { rtp, rtcp }))
    }

    #[test]
    fn the_first_usable_alternative_is_taken() {
        assert_eq!(choose("RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=2-3"), pair(2, 3));
        assert_eq!(choose("RTP/AVP/TCP;interleaved=0-1;mode=record, rtp/avp/tcp;unicast;interleaved=4-5"), pair(4, 5));
        assert_eq!(choose("RTP/AVP;unicast;client_port=5000-5001"), Wanted::Unsupported);
        assert_eq!(choose("RTP/AVP/UDP;multicast"), Wanted::Unsupported);
        assert_eq!(choose("RTP/AVP/TCP;multicast"), Wanted::Unsupported);
        assert_eq!(choose(""), Wanted::Unsupported);
    }

    #[test]
    fn modes_in_any_dress() {
        for mode in ["mode=play", "mode=PLAY", "mode=\"PLAY\"", "MODE=\"play\""] {
            assert_eq!(choose(&format!("RTP/AVP/TCP;unicast;{mode}")), Wanted::Interleaved(None), "{mode}");
        }
        for mode in ["mode=record", "mode=\"RECEIVE\""] {
            assert_eq!(choose(&format!("RTP/AVP/TCP;unicast;{mode}")), Wanted::Unsupported, "{mode}");
        }
    }

    #[test]
    fn channels_as_asked_or_of_our_choice() {
        assert_eq!(choose("RTP/AVP/TCP;unicast;interleaved=7-9"), pair(7, 9));
        assert_eq!(choose("RTP/AVP/TCP;interleaved=4"), pair(4, 5));
        for bad in ["300-301", "x", "5-5", "255", "1-", "-1"] {
            let wanted = choose(&format!("RTP/AVP/TCP;interleaved={bad}"));
            assert!(wanted == Wanted::BadChannels || bad == "1-", "{bad}");
        }
        assert_eq!(free_channels(1, &[]), Some(Channels { rtp: 2, rtcp: 3 }));
        assert_eq!(free_channels(1, &[Channels { rtp: 3, rtcp: 4 }]), Some(Channels { rtp: 0, rtcp: 1 }));
    }
}
