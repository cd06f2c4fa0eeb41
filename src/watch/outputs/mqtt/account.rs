//! How a connection to the broker begins: whom to connect to, as whom, and why it may fail.

use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::packet::{self, Connect, Incoming, Packet};
use super::stream::{self, Stream};
use super::tls::{self, Tls};
use crate::fs;

/// Seconds after which the broker takes a silent client for gone.
pub const KEEP_ALIVE: u16 = 30;
/// The broker has so long for an answer, and for all of a connection's beginning.
pub const ANSWER: Duration = Duration::from_secs(10);

/// Whom to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct Account {
    pub host: String,
    pub port: u16,
    /// None: plain TCP.
    pub tls: Option<Tls>,
    pub client_id: String,
    pub username: Option<String>,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
    /// Topic and payload that the broker publishes when the client is gone without a farewell.
    pub will: (String, String),
    /// Topic and payload of the message after which all retained ones are to be sent once more.
    pub birth: Option<(String, Vec<u8>)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect: {0}; is the broker up, and may this host reach it?")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the broker closed the connection before it had taken us{0}")]
    Closed(&'static str),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("cannot read mqtt.password-file {}: {source}", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("it refuses the user name or password (CONNACK {0}){1}: see mqtt.username and mqtt.password-file")]
    Credentials(u8, &'static str),
    #[error("it refuses the connection (CONNACK {0}): {1}")]
    Refused(u8, &'static str),
    #[error("no answer within {ANSWER:?}")]
    Silent,
    #[error(transparent)]
    Unexpected(#[from] packet::Unexpected),
}

/// A connection that the broker has accepted.
pub struct Connection {
    pub stream: Stream,
    pub incoming: Incoming,
}

impl Account {
    /// # Errors
    /// What stands in the way of a connection.
    pub fn connect(&self) -> Result<Connection, Error> {
        let password = self.password()?;
        let tls = self.tls.as_ref().map(|tls| tls.connection(&self.host)).transpose()?;
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(Error::Connect)?;
        let until = Instant::now() + ANSWER;
        let tcp = stream::connect(addresses, until).map_err(Error::Connect)?;
        let stream = Stream::new(tcp, tls).map_err(Error::Broken)?;
        let mut connection = Connection { stream, incoming: Incoming::default() };
        self.greet(&mut connection, password.as_deref(), until)?;
        Ok(connection)
    }

    fn password(&self) -> Result<Option<String>, Error> {
        /// More than a line of a password file is nothing that was meant.
        const MAX_PASSWORD: u64 = 64 << 10;
        let Some(path) = &self.password_file else { return Ok(None) };
        let text =
            fs::read_text(path, MAX_PASSWORD).map_err(|source| Error::Password { path: path.clone(), source })?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    /// CONNECT and its answer.
    fn greet(&self, connection: &mut Connection, password: Option<&str>, until: Instant) -> Result<(), Error> {
        let connect = Connect {
            client_id: &self.client_id,
            keep_alive: KEEP_ALIVE,
            will: (&self.will.0, self.will.1.as_bytes()),
            username: self.username.as_deref(),
            password: password.map(str::as_bytes),
        };
        connection.stream.queue(&connect.encode());
        let answer = match connection.packet(self, until) {
            Err(Error::Broken(e)) if is_end(&e) => return Err(Error::Closed(self.why_closed(&connection.stream))),
            other => other?,
        };
        match answer {
            Packet::ConnAck(0) => Ok(()),
            Packet::ConnAck(code @ (4 | 5)) => {
                let unsaid = self.username.is_some() && password.is_none();
                Err(Error::Credentials(code, if unsaid { ", and there is no password" } else { "" }))
            }
            Packet::ConnAck(1) => Err(Error::Refused(1, "it does not speak MQTT 3.1.1")),
            Packet::ConnAck(2) => Err(Error::Refused(2, "it does not take mqtt.node-id in a client id")),
            Packet::ConnAck(code) => Err(Error::Refused(code, "it is not available")),
            other => Err(packet::Unexpected(other.first()).into()),
        }
    }

    fn why_closed(&self, stream: &Stream) -> &'static str {
        match &self.tls {
            None => ": does it speak TLS on this port (mqtt.tls = true)?",
            Some(_) if stream.is_handshaking() => ": does it speak TLS on this port (8883 as a rule)?",
            Some(Tls { client: None, .. }) => ": does it want a client certificate (mqtt.client-cert-file)?",
            Some(_) => ": does it trust mqtt.client-cert-file?",
        }
    }

    /// What an error of the connection means.
    pub fn explain(&self, error: io::Error) -> Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (&self.tls, inner) {
            (Some(tls), Some(inner)) => tls.explain(inner).into(),
            _ => Error::Broken(error),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

impl Connection {
    /// The next packet.
    ///
    /// # Errors
    /// There is none by `until`, or the connection is broken.
    pub fn packet(&mut self, account: &Account, until: Instant) -> Result<Packet, Error> {
        loop {
            if let Some(packet) = self.incoming.packet()? {
                return Ok(packet);
            }
            self.stream.flush().map_err(|e| account.explain(e))?;
            if self.receive().map_err(|e| account.explain(e))? {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Silent);
            }
            self.stream.wait(None, left).map_err(Error::Broken)?;
        }
    }

    /// Takes a part of what has come; false: nothing has.
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.incoming.push(&buffer[..read]);
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
