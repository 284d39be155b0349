//! Names of agents, cameras and sources: what they may look like.
//!
//! They stand in URLs, file names and log lines, so they are 1 to 64 of `A-Z a-z 0-9 . _ -`, and begin with a letter or digit.

use alloc::format;

use crate::{error::Error, frame::MAX_NAME};

/// Whether `name` may name an agent, a camera or a source.
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// [`is_name`] as a protocol error.
pub fn check_name(name: &str, place: &'static str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::Violation {
        place,
        expected: "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
        got: format!("{:?}", name.chars().take(80).collect::<alloc::string::String>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_urls_and_paths() {
        assert!(is_name("dahua-2449s-il-001") && is_name("main") && is_name("0.1_b"));
        for wrong in ["", ".", "..", "-x", "a/b", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
