//! The sockets that requests come through: those that the service manager has opened, or an address.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::error::Error;

/// Where the page is unless told otherwise.
pub const DEFAULT: &str = "127.0.0.1:8788";

/// The service manager's sockets, else a socket of that address.
///
/// # Errors
/// The address is taken, or a socket that was passed is none of TCP.
pub fn listen(address: SocketAddr) -> Result<Vec<TcpListener>, Error> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        let listener = TcpListener::bind(address);
        return Ok(vec![listener.map_err(|source| Error::Listen { address: address.to_string(), source })?]);
    }
    (0..passed.len()).filter_map(|at| passed.take_tcp_listener(at).map_err(Error::Passed).transpose()).collect()
}
