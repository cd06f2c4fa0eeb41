//! The web page: what the daemons see now, what a threshold would have raised, and their events.
//!
//! A process of its own. It reads the observe sockets, the histories, the event logs and the pictures of the daemons, and
//! changes nothing but through the commands that a person would use. `server` reads requests within limits, `guard` says
//! who may ask, `route` finds the answer; every answer is made by blocking code.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

mod api;
mod chart;
pub mod child;
mod events;
mod feedback;
mod guard;
mod instance;
mod layout;
pub mod listen;
mod live;
mod masks;
mod past;
mod pictures;
mod request;
mod response;
mod route;
pub mod server;
mod session;
mod teach;
mod threshold;

pub use instance::Configs;
pub use session::Token;

use feedback::Marks;
use past::Pasts;
use session::Sessions;
use teach::jobs::Jobs;

/// Why the page could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} can be reached from other machines: give a token file of at least {min} random characters with \
         --token-file FILE (`openssl rand -hex 16 > FILE`) or as systemd's credential `page-token`, or listen on 127.0.0.1",
        min = session::MIN_TOKEN
    )]
    Open(String),
    #[error("the token in {} is shorter than {} characters: `openssl rand -hex 16` makes a good one", path.display(), session::MIN_TOKEN)]
    ShortToken { path: PathBuf },
    #[error("cannot read the token file {}: {source}", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("cannot take the socket of the service manager: {0}; ListenStream= must be an address of TCP")]
    Passed(io::Error),
    #[error("two configs have the name {0}: the page tells daemons apart by the names of their config files")]
    SameName(String),
    #[error("the config {} has a name that the page uses itself: rename it", path.display())]
    Reserved { path: PathBuf },
    #[error("the page ended: {0}")]
    Serve(io::Error),
}

/// All that answers are made from.
#[derive(Debug)]
pub struct Page {
    configs: Configs,
    /// Names that it is reached by besides its address.
    hosts: Vec<String>,
    sessions: Mutex<Sessions>,
    marks: Mutex<Marks>,
    pasts: Mutex<Pasts>,
    jobs: Mutex<Jobs>,
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
            if let Some(host) = hosts.iter().find(|host| !guard::is_loopback(host)) {
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
            pasts: Mutex::default(),
            jobs: Mutex::default(),
        })
    }
}

/// What is locked is whole at every step: a panic of another thread leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
