//! A connection that is kept up: a thread sends what is queued with QoS 1 and holds each message until the broker has
//! acknowledged it. A lost connection is opened again with back-off, and what was not acknowledged is sent again, so
//! that a message arrives at least once. What was under way when a connection broke is sent alone the next time; what breaks
//! it again, such as a picture larger than the broker takes, is given up.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::account::{Account, Error};
use super::queue::{Latest, MAX_BREAKS, Message, Shared, Turn};
use super::session::Session;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// More messages wait than are kept.
#[derive(Debug, thiserror::Error)]
#[error("more events wait for MQTT broker {0} than are kept, this one is not given to it")]
pub struct Full(String);

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
        let shared = Arc::new(Shared::new()?);
        let name = format!("{}:{}", account.host, account.port);
        let (report, failures) = channel();
        let (end, ended) = channel();
        let worker = Worker { account, name: name.clone(), shared: shared.clone(), failures: report, reported: None };
        let worker = std::thread::Builder::new().name("mqtt".into()).spawn(move || {
            worker.run();
            // Nobody listens any more when the daemon has not waited.
            let _ = end.send(());
        })?;
        Ok(Client { name, shared, failures, ended, worker: Some(worker) })
    }

    /// Queues a message that must arrive.
    pub fn send(&self, topic: String, payload: Vec<u8>) -> Result<(), Full> {
        if !self.shared.queue().push(Message { topic, payload, breaks: 0 }) {
            return Err(Full(self.name.clone()));
        }
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
        let left = self.shared.queue().take_events();
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

struct Worker {
    account: Account,
    name: String,
    shared: Arc<Shared>,
    failures: Sender<String>,
    /// What was reported last and still holds.
    reported: Option<String>,
}

impl Worker {
    fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let failure = match self.account.connect() {
                Ok(connection) => {
                    log::info!("connected to MQTT broker {}", self.name);
                    let start = Instant::now();
                    let (ended, given_up) = Session::new(&self.account, connection, &self.shared).run();
                    given_up.iter().for_each(|message| self.report_given_up(message));
                    // One that breaks at once is tried more and more rarely.
                    if start.elapsed() >= LAST_RETRY {
                        retry = FIRST_RETRY;
                        self.reported = None;
                    }
                    match ended {
                        Ok(()) => return,
                        Err(e) => e,
                    }
                }
                Err(e) => e,
            };
            self.report_once(&failure);
            if !self.pause(retry) {
                return;
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    fn report_given_up(&self, message: &Message) {
        let (name, size, topic) = (&self.name, message.payload.len(), &message.topic);
        let report = format!(
            "MQTT broker {name}: gave up a message of {size} bytes for {topic}: the connection broke {MAX_BREAKS} times \
             while it was sent; see how large the broker lets a message be (mosquitto: message_size_limit, \
             max_packet_size)"
        );
        // Nobody listens any more when the daemon has not waited.
        let _ = self.failures.send(report);
    }

    /// Each reason once, until a connection has stood in between.
    fn report_once(&mut self, failure: &Error) {
        let message = format!("MQTT broker {}: {failure}", self.name);
        if self.reported.as_ref() != Some(&message) {
            // Nobody listens any more when the daemon has not waited.
            let _ = self.failures.send(message.clone());
        }
        self.reported = Some(message);
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
            self.shared.wait(None, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
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

    /// A broker that acknowledges what is short and breaks the connection at what is long; gives the payloads of both.
    fn broker(listener: &TcpListener, longest: usize, payloads: &mpsc::Sender<Vec<u8>>) {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Ok((first, body)) = packet(&mut stream) {
                let answer = match first & 0xf0 {
                    0x10 => [0x20, 2, 0, 0],
                    0x30 => {
                        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                        if payloads.send(body[4 + topic..].to_vec()).is_err() || body.len() - 4 - topic > longest {
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
        let (tls, username, password_file, birth) = (None, None, None, None);
        let account = Account { host, port, tls, client_id, username, password_file, will, birth };
        let mut client = Client::start(account).unwrap();
        client.retain("picture", vec![1; 3000], Turn::AfterEvents);
        client.retain("small", b"small".into(), Turn::BeforeEvents);
        let events: [&[u8]; 4] = [b"one", &[2; 5000], b"three", b"four"];
        events.iter().for_each(|event| client.send("event".into(), event.to_vec()).unwrap());
        let (payloads, received) = mpsc::channel();
        std::thread::spawn(move || broker(&listener, 1000, &payloads));

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
    fn what_was_given_up_is_reported_with_its_size() {
        let (failures, reported) = channel();
        let will = ("a".into(), "offline".into());
        let (host, client_id) = (String::new(), String::new());
        let (tls, username, password_file, birth) = (None, None, None, None);
        let account = Account { host, port: 1, tls, client_id, username, password_file, will, birth };
        let worker =
            Worker { account, name: "b:1".into(), shared: Arc::new(Shared::new().unwrap()), failures, reported: None };
        worker.report_given_up(&Message { topic: "picture".into(), payload: vec![0; 77], breaks: 2 });
        assert!(reported.recv().unwrap().starts_with("MQTT broker b:1: gave up a message of 77 bytes for picture"));
    }
}
