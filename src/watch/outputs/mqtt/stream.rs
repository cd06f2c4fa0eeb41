//! The bytes to and from a broker, over TCP or TLS. Nothing here blocks but [`Stream::wait`], which has an end.
//!
//! rustls is driven by hand: its own `Stream` writes before it reads, so that two ends that both have much to say would
//! wait for each other. Decrypted bytes are read until there are none before the socket is waited for, because no socket
//! says that they are there.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::ClientConnection;

/// A connection to a broker, and what it has not taken yet.
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    outgoing: VecDeque<u8>,
}

impl Stream {
    pub fn new(tcp: TcpStream, tls: Option<ClientConnection>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Stream { tcp, tls: tls.map(Box::new), outgoing: VecDeque::new() })
    }

    /// Gives bytes to send; [`Stream::flush`] sends them.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Whether all that was queued is with the system.
    pub fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.wants_write())
    }

    /// Sends what the system takes; true if it took any of it.
    ///
    /// # Errors
    /// The connection is broken. A [`rustls::Error`] is inside of one of kind `InvalidData`.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let (next, _) = self.outgoing.as_slices();
            let written = match &mut self.tls {
                Some(tls) => {
                    // As much as its buffer takes, and until the handshake is done it only goes there.
                    let taken = tls.writer().write(next)?;
                    self.outgoing.drain(..taken);
                    if !tls.wants_write() {
                        return Ok(moved);
                    }
                    tls.write_tls(&mut self.tcp)
                }
                None if self.outgoing.is_empty() => return Ok(moved),
                None => self.tcp.write(next).inspect(|written| drop(self.outgoing.drain(..*written))),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => moved = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Why the other end went may lie there to be read: the alert of a certificate that it refuses.
                Err(e) => match self.read(&mut [0; 1024]) {
                    Err(why) if why.kind() == io::ErrorKind::InvalidData => return Err(why),
                    _ => return Err(e),
                },
            }
        }
    }

    /// What has come; 0: the broker has closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing, decrypted or to be; else as [`Stream::flush`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(&mut self.tcp)? == 0 && tls.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Err(e) = tls.process_new_packets() {
                // The alert that says why; nobody need take it.
                let _ = tls.write_tls(&mut self.tcp);
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        }
    }

    /// Waits until there is something to read, until the system takes more of what is to be sent, for a wake, or for a time.
    pub fn wait(&self, waker: Option<BorrowedFd<'_>>, time: Duration) -> io::Result<()> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.is_flushed());
        let mut fds = vec![PollFd::new(&self.tcp, flags)];
        fds.extend(waker.map(|waker| PollFd::from_borrowed_fd(waker, PollFlags::IN)));
        wait(&mut fds, time)
    }

    /// Sends what is queued and says farewell, as far as that goes by `until`.
    pub fn close(mut self, until: Instant) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        while self.flush().is_ok() && !self.is_flushed() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wait(None, left).is_err() {
                return;
            }
        }
    }

    /// Whether the broker is on this machine.
    pub fn is_local(&self) -> bool {
        let ends =
            (self.tcp.local_addr().map(|address| address.ip()), self.tcp.peer_addr().map(|address| address.ip()));
        matches!(ends, (Ok(own), Ok(peer)) if own == peer || peer.is_loopback())
    }

    /// Whether TLS is not agreed on yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

/// Waits for one of several descriptors, or for a time.
pub fn wait(fds: &mut [PollFd<'_>], time: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A connection to the first address that takes it by `until`.
pub fn connect(addresses: impl Iterator<Item = SocketAddr>, until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e,
        }
    }
    Err(last)
}
