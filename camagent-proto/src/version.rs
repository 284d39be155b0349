//! Versions of the protocol and how one is picked.
//!
//! The WebSocket sub-protocol names the family, `register` lists the versions an agent speaks, `registered` names the one
//! that the server picked. Within a version unknown fields, messages and even-numbered frames are skipped, so most additions need no new one.

/// The WebSocket sub-protocol (RFC 6455 section 1.9) that both ends ask for.
pub const SUBPROTOCOL: &str = "camagent.v1";

/// The versions that this crate speaks, best first.
pub const SUPPORTED: &[u32] = &[1];

/// The best version that is in both lists, `None` when there is none.
pub fn pick(offered: &[u32]) -> Option<u32> {
    SUPPORTED.iter().copied().find(|version| offered.contains(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_version_is_picked() {
        assert_eq!(pick(&[7, 1]), Some(1));
        assert_eq!(pick(&[2, 3]), None);
        assert_eq!(pick(&[]), None);
    }
}
