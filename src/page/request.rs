//! A request, decoded: what is not plain text in it is refused before anything looks at it.

use std::net::IpAddr;

use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

/// Parts of a path, and fields of a form or a query.
const MOST: usize = 32;

/// Names and their values, in order.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Of `a=b&c=d`; None where it is no such text.
    fn parse(text: &str) -> Option<Fields> {
        let mut fields = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if fields.len() == MOST {
                return None;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.push((decode(name, true)?, decode(value, true)?));
        }
        Some(Fields(fields))
    }

    /// The first of that name; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// All of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// The path's parts, decoded: none is empty, `.` or `..`, or has a slash or a control character in it.
    pub path: Vec<String>,
    pub query: Fields,
    /// Of a body `application/x-www-form-urlencoded`.
    pub form: Fields,
    pub headers: HeaderMap,
    /// The host's name or address, without port, and the whole as it was written.
    pub host: (String, String),
    /// This machine's address that was reached.
    pub local: IpAddr,
}

impl Request {
    /// # Errors
    /// What the request is refused with.
    pub fn parse(head: &Parts, body: &[u8], local: IpAddr) -> Result<Request, StatusCode> {
        let bad = StatusCode::BAD_REQUEST;
        let path = parts(head.uri.path()).ok_or(bad)?;
        let query = Fields::parse(head.uri.query().unwrap_or_default()).ok_or(bad)?;
        let is_form = head
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded"));
        let form = match is_form {
            true => Fields::parse(std::str::from_utf8(body).map_err(|_| bad)?).ok_or(bad)?,
            false => Fields::default(),
        };
        let mut hosts = head.headers.get_all("host").iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(bad) };
        let whole = host.to_str().map_err(|_| bad)?;
        // A request in the form for proxies has a second host.
        if head.uri.authority().is_some_and(|other| !other.as_str().eq_ignore_ascii_case(whole)) {
            return Err(bad);
        }
        Ok(Request {
            method: head.method.clone(),
            path,
            query,
            form,
            headers: head.headers.clone(),
            host: (name_of(whole).ok_or(bad)?.to_ascii_lowercase(), whole.to_owned()),
            local,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|all| all.split(';')).find_map(|one| one.trim().strip_prefix(name)?.strip_prefix('='))
    }
}

/// `localhost` of `localhost:8788`, `::1` of `[::1]:8788`.
fn name_of(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = rest.is_empty() || rest.strip_prefix(':')?.bytes().all(|c| c.is_ascii_digit());
    (is_port && !name.is_empty()).then_some(name)
}

fn parts(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix('/')?;
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let mut parts = Vec::new();
    for part in inner.split('/') {
        let part = decode(part, false)?;
        let is_plain = !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\']);
        if !is_plain || parts.len() == MOST || part.contains(char::is_control) {
            return None;
        }
        parts.push(part);
    }
    Some(parts)
}

/// Text with `%41`, and with `+` for a blank in forms; None where it is no UTF-8 or is cut short.
fn decode(text: &str, form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (16 * digit()? + digit()?) as u8
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Text as a part of a path or a value of a query.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_place_are_refused() {
        assert_eq!(parts("/").unwrap(), Vec::<String>::new());
        assert_eq!(parts("/door/live").unwrap(), ["door", "live"]);
        assert_eq!(parts("/d%C3%B6r/a%20b+c").unwrap(), ["dör", "a b+c"]);
        for wrong in [
            "",
            "door",
            "*",
            "//",
            "/door/",
            "/..",
            "/door/../x",
            "/%2e%2e/x",
            "/%2E./x",
            "/a%2fb",
            "/a%5cb",
            "/a%00b",
            "/a%0ab",
            "/%ff",
            "/%2",
            "/%",
            "/%zz",
            "/%+1",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        assert_eq!(parts(&"/a".repeat(MOST)).unwrap().len(), MOST);
        assert_eq!(parts(&"/a".repeat(MOST + 1)), None);
    }

    #[test]
    fn fields_are_decoded() {
        let fields = Fields::parse("a=1&b=x%26y+z&&a=2&c").unwrap();
        assert_eq!([fields.get("a"), fields.get("b"), fields.get("c"), fields.get("d")], ["1", "x&y z", "", ""]);
        assert!(Fields::parse("a=%ff").is_none() && Fields::parse(&"a=1&".repeat(MOST + 1)).is_none());
        let odd = "a/b?c=d&e é%";
        assert_eq!(Fields::parse(&format!("x={}", encode(odd))).unwrap().get("x"), odd);
    }

    #[test]
    fn hosts_have_names_and_ports() {
        for (host, name) in
            [("door", "door"), ("door:80", "door"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("127.0.0.1:1", "127.0.0.1")]
        {
            assert_eq!(name_of(host), Some(name));
        }
        for wrong in ["", ":80", "a:b", "[::1", "[::1]x", "a:80:80", "[]"] {
            assert_eq!(name_of(wrong), None, "{wrong}");
        }
    }
}
