//! One connection, from the broker's acceptance to its end.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::account::{ANSWER, Account, Connection, Error, KEEP_ALIVE};
use super::packet::{self, DISCONNECT, PINGREQ, Packet};
use super::queue::{Latest, MAX_BREAKS, Message, Shared};

/// Messages that are sent before the first of them is acknowledged.
const WINDOW: usize = 16;
/// The packet id of the subscription.
const SUBSCRIBE: u16 = 1;
/// The announcement after a birth message is put off by up to so many milliseconds, so that not all clients of a broker
/// send at once.
const MAX_DELAY: u64 = 3000;

/// A message that was sent and not acknowledged.
struct Sent {
    id: u16,
    at: Instant,
    message: Message,
    retained: bool,
}

/// One connection, from CONNACK to its end.
pub struct Session<'a> {
    account: &'a Account,
    connection: Connection,
    shared: &'a Shared,
    sent: VecDeque<Sent>,
    last_id: u16,
    last_sent: Instant,
    ping: Option<Instant>,
    announce_at: Option<Instant>,
}

impl<'a> Session<'a> {
    pub fn new(account: &'a Account, mut connection: Connection, shared: &'a Shared) -> Self {
        shared.queue().announce(true);
        if let Some((topic, _)) = &account.birth {
            connection.stream.queue(&packet::subscribe(SUBSCRIBE, topic));
        }
        let last_sent = Instant::now();
        let sent = VecDeque::new();
        Session { account, connection, shared, sent, last_id: SUBSCRIBE, last_sent, ping: None, announce_at: None }
    }

    /// Until the daemon stops, or the connection does: then what was not acknowledged goes back into the queue, and what
    /// is given up is returned.
    pub fn run(mut self) -> (Result<(), Error>, Vec<Message>) {
        let ended = self.serve();
        let (mut queue, mut given_up) = (self.shared.queue(), Vec::new());
        for Sent { mut message, retained, .. } in self.sent.drain(..).rev() {
            message.breaks += u8::from(ended.is_err());
            if message.breaks >= MAX_BREAKS {
                given_up.push(message.clone());
            }
            if retained {
                let same = |latest: &&mut Latest| latest.message.topic == message.topic && !latest.unsent;
                if let Some(latest) = queue.latest.iter_mut().find(same) {
                    latest.message.breaks = message.breaks;
                }
            } else if message.breaks < MAX_BREAKS {
                queue.give_back(message);
            }
        }
        drop(queue);
        match ended {
            Ok(until) => {
                self.connection.stream.close(until);
                (Ok(()), given_up)
            }
            Err(e) => (Err(e), given_up),
        }
    }

    /// Until the daemon stops; gives how long the farewell may take.
    fn serve(&mut self) -> Result<Instant, Error> {
        // Something may have come with the acceptance.
        let mut more = true;
        loop {
            let now = Instant::now();
            if self.announce_at.is_some_and(|at| now >= at) {
                self.announce_at = None;
                self.shared.queue().announce(false);
            }
            let stop_by = self.fill();
            self.flush()?;
            let is_idle = self.sent.is_empty() && self.connection.stream.is_flushed();
            if let Some(by) = stop_by
                && (now >= by || is_idle)
            {
                self.connection.stream.queue(&DISCONNECT);
                return Ok(by);
            }
            let left = self.keep_alive(now, stop_by)?;
            self.shared.wait(Some(&self.connection.stream), if more { Duration::ZERO } else { left });
            more = self.receive()?;
        }
    }

    /// Gives the stream what waits, as far as the window goes.
    fn fill(&mut self) -> Option<Instant> {
        let mut queue = self.shared.queue();
        let is_suspect = queue.is_suspect() || self.sent.iter().any(|sent| sent.message.breaks > 0);
        let window = if is_suspect { 1 } else { WINDOW };
        while self.sent.len() < window {
            let Some((message, retained)) = queue.next() else { break };
            self.last_id = self.last_id.checked_add(1).unwrap_or(SUBSCRIBE + 1);
            let publish = packet::publish(self.last_id, &message.topic, &message.payload, retained);
            self.connection.stream.queue(&publish);
            self.sent.push_back(Sent { id: self.last_id, at: Instant::now(), message, retained });
        }
        queue.stop_by
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.connection.stream.flush().map_err(|e| self.account.explain(e))? {
            self.last_sent = Instant::now();
        }
        Ok(())
    }

    /// Pings a broker that has heard nothing for long; gives how long nothing is due.
    fn keep_alive(&mut self, now: Instant, stop_by: Option<Instant>) -> Result<Duration, Error> {
        let every = Duration::from_secs(u64::from(KEEP_ALIVE)) / 2;
        if self.ping.is_none() && self.connection.stream.is_flushed() && now.duration_since(self.last_sent) >= every {
            self.connection.stream.queue(&PINGREQ);
            self.ping = Some(now);
            self.flush()?;
        }
        let asked = self.ping.into_iter().chain(self.sent.front().map(|sent| sent.at)).min();
        // While bytes of a large message still go out the broker owes no answer.
        let silent_at = asked.map(|at| at.max(self.last_sent) + ANSWER);
        if silent_at.is_some_and(|at| now >= at) {
            return Err(Error::Silent);
        }
        let quiet = self.ping.is_none() && self.connection.stream.is_flushed();
        let next_ping = if quiet { self.last_sent + every } else { now + every };
        let due = silent_at.into_iter().chain(stop_by).chain(self.announce_at).fold(next_ping, Instant::min);
        Ok(due.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    /// Takes what has come; of a broker that does not stop a part of it, and then true: there may be more that is not in
    /// the socket any longer.
    fn receive(&mut self) -> Result<bool, Error> {
        for _ in 0..64 {
            if !self.connection.receive().map_err(|e| self.account.explain(e))? {
                return Ok(false);
            }
            while let Some(packet) = self.connection.incoming.packet()? {
                self.take(packet)?;
            }
        }
        Ok(true)
    }

    fn take(&mut self, packet: Packet) -> Result<(), Error> {
        match (packet, &self.account.birth) {
            (Packet::PubAck(id), _) => self.sent.retain(|sent| sent.id != id),
            (Packet::PingResp, _) => self.ping = None,
            (Packet::SubAck(true) | Packet::TooLong, Some(_)) => {}
            (Packet::SubAck(false), Some((topic, _))) => log::warn!(
                "the MQTT broker does not let us subscribe to {topic}: Home Assistant is not told again when it starts"
            ),
            (Packet::Publish { topic, payload, retained }, Some(birth)) => {
                // One that is retained came before all was announced to this connection.
                if !retained && topic == birth.0 && payload == birth.1 && self.announce_at.is_none() {
                    let delay = Duration::from_millis(RandomState::new().hash_one(0) % MAX_DELAY);
                    self.announce_at = Some(Instant::now() + delay);
                }
            }
            (packet, _) => return Err(packet::Unexpected(packet.first()).into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::packet::Incoming;
    use super::super::queue::Turn;
    use super::super::stream::Stream;
    use super::*;

    #[test]
    fn what_breaks_the_connection_twice_is_given_up_and_not_sent_again() {
        let shared = Shared::new().unwrap();
        let message = |topic: &str, breaks| Message { topic: topic.into(), payload: vec![0; 77], breaks };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let picture = Latest { message: message("picture", 1), turn: Turn::AfterEvents, unsent: false };
        shared.queue().latest.push(picture);
        let account = Account {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            tls: None,
            client_id: "c".into(),
            username: None,
            password_file: None,
            will: ("a".into(), "offline".into()),
            birth: None,
        };
        let connection = || {
            let tcp = TcpStream::connect((account.host.as_str(), account.port)).unwrap();
            Connection { stream: Stream::new(tcp, None).unwrap(), incoming: Incoming::default() }
        };
        let mut session = Session::new(&account, connection(), &shared);
        let sent = |id, message, retained| Sent { id, at: Instant::now(), message, retained };
        session.sent.extend([sent(1, message("first", 0), false), sent(2, message("second", 1), false)]);
        let (picture, retained) = shared.queue().next().unwrap();
        session.sent.push_back(sent(3, picture, retained));
        drop(listener.accept().unwrap());
        let (ended, given_up) = session.run();
        assert!(ended.is_err());
        let given_up: Vec<&str> = given_up.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(given_up, ["picture", "second"]);
        assert!(shared.queue().is_suspect(), "the first goes alone");
        let again = Session::new(&account, connection(), &shared);
        assert!(!again.shared.queue().latest[0].unsent, "given up for good");
        let left: Vec<(String, u8)> =
            shared.queue().take_events().into_iter().map(|message| (message.topic, message.breaks)).collect();
        assert_eq!(left, [("first".to_owned(), 1)]);
    }
}
