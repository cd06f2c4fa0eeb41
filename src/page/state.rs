//! What all requests share.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::is_loopback;
use super::error::Error;
use super::instance::Configs;
use super::marks::Marks;
use super::past::{Past, Pasts};
use super::session::{Sessions, Token};
use super::teach::jobs::Jobs;

/// All that answers are made from.
#[derive(Debug)]
pub struct Page {
    pub configs: Configs,
    /// Names that it is reached by besides its address.
    pub hosts: Vec<String>,
    pub sessions: Mutex<Sessions>,
    pub marks: Mutex<Marks>,
    pub jobs: Mutex<Jobs>,
    pasts: Mutex<Pasts>,
}

impl Page {
    /// A page of those daemons; without a token anybody who reaches it may look and change.
    ///
    /// # Errors
    /// One of the listeners, or a name in `hosts`, lets others in than this machine's users, and there is no token; no
    /// random numbers are to be had; two configs have the same name.
    pub fn new(
        configs: Configs,
        hosts: Vec<String>,
        token: Option<Token>,
        listening: &[SocketAddr],
    ) -> Result<Page, Error> {
        if token.is_none() {
            if let Some(address) = listening.iter().find(|address| !address.ip().is_loopback()) {
                return Err(Error::Open(address.to_string()));
            }
            if let Some(host) = hosts.iter().find(|host| !is_loopback(host)) {
                return Err(Error::Open(format!("a page that is called {host}")));
            }
        }
        configs.check()?;
        let sessions = Sessions::new(token).map_err(Error::Serve)?;
        Ok(Page {
            configs,
            hosts,
            sessions: Mutex::new(sessions),
            marks: Mutex::default(),
            jobs: Mutex::default(),
            pasts: Mutex::default(),
        })
    }

    /// The past of a history, some seconds old at most. One is read at a time.
    ///
    /// # Errors
    /// There is no history, or it cannot be read.
    pub fn past(&self, paths: &[PathBuf]) -> io::Result<Arc<Past>> {
        lock(&self.pasts).of(paths)
    }
}

/// What is locked is whole at every step: a panic of another thread leaves it usable.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
