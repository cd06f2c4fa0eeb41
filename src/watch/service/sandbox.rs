//! The unit's sandbox as the reason of an error.

use std::io;

/// What to do about a place that a service cannot write; empty outside of one, and where its sandbox is not the reason.
pub fn remedy(error: &io::Error) -> &'static str {
    // systemd gives it to every process of a unit.
    remedy_in(std::env::var_os("INVOCATION_ID").is_some(), error)
}

fn remedy_in(unit: bool, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem if unit => {
            "; the unit's sandbox keeps all folders but its own read-only: `systemctl edit outlierd`, and below [Service] \
             ReadWritePaths= with that folder; or name a place below /var/lib/outlierd"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_named_where_it_is_the_reason() {
        let read_only = io::Error::from(rustix::io::Errno::ROFS);
        assert!(remedy_in(true, &read_only).contains("ReadWritePaths="));
        assert_eq!(remedy_in(false, &read_only), "");
        assert_eq!(remedy_in(true, &io::ErrorKind::StorageFull.into()), "");
    }
}
