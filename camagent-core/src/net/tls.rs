//! TLS by rustls with ring: whom to believe, and by which clock.
//!
//! A camera wakes up in 1970. Certificates are therefore judged at the latest of: the system's clock, the date of this build, and the time that the
//! server last told over an authenticated session.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use camagent_proto::Instant;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use super::base64::Base64;
use crate::{clock, config::Trust, error::Error};

/// The latest time that is known to have passed.
#[derive(Debug, Default)]
pub(crate) struct ServerTime(Mutex<Option<(Duration, Instant)>>);

impl ServerTime {
    /// The server said that it was `unix_ms` when the agent's clock showed `at`.
    pub(crate) fn told(&self, unix_ms: u64, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Duration::from_millis(unix_ms), at));
    }

    fn now(&self) -> Duration {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let told = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.map(|(time, at)| time + clock::now().saturating_since(at)).unwrap_or_default();
        system.max(build_time()).max(told)
    }
}

/// When this was built, since 1970: it is later than that.
pub(crate) fn build_time() -> Duration {
    Duration::from_secs(env!("CAMAGENT_BUILD_EPOCH").parse().unwrap_or(0))
}

impl TimeProvider for ServerTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.now()))
    }
}

/// What a TLS connection needs besides the socket.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    #[cfg(feature = "doctor")]
    verifier: Arc<dyn ServerCertVerifier>,
    #[cfg(feature = "doctor")]
    time: Arc<ServerTime>,
}

impl Tls {
    /// Reads certificates once, at the start.
    pub(crate) fn new(trust: &Trust, time: Arc<ServerTime>) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let broken = |error: rustls::Error| Error::Tls(error.to_string());
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::Pin(pin) => {
                Arc::new(PinnedKey { pin: *pin, algorithms: provider.signature_verification_algorithms })
            }
            _ => WebPkiServerVerifier::builder_with_provider(Arc::new(roots(trust)?), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::Tls(error.to_string()))?,
        };
        #[cfg(feature = "doctor")]
        let (doctors_verifier, doctors_time) = (Arc::clone(&verifier), Arc::clone(&time));
        let config = ClientConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            #[cfg(feature = "doctor")]
            verifier: doctors_verifier,
            #[cfg(feature = "doctor")]
            time: doctors_time,
        })
    }

    /// Whether the chain would be believed so much later: how near its end is, without a parser of our own.
    #[cfg(feature = "doctor")]
    pub(crate) fn believes_after(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>, later: Duration) -> bool {
        let Some((end_entity, intermediates)) = chain.split_first() else { return false };
        let then = UnixTime::since_unix_epoch(self.time.now() + later);
        self.verifier.verify_server_cert(end_entity, intermediates, name, &[], then).is_ok()
    }

    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        Arc::clone(&self.config).into()
    }
}

/// ring, with the cheapest suite first: ChaCha20 where the processor has no AES, because it is two to three times as fast there, and AES with the
/// shorter key where it has.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let first = if has_aes() { "AES_128" } else { "CHACHA20" };
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains(first));
    provider
}

fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    false
}

fn roots(trust: &Trust) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::CaFile(path) => {
            let pem = fs::read(path).map_err(Error::io(format!("cannot read the CA file {path}")))?;
            add_pem(&mut store, &pem, path)?;
        }
        Trust::CaPem(pem) => add_pem(&mut store, pem, "the given CA")?,
        Trust::Roots | Trust::Pin(_) => {
            #[cfg(feature = "bundled-roots")]
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            #[cfg(feature = "system-roots")]
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::Tls(
                    "no certificate authorities found on this system: set agent.ca_file or agent.server_pin".into(),
                ));
            }
        }
    }
    Ok(store)
}

fn add_pem(store: &mut RootCertStore, pem: &[u8], place: &str) -> Result<(), Error> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| store.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| Error::Tls(format!("{place}: not a certificate: {error}")))?;
    }
    if store.is_empty() {
        return Err(Error::Tls(format!("{place}: no certificate in it, PEM is expected")));
    }
    Ok(())
}

/// Believes exactly one key, whatever else the certificate says.
#[derive(Debug)]
struct PinnedKey {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bad = || rustls::Error::from(CertificateError::BadEncoding);
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(|_| bad())?;
        let hash = ring_digest(certificate.subject_public_key_info().as_ref());
        if hash == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            let what =
                format!("the server's key is not the one that agent.server_pin names, it is sha256/{}", Base64(&hash));
            Err(rustls::Error::General(what))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn ring_digest(octets: &[u8]) -> [u8; 32] {
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, octets);
    std::array::from_fn(|at| digest.as_ref()[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_certificate_is_judged_before_the_build() {
        let time = ServerTime::default();
        let built = Duration::from_secs(env!("CAMAGENT_BUILD_EPOCH").parse().unwrap());
        assert!(built > Duration::ZERO && time.now() >= built);
        let future = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(86_400);
        time.told(future.as_millis() as u64, clock::now());
        assert!(time.now().as_secs() >= future.as_secs(), "the server's time counts when it is later");
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hello").unwrap();
        let path = file.path().display().to_string();
        let error = Tls::new(&Trust::CaFile(path.clone()), Arc::default()).unwrap_err().to_string();
        assert!(error.contains(&path) && error.contains("PEM"), "{error}");
        assert!(Tls::new(&Trust::CaFile("/nowhere".into()), Arc::default()).is_err());
    }
}
