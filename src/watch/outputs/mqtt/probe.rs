//! One connection for `check`: what the broker retains, and whether it passes on what it is sent.

use std::time::{Duration, Instant};

use super::account::{ANSWER, Account, Error};
use super::packet::{self, DISCONNECT, PINGREQ, Packet};

/// More is nothing that was meant.
const MAX_FOUND: usize = 1000;
/// A message may come back so long after the answers to all else.
const ECHO: Duration = Duration::from_secs(2);

/// What was found out.
pub struct Probe {
    /// Topics and payloads that are retained.
    pub retained: Vec<(String, Vec<u8>)>,
    /// Whether the message came back. By MQTT 3.1.1 a broker acknowledges also what its access list makes it drop.
    pub echoed: bool,
    /// Whether others on the network could read along.
    pub is_exposed: bool,
}

/// Connects once, looks at what the broker retains under `BASE/+`, sends a message to `BASE/NAME` that is not retained, and
/// says farewell.
///
/// # Errors
/// What stands in the way of a connection.
pub fn probe(account: &Account, base: &str, name: &str) -> Result<Probe, Error> {
    let mut connection = account.connect()?;
    let topic = format!("{base}/{name}");
    connection.stream.queue(&packet::subscribe(1, &format!("{base}/+")));
    connection.stream.queue(&packet::publish(2, &topic, b"check", false));
    // What is retained comes with the subscription, and so before the answer to the ping.
    connection.stream.queue(&PINGREQ);
    let is_exposed = !connection.stream.is_encrypted() && !connection.stream.is_local();
    let mut probe = Probe { retained: Vec::new(), echoed: false, is_exposed };
    let (mut until, mut ponged) = (Instant::now() + ANSWER, false);
    while !(ponged && probe.echoed) {
        match connection.packet(account, until) {
            Ok(Packet::Publish { topic, payload, retained: true }) if probe.retained.len() < MAX_FOUND => {
                probe.retained.push((topic, payload));
            }
            Ok(Packet::Publish { topic: of, .. }) => probe.echoed |= of == topic,
            Ok(Packet::PingResp) => (ponged, until) = (true, Instant::now() + ECHO),
            Ok(_) => {}
            Err(Error::Silent) if ponged => break,
            Err(e) => return Err(e),
        }
    }
    connection.stream.queue(&DISCONNECT);
    connection.stream.close(Instant::now() + ECHO);
    Ok(probe)
}
