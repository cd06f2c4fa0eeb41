//! One connection, from the broker's acceptance to its end.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::account::{ANSWER, Error, KEEP_ALIVE};
use super::packet::{self, DISCONNECT, PINGREQ, Packet};
use super::queue::{Latest, Message, Shared};

/// Messages that are sent before the first of them is acknowledged.
const WINDOW: usize = 16;
/// Connections that may break while a message is under way; then it is given up.
pub const MAX_BREAKS: u8 = 2;

/// A message that was sent and not acknowledged.
struct Sent {
    id: u16,
    at: Instant,
    message: Message,
    retained: bool,
}

/// One connection, from CONNACK to its end.
pub struct Session<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    sent: VecDeque<Sent>,
    last_id: u16,
    last_sent: Instant,
    ping: Option<Instant>,
}

impl<'a> Session<'a> {
    pub fn new(stream: TcpStream, shared: &'a Shared) -> Result<Self, Error> {
        stream.set_nonblocking(true)?;
        shared.queue().latest.iter_mut().for_each(|latest| latest.unsent = latest.message.breaks < MAX_BREAKS);
        Ok(Session {
            stream,
            shared,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            sent: VecDeque::new(),
            last_id: 0,
            last_sent: Instant::now(),
            ping: None,
        })
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
                queue.events.push_front(message);
            }
        }
        (ended, given_up)
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let stop_by = self.fill();
            self.flush()?;
            let now = Instant::now();
            if let Some(by) = stop_by
                && (now >= by || (self.sent.is_empty() && self.outgoing.is_empty()))
            {
                self.outgoing.extend(DISCONNECT);
                self.flush()?;
                return Ok(());
            }
            let left = self.keep_alive(now, stop_by)?;
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !self.outgoing.is_empty());
            self.shared.wait(Some((&self.stream, flags)), left);
            self.receive()?;
        }
    }

    /// Puts what waits into the stream's buffer, as far as the window goes.
    fn fill(&mut self) -> Option<Instant> {
        let mut queue = self.shared.queue();
        let is_suspect = queue.is_suspect() || self.sent.iter().any(|sent| sent.message.breaks > 0);
        let window = if is_suspect { 1 } else { WINDOW };
        while self.sent.len() < window {
            let Some((message, retained)) = queue.next() else { break };
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            self.outgoing.extend(packet::publish(self.last_id, &message.topic, &message.payload, retained));
            self.sent.push_back(Sent { id: self.last_id, at: Instant::now(), message, retained });
        }
        queue.stop_by
    }

    fn flush(&mut self) -> Result<(), Error> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(0) => return Err(Error::Broken(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.outgoing.drain(..written);
                    self.last_sent = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Pings a broker that has heard nothing for long; gives how long nothing is due.
    fn keep_alive(&mut self, now: Instant, stop_by: Option<Instant>) -> Result<Duration, Error> {
        let every = Duration::from_secs(u64::from(KEEP_ALIVE)) / 2;
        if self.ping.is_none() && self.outgoing.is_empty() && now.duration_since(self.last_sent) >= every {
            self.outgoing.extend(PINGREQ);
            self.ping = Some(now);
            self.flush()?;
        }
        let asked = self.ping.into_iter().chain(self.sent.front().map(|sent| sent.at)).min();
        // While bytes of a large message still go out the broker owes no answer.
        let silent_at = asked.map(|at| at.max(self.last_sent) + ANSWER);
        if silent_at.is_some_and(|at| now >= at) {
            return Err(Error::Silent);
        }
        let quiet = self.ping.is_none() && self.outgoing.is_empty();
        let next_ping = if quiet { self.last_sent + every } else { now + every };
        let due = silent_at.into_iter().chain(stop_by).fold(next_ping, Instant::min);
        Ok(due.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    /// Takes what has come, a part of it from a broker that does not stop.
    fn receive(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 1024];
        for _ in 0..64 {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.incoming.extend(&buffer[..read]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
            while let Some((packet, len)) = packet::parse(&self.incoming)? {
                self.incoming.drain(..len);
                match packet {
                    Packet::PubAck(id) => self.sent.retain(|sent| sent.id != id),
                    Packet::PingResp => self.ping = None,
                    Packet::ConnAck(_) => return Err(packet::Unexpected(0x20).into()),
                    Packet::SubAck => return Err(packet::Unexpected(0x90).into()),
                    Packet::Publish(..) => return Err(packet::Unexpected(0x30).into()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::queue::Turn;
    use super::*;

    #[test]
    fn what_breaks_the_connection_twice_is_given_up_and_not_sent_again() {
        let shared = Shared::new().unwrap();
        let message = |topic: &str, breaks| Message { topic: topic.into(), payload: vec![0; 77], breaks };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let picture = Latest { message: message("picture", 1), turn: Turn::AfterEvents, unsent: false };
        shared.queue().latest.push(picture);
        let stream = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut session = Session::new(stream(), &shared).unwrap();
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
        let left: Vec<(String, u8)> =
            shared.queue().events.iter().map(|message| (message.topic.clone(), message.breaks)).collect();
        assert_eq!(left, [("first".to_owned(), 1)]);
        let again = Session::new(stream(), &shared).unwrap();
        assert!(!again.shared.queue().latest[0].unsent, "given up for good");
    }
}
