//! The TLS identity: the operator's certificate, or a self-signed one that is made at the first start and kept in the
//! data folder. Agents without a certificate authority pin the key, so the key stays when the certificate is renewed.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::Tls;
use crate::error::{Error, Result};

/// Certificate and key, ready to serve.
#[derive(Clone, Debug)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: String,
    pin: Option<String>,
    self_signed: bool,
}

impl Identity {
    /// Loads the operator's files, or those in the data folder, which are made when missing.
    pub fn load_or_make(tls: &Tls, data_dir: &Path) -> Result<Self> {
        let (certificate, key, self_signed) = match (&tls.certificate, &tls.private_key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), false),
            _ => (data_dir.join("cert.pem"), data_dir.join("key.pem"), true),
        };
        if self_signed && !(certificate.exists() && key.exists()) {
            make(&certificate, &key, &tls.names)?;
        }
        Self::load(&certificate, &key, self_signed)
    }

    fn load(certificate: &Path, key: &Path, self_signed: bool) -> Result<Self> {
        let unreadable =
            |path: &Path, error: &dyn std::fmt::Display| Error::Tls(format!("{}: {error}", path.display()));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| unreadable(certificate, &error))?;
        let Some(leaf) = chain.first() else { return Err(unreadable(certificate, &"there is no certificate in it")) };
        let fingerprint = hexadecimal(ring::digest::digest(&ring::digest::SHA256, leaf).as_ref());
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
        let provider = Arc::new(default_provider());
        let certified = CertifiedKey::from_der(chain, key_der, &provider).map_err(|error| {
            Error::Tls(format!("{} and {} do not go together: {error}", certificate.display(), key.display()))
        })?;
        let pin = certified.key.public_key().map(|public| {
            let digest = ring::digest::digest(&ring::digest::SHA256, public.as_ref());
            format!("sha256/{}", STANDARD.encode(digest.as_ref()))
        });
        let resolver = rustls::sign::SingleCertAndKey::from(certified);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint, pin, self_signed })
    }

    /// SHA-256 of the certificate, as browsers show it: pairs of hexadecimal digits with colons.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// `sha256/BASE64` of the SubjectPublicKeyInfo: what an agent's configuration can pin.
    #[must_use]
    pub fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// True when the server made the certificate itself.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// Makes a self-signed certificate; a key that is there already is kept, so that pins stay true.
fn make(certificate: &Path, key: &Path, names: &[String]) -> Result<()> {
    let failed = |error: rcgen::Error| Error::Tls(format!("cannot make a certificate: {error}"));
    let pair = match fs::read_to_string(key) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| Error::Tls(format!("{}: {error}", key.display())))?,
        Err(_) => KeyPair::generate().map_err(failed)?,
    };
    let mut all = vec!["localhost".to_owned()];
    all.extend(host_name());
    all.extend(names.iter().cloned());
    all.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    all.dedup();
    for name in names {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'*'));
        if !(name.parse::<IpAddr>().is_ok() || (is_name && !name.is_empty())) {
            return Err(Error::Config(format!("tls.names = \"{name}\": must be a DNS name or an IP address")));
        }
    }
    let mut params = CertificateParams::new(all).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "camagent-cloud");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Cameras without a clock see this certificate before they see the time; the key is what they trust.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let made = params.self_signed(&pair).map_err(failed)?;
    if !key.exists() {
        write(key, pair.serialize_pem().as_bytes(), 0o600)?;
    }
    write(certificate, made.pem().as_bytes(), 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::Io { what: path.display().to_string(), source })
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    fits.then(|| name.to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_kept_and_the_key_is_private() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let tls = Tls { names: vec!["cloud.example".to_owned(), "192.0.2.1".to_owned()], ..Tls::default() };
        let first = Identity::load_or_make(&tls, folder.path()).expect("made");
        assert!(first.is_self_signed());
        let mode = fs::metadata(folder.path().join("key.pem")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Identity::load_or_make(&tls, folder.path()).expect("loaded");
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 95);
        fs::remove_file(folder.path().join("cert.pem")).expect("removed");
        let renewed = Identity::load_or_make(&tls, folder.path()).expect("renewed");
        assert_eq!(first.pin(), renewed.pin(), "the pin outlives the certificate");
        assert!(first.pin().is_some_and(|pin| pin.starts_with("sha256/") && pin.len() == 51));
    }

    #[test]
    fn an_operators_files_are_checked() {
        let folder = tempfile::tempdir().expect("temporary folder");
        Identity::load_or_make(&Tls::default(), folder.path()).expect("made");
        let other = tempfile::tempdir().expect("temporary folder");
        Identity::load_or_make(&Tls::default(), other.path()).expect("made");
        let tls = Tls {
            certificate: Some(folder.path().join("cert.pem")),
            private_key: Some(other.path().join("key.pem")),
            names: Vec::new(),
        };
        let error = Identity::load_or_make(&tls, folder.path()).expect_err("a stranger's key").to_string();
        assert!(error.contains("do not go together"), "{error}");
        let tls = Tls { certificate: Some("/nowhere/cert.pem".into()), ..tls };
        let error = Identity::load_or_make(&tls, folder.path()).expect_err("no file").to_string();
        assert!(error.contains("/nowhere/cert.pem"), "{error}");
    }
}
