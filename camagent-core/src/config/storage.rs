//! `storage`: a folder on flash or a card for what memory does not hold ("edge storage").

use std::{path::PathBuf, time::Duration};

use super::{reader::Section, window::Window};
use crate::error::Error;

/// When frames are written to the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageMode {
    /// While there is no connection, and when more than half of the memory is taken.
    #[default]
    Spill,
    /// Always: a power cut costs [`Storage::sync_interval`] at most, and the card wears.
    WriteAhead,
}

/// A folder for frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The folder. It must be there: the agent does not create it, so that the mount point of a card that is not there stays empty.
    pub path: PathBuf,
    /// Bytes that the frames may take, 1 MiB to 4 TiB. Default 1 GiB, half an hour of 4 Mbit/s. Beyond, of the oldest only key frames and sound
    /// stay, then they go.
    pub max_bytes: u64,
    /// When it is written to. Default `Spill`.
    pub mode: StorageMode,
    /// What was written is made safe (`fdatasync`) at the latest after this time, 1 to 60 s, and after a mebibyte. A power cut costs what was not; each
    /// time costs the card some 20 KB of its file system's own. Default 1 s.
    pub sync_interval: Duration,
    /// The most bytes a second that are sent of what the folder holds. Default: what live frames leave of the uplink.
    pub backfill_rate: Option<u64>,
    /// The time of day, in the machine's time zone, in which it is sent. Default: any.
    pub backfill_window: Option<Window>,
}

/// What [`Storage::sync_interval`] is without another word.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Word {
    Off,
    On(StorageMode),
}

const MODES: &[(&str, Word)] =
    &[("spill", Word::On(StorageMode::Spill)), ("write_ahead", Word::On(StorageMode::WriteAhead)), ("off", Word::Off)];

pub(super) fn read(root: &Section<'_>) -> Result<Option<Storage>, Error> {
    let section = root.section("storage")?;
    let path = section.string("path")?;
    let max_bytes = section.integer("max_bytes", 1 << 20, 4 << 40)?.unwrap_or(1 << 30);
    let mode = section.one_of("mode", MODES)?.unwrap_or(Word::On(StorageMode::Spill));
    let sync_interval = section.integer("sync_interval", 1, 60)?.map_or(SYNC_INTERVAL, Duration::from_secs);
    let backfill_rate = section.integer("backfill_rate", 1_024, 1 << 30)?;
    let backfill_window = section.string("backfill_window")?.map(|text| Window::parse(&text));
    if backfill_window == Some(None) {
        return Err(section.wrong("backfill_window", "HH:MM-HH:MM, for example 22:00-06:00"));
    }
    section.finish();
    match (path, mode) {
        (_, Word::Off) | (None, _) => Ok(None),
        (Some(path), Word::On(mode)) if path.starts_with('/') && !path.contains('\0') => Ok(Some(Storage {
            path: path.into(),
            max_bytes,
            mode,
            sync_interval,
            backfill_rate,
            backfill_window: backfill_window.flatten(),
        })),
        _ => Err(section.wrong("path", "the absolute path of a folder that is there")),
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::Retention;

    use super::*;
    use crate::config::Config;

    fn with(storage: &str) -> Result<Config, Error> {
        let agent = r#""agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t""#;
        Config::from_json(&format!("{{\"agent\":{{{agent}}}{storage}}}"))
    }

    #[test]
    fn a_folder_makes_frames_worth_keeping() {
        assert_eq!(with("").unwrap().storage, None);
        assert_eq!(with("").unwrap().cameras[0].sources[0].retention, Retention::Live);
        let config = with(r#","storage":{"path":"/mnt/sd"}"#).unwrap();
        let storage = Storage {
            path: "/mnt/sd".into(),
            max_bytes: 1 << 30,
            mode: StorageMode::Spill,
            sync_interval: Duration::from_secs(1),
            backfill_rate: None,
            backfill_window: None,
        };
        assert_eq!(config.storage, Some(storage));
        assert_eq!(config.cameras[0].sources[0].retention, Retention::Record);
        let ahead =
            with(r#","storage":{"path":"/mnt/sd","max_bytes":1048576,"mode":"write_ahead","backfill_rate":50000}"#);
        let ahead = ahead.unwrap().storage.unwrap();
        assert_eq!((ahead.mode, ahead.backfill_rate), (StorageMode::WriteAhead, Some(50_000)));
        let spared = with(r#","storage":{"path":"/mnt/sd","sync_interval":5}"#).unwrap().storage.unwrap();
        assert_eq!(spared.sync_interval, Duration::from_secs(5));
        let night = with(r#","storage":{"path":"/mnt/sd","backfill_window":"22:00-06:00"}"#).unwrap().storage.unwrap();
        assert_eq!(night.backfill_window, Window::parse("22:00-06:00"));
        assert_eq!(with(r#","storage":{"path":"/mnt/sd","mode":"off"}"#).unwrap().storage, None);
        for (wrong, allowed) in [
            (r#","storage":{"path":"sd"}"#, "absolute path"),
            (r#","storage":{"path":"/a","max_bytes":5}"#, "1048576"),
            (r#","storage":{"path":"/a","backfill_rate":1}"#, "from 1024"),
            (r#","storage":{"path":"/a","sync_interval":0}"#, "from 1"),
            (r#","storage":{"path":"/a","backfill_window":"night"}"#, "HH:MM-HH:MM"),
            (r#","storage":{"path":"/a","mode":"always"}"#, "spill, write_ahead, off"),
        ] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("storage.") && error.contains(allowed), "{error}");
        }
    }
}
