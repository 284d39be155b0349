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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::test_data::{H264_1920X1080, H265_2688X1520, hex};
    use crate::codec::{Codec, Framing};
    use crate::track::TrackReader;
    use alloc::vec;
    use bytes::Bytes;

    fn video(codec: Codec, sets: &[&str]) -> Parameters {
        let config = crate::annexb::join(&sets.iter().map(|set| hex(set)).collect::<Vec<_>>());
        TrackReader::new(codec, Framing::AnnexB, &config, 0, 0).unwrap().parameters().unwrap().clone()
    }

    fn aac() -> Parameters {
        Parameters::Aac { config: Bytes::from_static(&[0x11, 0x90]), sample_rate: 48_000, channels: 2 }
    }

    #[test]
    fn a_whole_description() {
        let (video, audio) = (video(Codec::H264, &H264_1920X1080), aac());
        let session = Session {
            id: 1234,
            name: "front door",
            media: vec![
                Media { parameters: &video, payload_type: 96, control: "trackID=0" },
                Media { parameters: &audio, payload_type: 97, control: "trackID=1" },
            ],
        };
        let expected = "v=0\r\n\
            o=- 1234 1234 IN IP4 0.0.0.0\r\n\
            s=front door\r\n\
            c=IN IP4 0.0.0.0\r\n\
            t=0 0\r\n\
            a=range:npt=now-\r\n\
            a=control:*\r\n\
            m=video 0 RTP/AVP 96\r\n\
            a=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1;profile-level-id=640028;\
            sprop-parameter-sets=Z2QAKKzZQHgCJ+XARAAAAwAEAAADAMg8YMZY,aOvjyzACwA==\r\n\
            a=control:trackID=0\r\n\
            m=audio 0 RTP/AVP 97\r\n\
            a=rtpmap:97 mpeg4-generic/48000/2\r\n\
            a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;\
            sizelength=13;indexlength=3;indexdeltalength=3;config=1190\r\n\
            a=control:trackID=1\r\n";
        assert_eq!(session.to_string(), expected);
        let mut out = String::from("x");
        session.write(&mut out);
        assert_eq!(out, String::from("x") + expected);
    }

    #[test]
    fn as_another_implementation_reads_it() {
        let law = Law::Mu;
        let (video, audio) =
            (video(Codec::H265, &H265_2688X1520), Parameters::G711 { law, sample_rate: 8_000, channels: 1 });
        let media = vec![
            Media { parameters: &video, payload_type: 96, control: "trackID=0" },
            Media { parameters: &audio, payload_type: 0, control: "trackID=1" },
        ];
        let text = Session { id: u64::MAX, name: "", media }.to_string();
        let read = sdp_types::Session::parse(text.as_bytes()).unwrap();
        assert_eq!((read.session_name.as_str(), read.origin.sess_id.as_str()), (" ", "18446744073709551615"));
        assert_eq!(read.connection.unwrap().connection_address, "0.0.0.0");
        let [video, audio] = read.medias.as_slice() else { panic!("two media") };
        assert_eq!((video.media.as_str(), video.fmt.as_str(), video.proto.as_str()), ("video", "96", "RTP/AVP"));
        let value = |media: &sdp_types::Media, name: &str| -> Option<String> {
            let mut attributes = media.attributes.iter().filter(|attribute| attribute.attribute == name);
            attributes.next().and_then(|attribute| attribute.value.clone())
        };
        assert_eq!(value(video, "rtpmap").as_deref(), Some("96 H265/90000"));
        assert_eq!(
            value(video, "fmtp").as_deref(),
            Some(
                "96 profile-space=0;profile-id=1;tier-flag=0;level-id=150;\
                sprop-vps=QAEMAf//AWAAAAMAkAAAAwAAAwCWlZQJ;\
                sprop-sps=QgEBAWAAAAMAkAAAAwAAAwCWoAFQIAXxZZWVKTC8BaAgAAADACAAAAMCgQ==;\
                sprop-pps=RAHAc8GJ"
            )
        );
        assert_eq!((audio.media.as_str(), audio.fmt.as_str()), ("audio", "0"));
        assert_eq!(value(audio, "rtpmap").as_deref(), Some("0 PCMU/8000"));
        assert_eq!(value(audio, "fmtp"), None, "a static type needs none");
        assert_eq!(value(audio, "control").as_deref(), Some("trackID=1"));
    }

    #[test]
    fn channels_of_g711_only_where_there_are_several() {
        let name = |channels| encoding(&Parameters::G711 { law: Law::A, sample_rate: 16_000, channels });
        assert_eq!((name(1).as_str(), name(2).as_str()), ("PCMA/16000", "PCMA/16000/2"));
    }

    #[test]
    fn a_name_cannot_begin_a_line() {
        let text = Session { id: 1, name: "a\r\nm=video", media: Vec::new() }.to_string();
        assert!(text.contains("\r\ns=a  m=video\r\n"));
    }

    #[test]
    fn several_sets_are_listed_and_a_missing_vps_is_left_out() {
        let set = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let parameters = Parameters::H265 {
            vps: Bytes::new(),
            sps: set(b"M"),
            pps: vec![set(b"Ma"), set(b"Man")],
            width: 1,
            height: 1,
            profile_tier_level: ProfileTierLevel::default(),
            frame_rate: None,
        };
        let text = Media { parameters: &parameters, payload_type: 96, control: "t" }.to_string();
        assert!(text.contains("level-id=0;sprop-sps=TQ==;sprop-pps=TWE=,TWFu\r\n"), "{text}");
    }
}
