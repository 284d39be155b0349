//! The description of a session for players (RFC 8866), with the format parameters of RFC 6184, 7798, 3640 and 3551.
//!
//! Only what a player of a live source needs. Session control (RTSP) belongs into the server.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::codec::Parameters;
use crate::codec::g711::Law;
use crate::codec::h265::ProfileTierLevel;

/// A live session: its `Display` is the SDP, with CRLF line ends.
#[derive(Debug, Clone)]
pub struct Session<'a> {
    /// Distinguishes sessions of this server, and counts as their version: another one when anything below is another.
    pub id: u64,
    /// Name of the session; may be empty. Control characters become blanks.
    pub name: &'a str,
    /// The tracks, in the order of their control names.
    pub media: Vec<Media<'a>>,
}

/// A track of a session.
#[derive(Debug, Clone)]
pub struct Media<'a> {
    /// What it carries.
    pub parameters: &'a Parameters,
    /// RTP payload type: 96 to 127, or what [`crate::rtp::payload_type`] says.
    pub payload_type: u8,
    /// The control URL, relative to that of the session: "trackID=0".
    pub control: &'a str,
}

impl Session<'_> {
    /// Appends the SDP to `out`.
    pub fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{self}");
    }
}

impl fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        write!(f, "v=0\r\no=- {id} {id} IN IP4 0.0.0.0\r\n")?;
        // An empty s= is not allowed; old players want c= and t= even where they say nothing.
        write!(
            f,
            "s={}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n",
            one_line(if self.name.is_empty() { " " } else { self.name })
        )?;
        write!(f, "a=range:npt=now-\r\na=control:*\r\n")?;
        self.media.iter().try_for_each(|media| write!(f, "{media}"))
    }
}

impl fmt::Display for Media<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.parameters.codec().is_video() { "video" } else { "audio" };
        let number = self.payload_type;
        write!(f, "m={kind} 0 RTP/AVP {number}\r\na=rtpmap:{number} {}\r\n", encoding(self.parameters))?;
        match self.parameters {
            Parameters::H264 { sps, pps, profile_level_id: [profile, constraints, level], .. } => {
                write!(f, "a=fmtp:{number} packetization-mode=1;")?;
                write!(f, "profile-level-id={profile:02X}{constraints:02X}{level:02X};")?;
                write!(f, "sprop-parameter-sets={},{}\r\n", base64(sps), base64_list(pps))?;
            }
            Parameters::H265 { vps, sps, pps, profile_tier_level, .. } => {
                write!(f, "a=fmtp:{number} {}", profile_tier_level_parameters(profile_tier_level))?;
                if !vps.is_empty() {
                    write!(f, "sprop-vps={};", base64(vps))?;
                }
                write!(f, "sprop-sps={};sprop-pps={}\r\n", base64(sps), base64_list(pps))?;
            }
            Parameters::Aac { config, .. } => {
                write!(f, "a=fmtp:{number} streamtype=5;profile-level-id=1;mode=AAC-hbr;")?;
                write!(f, "sizelength=13;indexlength=3;indexdeltalength=3;config=")?;
                config.iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
                write!(f, "\r\n")?;
            }
            Parameters::G711 { .. } => {}
        }
        write!(f, "a=control:{}\r\n", one_line(self.control))
    }
}

/// Encoding name, clock rate and for audio the channels, as in `a=rtpmap`.
fn encoding(parameters: &Parameters) -> String {
    let (name, channels) = match parameters {
        Parameters::H264 { .. } => ("H264", 1),
        Parameters::H265 { .. } => ("H265", 1),
        Parameters::Aac { channels, .. } => ("mpeg4-generic", *channels),
        Parameters::G711 { law: Law::A, channels, .. } => ("PCMA", *channels),
        Parameters::G711 { law: Law::Mu, channels, .. } => ("PCMU", *channels),
    };
    let mut text = name.to_string();
    // Writing to a String cannot fail.
    let _ = write!(text, "/{}", parameters.rtp_clock_rate());
    // RFC 3640 wants the channels of AAC always; for G.711 one channel is the default.
    if channels > 1 || matches!(parameters, Parameters::Aac { .. }) {
        let _ = write!(text, "/{channels}");
    }
    text
}

/// RFC 7798, section 7.1: without them a receiver must assume Main at level 3.1.
fn profile_tier_level_parameters(of: &ProfileTierLevel) -> String {
    alloc::format!(
        "profile-space={};profile-id={};tier-flag={};level-id={};",
        of.profile_space,
        of.profile_idc,
        u8::from(of.high_tier),
        of.level_idc
    )
}

/// Nothing that somebody types may begin a line of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn base64_list<T: AsRef<[u8]>>(sets: &[T]) -> String {
    sets.iter().map(|set| base64(set.as_ref())).collect::<Vec<_>>().join(",")
}

/// RFC 4648, section 4.
fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits =
            chunk.iter().enumerate().fold(0u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for position in 0..4 {
            text.push(if position <= chunk.len() {
                char::from(ALPHABET[(bits >> (18 - 6 * position) & 0x3f) as usize])
            } else {
                '='
            });
        }
    }
    text
}
