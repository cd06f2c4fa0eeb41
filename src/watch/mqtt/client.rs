//! A connection that is kept up: a thread sends what is queued with QoS 1 and holds each message until the broker has
//! acknowledged it. A lost connection is opened again with back-off, and what was not acknowledged is sent again, so
//! that a message arrives at least once. What was under way when a connection broke is sent alone the next time; what breaks
//! it again, such as a picture larger than the broker takes, is given up.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::packet::{self, Connect, DISCONNECT, PINGREQ, Packet};
use crate::fs;

/// Messages that wait for the broker; more are refused.
pub const QUEUE: usize = 1000;
/// Messages that are sent before the first of them is acknowledged.
const WINDOW: usize = 16;
/// Connections that may break while a message is under way.
const MAX_BREAKS: u8 = 2;
const KEEP_ALIVE: u16 = 30;
/// The broker has so long for a connection, and for an answer.
const ANSWER: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

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

/// More messages wait than are kept.
#[derive(Debug, thiserror::Error)]
#[error("{QUEUE} messages wait already for MQTT broker {0}, this event is not given to it")]
pub struct Full(String);

#[derive(Debug, Clone)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    /// Connections that broke while it was under way.
    breaks: u8,
}

/// When a retained message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    BeforeEvents,
    AfterEvents,
}

/// The latest message of a topic, which the broker retains.
#[derive(Debug)]
struct Latest {
    message: Message,
    turn: Turn,
    unsent: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each is sent once it can be, in order.
    events: VecDeque<Message>,
    /// Sent when it has changed, and at every connection.
    latest: Vec<Latest>,
    stop_by: Option<Instant>,
}

impl Queue {
    /// The message whose turn it is, and whether it is to be retained.
    fn next(&mut self) -> Option<(Message, bool)> {
        let mut of = |wanted: Turn| {
            let found = self.latest.iter_mut().find(|latest| latest.unsent && latest.turn == wanted)?;
            found.unsent = false;
            Some((found.message.clone(), true))
        };
        if let Some(message) = of(Turn::BeforeEvents) {
            return Some(message);
        }
        match self.events.pop_front() {
            Some(event) => Some((event, false)),
            None => of(Turn::AfterEvents),
        }
    }

    fn is_suspect(&self) -> bool {
        let latest = self.latest.iter().filter(|latest| latest.unsent).map(|latest| &latest.message);
        latest.chain(&self.events).any(|message| message.breaks > 0)
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when so many wakes are pending already that one more changes nothing.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The queue to the thread that keeps the connection.
#[derive(Debug)]
pub struct Client {
    name: String,
    shared: Arc<Shared>,
    failures: Receiver<String>,
    ended: Receiver<()>,
    worker: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts the thread; it connects as soon as it can.
    pub fn start(account: Account) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { queue: Mutex::default(), wake });
        let name = format!("{}:{}", account.host, account.port);
        let (report, failures) = channel();
        let (end, ended) = channel();
        let worker = Worker { account, name: name.clone(), shared: shared.clone(), report, told: None };
        let worker = std::thread::Builder::new().name("mqtt".into()).spawn(move || {
            worker.run();
            // Nobody listens any more when the daemon has not waited.
            let _ = end.send(());
        })?;
        Ok(Client { name, shared, failures, ended, worker: Some(worker) })
    }

    /// Queues a message that must arrive.
    pub fn send(&self, topic: String, payload: Vec<u8>) -> Result<(), Full> {
        let mut queue = self.shared.queue();
        if queue.events.len() >= QUEUE {
            return Err(Full(self.name.clone()));
        }
        queue.events.push_back(Message { topic, payload, breaks: 0 });
        drop(queue);
        self.shared.wake();
        Ok(())
    }

    /// Sets what the broker keeps for a topic, nothing if it is empty; of several that wait the last is sent.
    pub fn retain(&self, topic: &str, payload: Vec<u8>, turn: Turn) {
        let mut queue = self.shared.queue();
        let message = Message { topic: topic.to_owned(), payload, breaks: 0 };
        let latest = Latest { message, turn, unsent: true };
        match queue.latest.iter_mut().find(|latest| latest.message.topic == topic) {
            Some(old) => *old = latest,
            None => queue.latest.push(latest),
        }
        drop(queue);
        self.shared.wake();
    }

    /// What went wrong since the last call.
    pub fn failures(&self) -> Vec<String> {
        self.failures.try_iter().collect()
    }

    /// Sends what waits for at most `grace` and says farewell. A thread that is still looking for its broker then is
    /// left behind.
    pub fn finish(&mut self, grace: Duration) -> Vec<String> {
        let (left, mut failures) = self.end(grace);
        if !left.is_empty() {
            failures.push(format!("MQTT broker {}: {} events were not delivered", self.name, left.len()));
        }
        failures
    }

    /// The same, and gives the payloads that were not delivered.
    pub fn end(&mut self, grace: Duration) -> (Vec<Vec<u8>>, Vec<String>) {
        self.shared.queue().stop_by = Some(Instant::now() + grace);
        self.shared.wake();
        if let Some(worker) = self.worker.take() {
            match self.ended.recv_timeout(grace + Duration::from_millis(500)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    if worker.join().is_err() {
                        log::error!("the MQTT thread panicked");
                    }
                }
            }
        }
        let left = std::mem::take(&mut self.shared.queue().events);
        (left.into_iter().map(|message| message.payload).collect(), self.failures())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.worker.is_some() {
            self.finish(Duration::ZERO);
        }
    }
}

/// Connects once, looks at what the broker retains under a topic filter, and says farewell.
///
/// # Errors
/// What stands in the way of a connection.
pub fn look(account: &Account, filter: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut stream = open(account)?;
    greet(&mut stream, account)?;
    // What is retained comes with the subscription, and so before the answer to the ping.
    stream.write_all(&[&packet::subscribe(1, filter)[..], &PINGREQ].concat())?;
    let (mut incoming, mut found, mut buffer) = (Vec::new(), Vec::new(), [0; 1024]);
    let until = Instant::now() + ANSWER;
    loop {
        while let Some((packet, len)) = packet::parse(&incoming)? {
            incoming.drain(..len);
            match packet {
                Packet::Publish(topic, payload) if found.len() < QUEUE => found.push((topic, payload)),
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

struct Worker {
    account: Account,
    name: String,
    shared: Arc<Shared>,
    report: Sender<String>,
    /// What was told last and still holds.
    told: Option<String>,
}

impl Worker {
    fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let failure =
                match open(&self.account).and_then(|mut stream| greet(&mut stream, &self.account).map(|()| stream)) {
                    Ok(stream) => {
                        log::info!("connected to MQTT broker {}", self.name);
                        let start = Instant::now();
                        let (ended, given_up) = match Session::new(stream, &self.shared) {
                            Ok(session) => session.run(),
                            Err(e) => (Err(e), Vec::new()),
                        };
                        given_up.iter().for_each(|message| self.tell_given_up(message));
                        // One that breaks at once is tried more and more rarely.
                        if start.elapsed() >= LAST_RETRY {
                            retry = FIRST_RETRY;
                            self.told = None;
                        }
                        match ended {
                            Ok(()) => return,
                            Err(e) => e,
                        }
                    }
                    Err(e) => e,
                };
            self.tell(&failure);
            if !self.pause(retry) {
                return;
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    fn tell_given_up(&self, message: &Message) {
        let (name, size, topic) = (&self.name, message.payload.len(), &message.topic);
        let told = format!(
            "MQTT broker {name}: gave up a message of {size} bytes for {topic}: the connection broke {MAX_BREAKS} times \
             while it was sent; see how large the broker lets a message be (mosquitto: message_size_limit, \
             max_packet_size)"
        );
        // Nobody listens any more when the daemon has not waited.
        let _ = self.report.send(told);
    }

    /// Each reason once, until a connection has stood in between.
    fn tell(&mut self, failure: &Error) {
        let message = format!("MQTT broker {}: {failure}", self.name);
        if self.told.as_ref() != Some(&message) {
            // Nobody listens any more when the daemon has not waited.
            let _ = self.report.send(message.clone());
        }
        self.told = Some(message);
    }

    /// False: the daemon stops.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.shared.queue().stop_by.is_some() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            wait(&mut [PollFd::new(&self.shared.wake, PollFlags::IN)], left);
            drain(&self.shared.wake);
        }
    }
}

/// Waits until one is ready, or for a time; what is ready stands in the entries.
fn wait(fds: &mut [PollFd<'_>], time: Duration) {
    let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => {
            log::error!("cannot wait for the MQTT broker: {e}");
            std::thread::sleep(FIRST_RETRY);
        }
    }
}

fn drain(wake: &OwnedFd) {
    // WouldBlock: nothing was there.
    let _ = rustix::io::read(wake, &mut [0_u8; 8]);
}

/// A message that was sent and not acknowledged.
struct Sent {
    id: u16,
    at: Instant,
    message: Message,
    retained: bool,
}

/// One connection, from CONNACK to its end.
struct Session<'a> {
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
    fn new(stream: TcpStream, shared: &'a Shared) -> Result<Self, Error> {
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
    fn run(mut self) -> (Result<(), Error>, Vec<Message>) {
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
            wait(&mut [PollFd::new(&self.stream, flags), PollFd::new(&self.shared.wake, PollFlags::IN)], left);
            drain(&self.shared.wake);
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
    use std::sync::mpsc;

    use super::*;

    fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
        let mut one = [0];
        stream.read_exact(&mut one)?;
        let (first, mut len, mut shift) = (one[0], 0, 0);
        loop {
            stream.read_exact(&mut one)?;
            len |= usize::from(one[0] & 0x7f) << shift;
            shift += 7;
            if one[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body)?;
        Ok((first, body))
    }

    /// A broker that acknowledges what is short and breaks the connection at what is long; tells the payloads of both.
    fn broker(listener: &TcpListener, longest: usize, told: &mpsc::Sender<Vec<u8>>) {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Ok((first, body)) = packet(&mut stream) {
                let answer = match first & 0xf0 {
                    0x10 => [0x20, 2, 0, 0],
                    0x30 => {
                        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                        if told.send(body[4 + topic..].to_vec()).is_err() || body.len() - 4 - topic > longest {
                            break;
                        }
                        [0x40, 2, body[2 + topic], body[3 + topic]]
                    }
                    _ => break,
                };
                if stream.write_all(&answer).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn events_go_before_pictures_and_what_breaks_the_connection_twice_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let will = ("a".into(), "offline".into());
        let (host, client_id) = ("127.0.0.1".into(), "c".into());
        // Nothing is accepted before all of it waits.
        let mut client =
            Client::start(Account { host, port, client_id, username: None, password_file: None, will }).unwrap();
        client.retain("picture", vec![1; 3000], Turn::AfterEvents);
        client.retain("small", b"small".into(), Turn::BeforeEvents);
        let events: [&[u8]; 4] = [b"one", &[2; 5000], b"three", b"four"];
        events.iter().for_each(|event| client.send("event".into(), event.to_vec()).unwrap());
        let (told, received) = mpsc::channel();
        std::thread::spawn(move || broker(&listener, 1000, &told));

        let mut all = Vec::new();
        while !all.iter().any(|payload: &Vec<u8>| payload.len() == 3000) {
            all.push(received.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        let first = |payload: &[u8]| all.iter().position(|other| other == payload).unwrap();
        assert_eq!(first(b"small"), 0);
        assert!(events.iter().all(|event| first(event) < first(&[1; 3000])), "the picture is last");
        assert_eq!(all.iter().filter(|payload| payload.len() == 5000).count(), 2);
        assert!(client.end(Duration::from_secs(10)).0.is_empty(), "nothing waits any more");
    }

    #[test]
    fn what_was_given_up_is_told_with_its_size_and_not_sent_again() {
        let queue = Mutex::new(Queue::default());
        let shared = Shared { queue, wake: eventfd(0, EventfdFlags::NONBLOCK).unwrap() };
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

        let (report, told) = channel();
        let will = ("a".into(), "offline".into());
        let (host, client_id) = (String::new(), String::new());
        let account = Account { host, port: 1, client_id, username: None, password_file: None, will };
        let worker = Worker { account, name: "b:1".into(), shared: Arc::new(shared), report, told: None };
        worker.tell_given_up(&message("picture", 2));
        assert!(told.recv().unwrap().starts_with("MQTT broker b:1: gave up a message of 77 bytes for picture"));
    }
}
