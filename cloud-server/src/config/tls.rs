//! `[tls]`: the certificate of the TLS listener.

use std::path::PathBuf;

use super::reader::{Section, quoted};
use crate::error::{Error, Result};

/// The operator's certificate, or the names of the one the server makes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first. Without it the server makes a self-signed one in the data folder.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key.
    pub private_key: Option<PathBuf>,
    /// Names and addresses beside localhost, the host's name, 127.0.0.1 and ::1 that the self-signed certificate carries.
    /// They count when it is made: delete cert.pem and key.pem in the data folder to have a new one.
    pub names: Vec<String>,
}

impl Tls {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            certificate: section.text("certificate").map(PathBuf::from),
            private_key: section.text("private_key").map(PathBuf::from),
            names: section.texts("names"),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| quoted(&path.as_deref().unwrap_or("".as_ref()).to_string_lossy());
        let names: Vec<_> = self.names.iter().map(|name| quoted(name)).collect();
        vec![
            ("certificate", path(&self.certificate)),
            ("private_key", path(&self.private_key)),
            ("names", format!("[{}]", names.join(", "))),
        ]
    }

    pub(super) fn check(&self) -> Result<()> {
        match (&self.certificate, &self.private_key) {
            (Some(path), None) => Err(Error::Config(format!(
                "tls.certificate = \"{}\": needs tls.private_key, the PEM file of its key",
                path.display()
            ))),
            (None, Some(path)) => Err(Error::Config(format!(
                "tls.private_key = \"{}\": needs tls.certificate, the PEM file of its certificate",
                path.display()
            ))),
            _ => Ok(()),
        }
    }
}
