//! How a connection to the broker begins: whom to connect to, as whom, and why it may fail.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::packet::{self, Connect, DISCONNECT, PINGREQ, Packet};
use super::queue::CAPACITY;
use crate::fs;

/// Seconds after which the broker takes a silent client for gone.
pub const KEEP_ALIVE: u16 = 30;
/// The broker has so long for a connection, and for an answer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// Whom to connect to, and as whom.
#[derive(Debug, Clone)]
pub struct Account {
    pub host: String,
    pub port: u16,
    pub client_id: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Topic and payload that the broker publishes when the client is gone without a farewell.
    pub will: (String, String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect: {0}; is the broker up, and may this host reach it?")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("cannot read mqtt.password-file {}: {source}", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("it refuses the user name or password (CONNACK {0}): see mqtt.username and mqtt.password-file")]
    Credentials(u8),
    #[error("it refuses the connection (CONNACK {0}): {1}")]
    Refused(u8, &'static str),
    #[error("no answer within {ANSWER:?}")]
    Silent,
    #[error(transparent)]
    Unexpected(#[from] packet::Unexpected),
}

/// Connects once, looks at what the broker retains under a topic filter, and says farewell.
///
/// # Errors
/// What stands in the way of a connection.
pub fn look(account: &Account, filter: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut stream = connect(account)?;
    // What is retained comes with the subscription, and so before the answer to the ping.
    stream.write_all(&[&packet::subscribe(1, filter)[..], &PINGREQ].concat())?;
    let (mut incoming, mut found, mut buffer) = (Vec::new(), Vec::new(), [0; 1024]);
    let until = Instant::now() + ANSWER;
    loop {
        while let Some((packet, len)) = packet::parse(&incoming)? {
            incoming.drain(..len);
            match packet {
                Packet::Publish(topic, payload) if found.len() < CAPACITY => found.push((topic, payload)),
                Packet::PingResp => {
                    stream.write_all(&DISCONNECT)?;
                    return Ok(found);
                }
                _ => {}
            }
        }
        match stream.read(&mut buffer) {
            _ if Instant::now() > until => return Err(Error::Silent),
            Ok(0) => return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => incoming.extend(&buffer[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(silence(e)),
        }
    }
}

/// A connection that the broker has accepted.
///
/// # Errors
/// What stands in the way of one.
pub fn connect(account: &Account) -> Result<TcpStream, Error> {
    let mut stream = open(account)?;
    greet(&mut stream, account)?;
    Ok(stream)
}

fn silence(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent,
        _ => Error::Broken(error),
    }
}

fn open(account: &Account) -> Result<TcpStream, Error> {
    let mut last = io::Error::other("the name has no address");
    for address in (account.host.as_str(), account.port).to_socket_addrs().map_err(Error::Connect)? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(Error::Connect(last))
}

/// More than a line of a password file is nothing that was meant.
const MAX_PASSWORD: u64 = 64 << 10;

/// CONNECT and its answer.
fn greet(stream: &mut TcpStream, account: &Account) -> Result<(), Error> {
    let password = match &account.password_file {
        Some(path) => {
            let text =
                fs::read_text(path, MAX_PASSWORD).map_err(|source| Error::Password { path: path.clone(), source })?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None => None,
    };
    let connect = Connect {
        client_id: &account.client_id,
        keep_alive: KEEP_ALIVE,
        will: (&account.will.0, account.will.1.as_bytes()),
        username: account.username.as_deref(),
        password: password.as_ref().map(|password| password.as_bytes()),
    };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(&connect.encode())?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).map_err(silence)?;
    match packet::parse(&answer)? {
        Some((Packet::ConnAck(0), _)) => Ok(()),
        Some((Packet::ConnAck(code @ (4 | 5)), _)) => Err(Error::Credentials(code)),
        Some((Packet::ConnAck(1), _)) => Err(Error::Refused(1, "it does not speak MQTT 3.1.1")),
        Some((Packet::ConnAck(2), _)) => Err(Error::Refused(2, "it does not take mqtt.node-id in a client id")),
        Some((Packet::ConnAck(code), _)) => Err(Error::Refused(code, "it is not available")),
        _ => Err(packet::Unexpected(answer[0]).into()),
    }
}
