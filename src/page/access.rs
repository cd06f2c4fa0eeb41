//! How somebody is let in.

use std::net::IpAddr;

/// The cookie's name.
pub const COOKIE: &str = "outlierd";

/// How somebody was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// There is no token.
    Open,
    /// With the session's cookie.
    Session(String),
    /// By the token itself, in the header `Authorization`.
    Token,
    /// Not yet.
    None,
}

impl Access {
    /// What forms are bound to.
    pub fn cookie(&self) -> &str {
        match self {
            Access::Session(cookie) => cookie,
            Access::Open | Access::Token | Access::None => "",
        }
    }
}

/// Whether a name is one of this machine alone.
pub fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
