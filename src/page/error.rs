//! Why the page is not served.

use std::io;
use std::path::PathBuf;

/// Characters of a token at least.
pub const MIN_TOKEN: usize = 20;

/// Why the page could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} can be reached from other machines: give a token file of at least {min} random characters with \
         --token-file FILE (`openssl rand -hex 16 > FILE`) or as systemd's credential `page-token`, or listen on 127.0.0.1",
        min = MIN_TOKEN
    )]
    Open(String),
    #[error("the token in {} is shorter than {} characters: `openssl rand -hex 16` makes a good one", path.display(), MIN_TOKEN)]
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
