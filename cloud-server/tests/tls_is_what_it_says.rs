//! The TLS listener: a client that trusts the certificate file gets in, one that trusts nothing does not.

mod support;

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn health(running: &Running, roots: RootCertStore, name: &'static str) -> std::io::Result<String> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(running.server.addresses().tls).await?;
    let name = ServerName::try_from(name).expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_in_the_data_folder_is_the_one_that_is_served() {
    let running = Running::start().await;
    let file = running.folder.path().join("cert.pem");
    let certificate = CertificateDer::from_pem_file(file).expect("made at the start");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    for name in ["localhost", "127.0.0.1"] {
        let response = health(&running, roots.clone(), name).await.expect("trusted");
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
    assert!(health(&running, roots, "elsewhere.example").await.is_err(), "another name");
    assert!(health(&running, RootCertStore::empty(), "localhost").await.is_err(), "a stranger");
}
