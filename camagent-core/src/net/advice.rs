//! What to do about a TLS handshake that failed, for the person who reads the log or the doctor's report.
//!
//! What does not belong here: whom to believe (`tls`), and what other steps of the way to a server say (`doctor`).

use std::io;

use rustls::CertificateError;

/// What to do about a handshake with the server `host` that failed.
pub(crate) fn tls_advice(host: &str, error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let pin = "`camagent-cloud` prints its pin when it starts: agent.server_pin";
    match inner {
        Some(rustls::Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::UnknownIssuer => {
                format!("no known authority made this certificate: name it in agent.ca_file, or pin the server's key ({pin})")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "the certificate is for another name than {host}: write its name into agent.cloud_server_url, or pin the server's key ({pin})"
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew the server's certificate; if it is good, the clock of this machine is wrong".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the clock of this machine is wrong, or the certificate was made with a wrong one".into()
            }
            _ => format!("the server's certificate is not usable: replace it, or pin the server's key ({pin})"),
        },
        // What the pinned verifier says.
        Some(rustls::Error::General(_)) => {
            "either the server has a new key, then its pin goes into agent.server_pin, or this is another server: compare with what `camagent-cloud` prints at its start".into()
        }
        Some(rustls::Error::InvalidMessage(_)) => "what answers there speaks no TLS: is this the server's `tls` port? Its `http` port takes ws:// only".into(),
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(_)) => {
            "the server refuses this agent's TLS: it must offer TLS 1.3".into()
        }
        _ => "the connection broke during the handshake: a firewall that inspects TLS, or no TLS server".into(),
    }
}
