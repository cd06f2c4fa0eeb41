//! Who has shown the token: sessions, by a random cookie.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use super::error::{Error, MIN_TOKEN};
use crate::fs;

const MAX_TOKEN: u64 = 4096;
/// Sessions at once; the oldest makes room.
const MOST: usize = 64;
/// A session that was not used for so long is over.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// Wrong tokens that are answered at once, and then one in a while.
const TRIES: u32 = 10;
const TRY_EVERY: Duration = Duration::from_secs(5);

type Key = [u8; 32];

/// The SHA-256 of what opens the page.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Key);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The first line of a file.
    ///
    /// # Errors
    /// It cannot be read, or is too short to be safe.
    pub fn read(path: &Path) -> Result<Token, Error> {
        let text = fs::read_text(path, MAX_TOKEN).map_err(|source| Error::Token { path: path.to_owned(), source })?;
        let token = text.lines().next().unwrap_or_default().trim();
        match token.chars().count() < MIN_TOKEN {
            true => Err(Error::ShortToken { path: path.to_owned() }),
            false => Ok(Token(digest(&[token.as_bytes()]))),
        }
    }

    /// Takes the same time whatever was guessed: what is compared are digests, all of their bytes.
    fn is(&self, guess: &str) -> bool {
        same(&self.0, &digest(&[guess.trim().as_bytes()]))
    }
}

/// What came of a try to open a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// The cookie's value.
    Session(String),
    Wrong,
    /// Too many wrong ones: later.
    Later,
}

#[derive(Debug)]
pub struct Sessions {
    token: Option<Token>,
    /// Makes the tokens of forms.
    secret: Key,
    /// When each was used last, by the digest of its cookie.
    live: HashMap<Key, Instant>,
    tries: u32,
    refilled: Instant,
}

impl Sessions {
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn new(token: Option<Token>) -> io::Result<Self> {
        Ok(Sessions { token, secret: random()?, live: HashMap::new(), tries: TRIES, refilled: Instant::now() })
    }

    /// Whether there is a token to be shown.
    pub fn is_guarded(&self) -> bool {
        self.token.is_some()
    }

    /// Opens a session for who knows the token.
    pub fn open(&mut self, guess: &str, now: Instant) -> Opened {
        if !self.may_try(now) {
            return Opened::Later;
        }
        if !self.token.as_ref().is_some_and(|token| token.is(guess)) {
            self.tries -= 1;
            return Opened::Wrong;
        }
        let Ok(random) = random() else { return Opened::Later };
        let cookie: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.live.retain(|_, used| now.saturating_duration_since(*used) < IDLE);
        if self.live.len() >= MOST
            && let Some(oldest) = self.live.iter().min_by_key(|(_, used)| **used).map(|(key, _)| *key)
        {
            self.live.remove(&oldest);
        }
        self.live.insert(digest(&[cookie.as_bytes()]), now);
        Opened::Session(cookie)
    }

    /// Whether a program shows the token itself. Wrong ones are counted likewise.
    pub fn is_token(&mut self, guess: &str, now: Instant) -> bool {
        if !self.may_try(now) {
            return false;
        }
        let is = self.token.as_ref().is_some_and(|token| token.is(guess));
        self.tries -= u32::from(!is);
        is
    }

    fn may_try(&mut self, now: Instant) -> bool {
        while self.tries < TRIES && now.saturating_duration_since(self.refilled) >= TRY_EVERY {
            self.tries += 1;
            self.refilled += TRY_EVERY;
        }
        if self.tries == TRIES {
            self.refilled = now;
        }
        self.tries > 0
    }

    /// Whether the session of that cookie is open; it is used now.
    pub fn is_open(&mut self, cookie: &str, now: Instant) -> bool {
        let key = digest(&[cookie.as_bytes()]);
        match self.live.get_mut(&key) {
            Some(used) if now.saturating_duration_since(*used) < IDLE => *used = now,
            _ => return false,
        }
        true
    }

    pub fn close(&mut self, cookie: &str) {
        self.live.remove(&digest(&[cookie.as_bytes()]));
    }

    /// What the forms of a session have in them, so that no other site can send them; "" is who has none.
    pub fn form_token(&self, cookie: &str) -> String {
        digest(&[&self.secret, cookie.as_bytes()]).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn is_form_token(&self, cookie: &str, token: &str) -> bool {
        same(&digest(&[self.form_token(cookie).as_bytes()]), &digest(&[token.as_bytes()]))
    }
}

fn digest(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn same(a: &Key, b: &Key) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b))) == 0
}

fn random() -> io::Result<Key> {
    let mut key = Key::default();
    let filled = getrandom(&mut key, GetRandomFlags::empty())?;
    match filled == key.len() {
        true => Ok(key),
        false => Err(io::Error::other("the kernel gave too few random numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123";

    fn sessions() -> Sessions {
        Sessions::new(Some(Token(digest(&[TOKEN.as_bytes()])))).unwrap()
    }

    fn open(sessions: &mut Sessions, now: Instant) -> String {
        match sessions.open(TOKEN, now) {
            Opened::Session(cookie) => cookie,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sessions_open_by_the_token_and_end() {
        let (mut sessions, now) = (sessions(), Instant::now());
        assert_eq!(sessions.open("0123456789abcdef0124", now), Opened::Wrong);
        let cookie = open(&mut sessions, now);
        assert!(sessions.is_open(&cookie, now) && !sessions.is_open("", now) && !sessions.is_open(TOKEN, now));
        assert!(sessions.is_open(&cookie, now + IDLE - Duration::from_secs(1)));
        assert!(sessions.is_open(&cookie, now + IDLE + Duration::from_secs(1)));
        assert!(!sessions.is_open(&cookie, now + 3 * IDLE));
        sessions.close(&cookie);
        assert!(!sessions.is_open(&cookie, now));
    }

    #[test]
    fn wrong_tokens_wait_and_so_does_the_right_one_after_them() {
        let (mut sessions, now) = (sessions(), Instant::now());
        for _ in 0..TRIES {
            assert_eq!(sessions.open("x", now), Opened::Wrong);
        }
        assert_eq!(sessions.open(TOKEN, now), Opened::Later);
        assert!(!sessions.is_token(TOKEN, now));
        let later = now + TRY_EVERY;
        assert!(sessions.is_token(TOKEN, later));
        assert_eq!(sessions.open("x", later), Opened::Wrong);
        assert_eq!(sessions.open("x", later), Opened::Later);
    }

    #[test]
    fn there_are_only_so_many_sessions() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let cookies: Vec<String> =
            (0..=MOST).map(|at| open(&mut sessions, now + Duration::from_millis(at as u64))).collect();
        assert!(!sessions.is_open(&cookies[0], now) && sessions.is_open(&cookies[1], now));
    }

    #[test]
    fn forms_are_of_their_session() {
        let sessions = sessions();
        let token = sessions.form_token("a");
        assert!(sessions.is_form_token("a", &token) && !sessions.is_form_token("b", &token));
        assert!(!sessions.is_form_token("a", "") && token != self::sessions().form_token("a"));
    }

    #[test]
    fn short_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(matches!(Token::read(&path), Err(Error::Token { .. })));
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(Token::read(&path), Err(Error::ShortToken { .. })));
        std::fs::write(&path, format!("{TOKEN}\nmore\n")).unwrap();
        assert!(Token::read(&path).unwrap().is(TOKEN));
    }
}
