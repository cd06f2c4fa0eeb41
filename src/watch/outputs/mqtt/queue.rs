//! What waits for the broker, shared by the watch and the thread that keeps the connection.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Events that wait for the broker; more are refused.
pub const CAPACITY: usize = 1000;

#[derive(Debug, Clone)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    /// Connections that broke while it was under way.
    pub breaks: u8,
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
    pub events: VecDeque<Message>,
    /// Sent when it has changed, and at every connection.
    pub latest: Vec<Latest>,
    pub stop_by: Option<Instant>,
}

impl Queue {
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
            Some(event) => Some((event, false)),
            None => of(Turn::AfterEvents),
        }
    }

    pub fn is_suspect(&self) -> bool {
        let latest = self.latest.iter().filter(|latest| latest.unsent).map(|latest| &latest.message);
        latest.chain(&self.events).any(|message| message.breaks > 0)
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

    /// Waits for a wake, for what is asked of a stream, or for a time.
    pub fn wait(&self, stream: Option<(&TcpStream, PollFlags)>, time: Duration) {
        let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let waker = PollFd::new(&self.waker, PollFlags::IN);
        let mut fds: Vec<PollFd<'_>> = stream.into_iter().map(|(stream, flags)| PollFd::new(stream, flags)).collect();
        fds.push(waker);
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => {
                log::error!("cannot wait for the MQTT broker: {e}");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        // WouldBlock: nothing was there.
        let _ = rustix::io::read(&self.waker, &mut [0_u8; 8]);
    }
}
