//! What waits for the broker, shared by the watch and the thread that keeps the connection.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::stream::{self, Stream};

/// Events that wait for the broker, and bytes of them; more are refused. Some days without a broker.
pub const CAPACITY: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;
/// Connections that may break while a message is under way; then it is given up.
pub const MAX_BREAKS: u8 = 2;

#[derive(Debug, Clone)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    /// Connections that broke while it was under way.
    pub breaks: u8,
}

impl Message {
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + size_of::<Message>()
    }
}

/// When a retained message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    BeforeEvents,
    AfterEvents,
}

/// The latest message of a topic, which the broker retains.
#[derive(Debug)]
pub struct Latest {
    pub message: Message,
    pub turn: Turn,
    pub unsent: bool,
}

#[derive(Debug, Default)]
pub struct Queue {
    /// Each is sent once it can be, in order.
    events: VecDeque<Message>,
    /// The size of all of them.
    bytes: usize,
    /// Sent when it has changed, and at every connection.
    pub latest: Vec<Latest>,
    pub stop_by: Option<Instant>,
}

impl Queue {
    /// Takes an event where there is room; false: there is none.
    pub fn push(&mut self, event: Message) -> bool {
        let fits = self.events.len() < CAPACITY && self.bytes + event.size() <= MAX_BYTES;
        if fits {
            self.bytes += event.size();
            self.events.push_back(event);
        }
        fits
    }

    /// Takes back an event that was not acknowledged: its turn is next.
    pub fn give_back(&mut self, event: Message) {
        self.bytes += event.size();
        self.events.push_front(event);
    }

    /// Takes the events that wait out of the queue.
    pub fn take_events(&mut self) -> VecDeque<Message> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// All that a newcomer needs to know is to be sent once more; with `all`, pictures too.
    pub fn announce(&mut self, all: bool) {
        for latest in self.latest.iter_mut().filter(|latest| all || latest.turn == Turn::BeforeEvents) {
            latest.unsent = latest.message.breaks < MAX_BREAKS;
        }
    }

    /// The message whose turn it is, and whether it is to be retained.
    pub fn next(&mut self) -> Option<(Message, bool)> {
        let mut of = |wanted: Turn| {
            let found = self.latest.iter_mut().find(|latest| latest.unsent && latest.turn == wanted)?;
            found.unsent = false;
            Some((found.message.clone(), true))
        };
        if let Some(message) = of(Turn::BeforeEvents) {
            return Some(message);
        }
        match self.events.pop_front() {
            Some(event) => {
                self.bytes -= event.size();
                Some((event, false))
            }
            None => of(Turn::AfterEvents),
        }
    }

    /// Whether one that broke a connection is next among those that wait.
    pub fn is_suspect(&self) -> bool {
        let latest = self.latest.iter().filter(|latest| latest.unsent).map(|latest| &latest.message);
        // Those given back are in front.
        latest.chain(self.events.front()).any(|message| message.breaks > 0)
    }
}

#[derive(Debug)]
pub struct Shared {
    queue: Mutex<Queue>,
    waker: OwnedFd,
}

impl Shared {
    pub fn new() -> io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Shared { queue: Mutex::default(), waker })
    }

    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wake(&self) {
        // Fails only when so many wakes are pending already that one more changes nothing.
        let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
    }

    /// Waits for a wake, for what the stream waits for, or for a time.
    pub fn wait(&self, stream: Option<&Stream>, time: Duration) {
        let waited = match stream {
            Some(stream) => stream.wait(Some(self.waker.as_fd()), time),
            None => stream::wait(&mut [PollFd::new(&self.waker, PollFlags::IN)], time),
        };
        if let Err(e) = waited {
            log::error!("cannot wait for the MQTT broker: {e}");
            std::thread::sleep(Duration::from_millis(500));
        }
        // WouldBlock: nothing was there.
        let _ = rustix::io::read(&self.waker, &mut [0_u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_more_by_number_and_by_size() {
        let event = |size: usize| Message { topic: "e".into(), payload: vec![0; size], breaks: 0 };
        let mut queue = Queue::default();
        assert!((0..CAPACITY).all(|_| queue.push(event(300))) && !queue.push(event(0)));
        assert_eq!(queue.take_events().len(), CAPACITY);
        let large = MAX_BYTES / 8;
        assert!((0..7).all(|_| queue.push(event(large))) && !queue.push(event(large)));
        let (first, _) = queue.next().unwrap();
        assert!(queue.push(event(large)));
        queue.give_back(first);
        assert_eq!(queue.events.len(), 8, "what was under way is never refused");
    }
}
