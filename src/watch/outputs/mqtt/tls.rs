//! TLS to a broker: rustls with ring, certificates and keys from files, and what went wrong in words.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::fs;

/// All CA certificates of a system are a tenth of it.
const MAX_PEM: u64 = 4 << 20;

/// What the config says of TLS. The files are read at every connection, so that renewed ones need no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// None: the system's CA certificates.
    pub ca: Option<PathBuf>,
    /// Our certificate with those of its issuers, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {key} {}: {reason}", path.display())]
    File { key: &'static str, path: PathBuf, reason: String },
    #[error("this machine has no CA certificates{0}: install the package ca-certificates, or name mqtt.ca-file")]
    NoCa(String),
    #[error("mqtt.client-key-file {} is not the key of mqtt.client-cert-file {}: {reason}", key.display(), cert.display())]
    Client { cert: PathBuf, key: PathBuf, reason: rustls::Error },
    #[error("mqtt.host = {0:?} is no name that a certificate could be for")]
    Name(String),
    #[error("{0}")]
    Handshake(String),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

impl Tls {
    /// The client's half of a connection to a host.
    ///
    /// # Errors
    /// A file cannot be read or holds something else.
    pub fn connection(&self, host: &str) -> Result<ClientConnection, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Name(host.to_owned()))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates("mqtt.client-cert-file", cert)?;
                let wrong = |reason| Error::Client { cert: cert.clone(), key: key.clone(), reason };
                config.with_client_auth_cert(chain, private_key(key)?).map_err(wrong)?
            }
        };
        // Each connection has a config of its own.
        config.resumption = Resumption::disabled();
        Ok(ClientConnection::new(Arc::new(config), name)?)
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            let why = found.errors.first().map(|e| format!(" ({e})")).unwrap_or_default();
            return if added > 0 { Ok(roots) } else { Err(Error::NoCa(why)) };
        };
        for certificate in certificates("mqtt.ca-file", path)? {
            let unusable = |e| Error::File { key: "mqtt.ca-file", path: path.clone(), reason: format!("{e}") };
            roots.add(certificate).map_err(unusable)?;
        }
        Ok(roots)
    }

    /// What an error of rustls means to who wrote the config. Times are compared with this machine's clock.
    pub fn explain(&self, error: &rustls::Error) -> Error {
        let text = match error {
            rustls::Error::InvalidCertificate(e) => self.certificate(e, UnixTime::now()),
            rustls::Error::AlertReceived(alert) => self.alert(*alert),
            rustls::Error::InvalidMessage(_) => {
                "what answers does not speak TLS: mqtt.port must be the port of TLS (8883 as a rule)".into()
            }
            other => format!("TLS: {other}"),
        };
        Error::Handshake(text)
    }

    fn certificate(&self, error: &CertificateError, now: UnixTime) -> String {
        let clock = date(now);
        match error {
            CertificateError::Expired => format!("its certificate has expired; it is {clock} by this machine's clock"),
            CertificateError::ExpiredContext { not_after, .. } => {
                let end = date(*not_after);
                format!("its certificate has expired on {end}: renew it (it is {clock} by this machine's clock)")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let from = match error {
                    CertificateError::NotValidYetContext { not_before, .. } => format!(" before {}", date(*not_before)),
                    _ => " yet".into(),
                };
                format!(
                    "its certificate is not valid{from}, and it is {clock} by this machine's clock: a board without a \
                     battery for its clock starts in the past until it has the time from the network; see `timedatectl`"
                )
            }
            CertificateError::UnknownIssuer => {
                let held = match &self.ca {
                    Some(path) => format!("mqtt.ca-file {}", path.display()),
                    None => "this machine's CA certificates".into(),
                };
                let hint = if self.ca.is_some() { "it" } else { "mqtt.ca-file" };
                format!("its certificate is of a CA that is not in {held}: {hint} must hold the certificate of that CA")
            }
            CertificateError::NotValidForName => "its certificate is for another name than mqtt.host".into(),
            CertificateError::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                match presented.as_slice() {
                    [] => format!("its certificate names no host (subjectAltName), mqtt.host is {expected}"),
                    names => {
                        // As rustls has them: DnsName("a.b").
                        let bare = |name: &String| {
                            let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
                            inner.trim_end_matches(')').trim_matches('"').to_owned()
                        };
                        let names = names.iter().map(bare).collect::<Vec<_>>().join(", ");
                        format!("its certificate is for {names}, mqtt.host is {expected}")
                    }
                }
            }
            other => {
                let other = format!("{other:?}");
                // What `openssl x509 -req` makes without -extfile.
                let hint = match other.contains("UnsupportedCertVersion") {
                    true => ": it must be of X.509 version 3, with a subjectAltName",
                    false => "",
                };
                format!("its certificate is not taken ({other}){hint}")
            }
        }
    }

    fn alert(&self, alert: AlertDescription) -> String {
        use AlertDescription as A;
        let of_client = match alert {
            A::CertificateRequired | A::BadCertificate | A::UnsupportedCertificate | A::CertificateRevoked => true,
            A::CertificateExpired | A::CertificateUnknown | A::UnknownCA | A::AccessDenied => true,
            // Of TLS 1.2, for no certificate among other things.
            A::HandshakeFailure => self.client.is_none(),
            _ => false,
        };
        match &self.client {
            _ if !of_client => format!("it ends the TLS connection ({alert:?})"),
            None => {
                format!("it wants a client certificate ({alert:?}): see mqtt.client-cert-file and mqtt.client-key-file")
            }
            Some((cert, _)) => format!(
                "it refuses mqtt.client-cert-file {} ({alert:?}): is it still valid, and of a CA that the broker trusts?",
                cert.display()
            ),
        }
    }
}

fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path, MAX_PEM).map_err(|e| Error::File { key, path: path.to_owned(), reason: e.to_string() })
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(key, path)?;
    let failed = |reason: String| Error::File { key, path: path.to_owned(), reason };
    let found =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| failed(e.to_string()))?;
    match found.is_empty() {
        true => Err(failed("there is no certificate (PEM) in it".into())),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let key = "mqtt.client-key-file";
    let pem = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
        let encrypted = pem.windows(21).any(|text| text == b"ENCRYPTED PRIVATE KEY");
        let reason = match e {
            pem::Error::NoItemsFound if encrypted => {
                "it is encrypted; `openssl pkey -in FILE -out PLAIN` writes one that is not".into()
            }
            pem::Error::NoItemsFound => "there is no private key (PEM) in it".into(),
            other => other.to_string(),
        };
        Error::File { key, path: path.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_1970_is_named_where_a_certificate_is_not_valid_yet() {
        let tls = Tls { ca: None, client: None };
        let time = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let error = CertificateError::NotValidYetContext { time: time(77), not_before: time(1_750_000_000) };
        let text = tls.certificate(&error, time(77));
        assert!(
            text.starts_with(
                "its certificate is not valid before 2025-06-15T15:06:40Z, and it is 1970-01-01T00:01:17Z"
            )
        );
        assert!(text.contains("clock") && text.contains("timedatectl"), "{text}");
    }

    #[test]
    fn alerts_about_our_certificate_name_its_file() {
        let without = Tls { ca: None, client: None };
        let with = Tls { client: Some(("c.pem".into(), "k.pem".into())), ..without.clone() };
        assert!(without.alert(AlertDescription::CertificateRequired).starts_with("it wants a client certificate"));
        assert!(
            with.alert(AlertDescription::UnknownCA).starts_with("it refuses mqtt.client-cert-file c.pem (UnknownCA)")
        );
        assert!(with.alert(AlertDescription::HandshakeFailure).starts_with("it ends the TLS connection"));
    }
}
