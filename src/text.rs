//! Text as it may be shown.

/// The text with the passwords of its URLs (`rtsp://user:password@host`) starred out.
pub fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // An authority ends at a slash or a blank; its last @ ends the user's part.
        let authority = after.find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace() || c == '"');
        let (authority, tail) = after.split_at(authority.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                shown.push_str(user.split(':').next().unwrap_or_default());
                shown.push_str(if user.contains(':') { ":***@" } else { "@" });
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_starred_out() {
        for (text, shown) in [
            ("rtsp://u:secret@cam/1", "rtsp://u:***@cam/1"),
            ("rtsp://u:p@ss:w@cam:554/1 x", "rtsp://u:***@cam:554/1 x"),
            ("open 'http://cam/1' and rtsp://a:b@c", "open 'http://cam/1' and rtsp://a:***@c"),
            ("rtsp://user@cam/1?a=b@c", "rtsp://user@cam/1?a=b@c"),
            ("no address: a@b", "no address: a@b"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
