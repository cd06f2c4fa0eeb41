//! The packets of MQTT 3.1.1 that a publisher needs (OASIS standard of 2014-10-29, chapters 2 and 3).

/// Longer messages to us are skipped.
const MAX_RECEIVED: usize = 64 << 10;

/// What a broker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The return code; 0 is accepted.
    ConnAck(u8),
    PubAck(u16),
    /// Whether the subscription is granted.
    SubAck(bool),
    PingResp,
    /// A message with QoS 0.
    Publish {
        topic: String,
        payload: Vec<u8>,
        /// Sent because we subscribed, not because it was just published.
        retained: bool,
    },
    /// A message that is too long for us.
    TooLong,
}

impl Packet {
    /// Its first byte, but for flags.
    pub fn first(&self) -> u8 {
        match self {
            Packet::ConnAck(_) => 0x20,
            Packet::Publish { .. } | Packet::TooLong => 0x30,
            Packet::PubAck(_) => 0x40,
            Packet::SubAck(_) => 0x90,
            Packet::PingResp => 0xd0,
        }
    }
}

/// The broker does not speak MQTT 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not speak MQTT 3.1.1 (packet {0:#04x})")]
pub struct Unexpected(pub u8);

/// What a session begins with.
#[derive(Debug, Clone)]
pub struct Connect<'a> {
    pub client_id: &'a str,
    /// Seconds after which the broker gives a silent client up (one and a half times as many).
    pub keep_alive: u16,
    /// Topic and payload that the broker publishes, retained, when the client is gone without a farewell.
    pub will: (&'a str, &'a [u8]),
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

impl Connect<'_> {
    /// A clean session: what is not acknowledged is kept by us.
    pub fn encode(&self) -> Vec<u8> {
        const CLEAN: u8 = 0x02;
        const WILL_RETAINED_QOS1: u8 = 0x04 | 0x08 | 0x20;
        let mut flags = CLEAN | WILL_RETAINED_QOS1;
        let mut payload = Vec::new();
        put(&mut payload, self.client_id.as_bytes());
        put(&mut payload, self.will.0.as_bytes());
        put(&mut payload, self.will.1);
        if let Some(username) = self.username {
            flags |= 0x80;
            put(&mut payload, username.as_bytes());
        }
        if let Some(password) = self.password {
            flags |= 0x40;
            put(&mut payload, password);
        }
        let mut body = Vec::new();
        put(&mut body, b"MQTT");
        body.extend([4, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// A message with QoS 1.
pub fn publish(id: u16, topic: &str, payload: &[u8], retain: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    put(&mut body, topic.as_bytes());
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32 | u8::from(retain), &body)
}

/// Asks for the messages of a topic filter, with QoS 0.
pub fn subscribe(id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    put(&mut body, filter.as_bytes());
    body.push(0);
    packet(0x82, &body)
}

/// A length of two bytes, then the bytes; the config keeps all that goes here far below 64 KiB.
fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    let len = bytes.len().min(usize::from(u16::MAX));
    into.extend((len as u16).to_be_bytes());
    into.extend(&bytes[..len]);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(body.len() + 5);
    packet.push(first);
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        packet.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// What was received and is not parsed yet: less than a packet that we take.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    /// So many bytes that come next are of a packet that is too long.
    skip: usize,
}

impl Incoming {
    pub fn push(&mut self, received: &[u8]) {
        let skipped = self.skip.min(received.len());
        self.skip -= skipped;
        self.bytes.extend(&received[skipped..]);
    }

    /// The next packet; None: there is more to come.
    pub fn packet(&mut self) -> Result<Option<Packet>, Unexpected> {
        let Some((packet, len)) = parse(&self.bytes)? else {
            debug_assert!(self.bytes.len() < MAX_RECEIVED + 5, "{} bytes are held", self.bytes.len());
            return Ok(None);
        };
        self.skip = len.saturating_sub(self.bytes.len());
        self.bytes.drain(..len.min(self.bytes.len()));
        Ok(Some(packet))
    }
}

/// The first packet of what was received, and its length; None: there is more to come. One that is too long is told by
/// its length, before all of it is there.
fn parse(received: &[u8]) -> Result<Option<(Packet, usize)>, Unexpected> {
    let Some((&first, rest)) = received.split_first() else { return Ok(None) };
    let refused = Err(Unexpected(first));
    // QoS 0, as was asked for: retained or not.
    let wanted = match first {
        0x20 | 0x40 => 2..=2,
        0x90 => 3..=3,
        0xd0 => 0..=0,
        0x30 | 0x31 => 2..=usize::MAX,
        _ => return refused,
    };
    let (mut len, mut digits) = (0, 0);
    loop {
        let Some(digit) = rest.get(digits) else { return Ok(None) };
        len |= usize::from(digit & 0x7f) << (7 * digits);
        digits += 1;
        if digit & 0x80 == 0 {
            break;
        }
        if digits == 4 {
            return refused;
        }
    }
    if !wanted.contains(&len) {
        return refused;
    }
    if len > MAX_RECEIVED {
        return Ok(Some((Packet::TooLong, 1 + digits + len)));
    }
    let Some(body) = rest.get(digits..digits + len) else { return Ok(None) };
    let packet = match (first, body) {
        (0x20, [_, code]) => Packet::ConnAck(*code),
        (0x40, [high, low]) => Packet::PubAck(u16::from_be_bytes([*high, *low])),
        // 0x80 is the refusal; others are the QoS granted, which is 0.
        (0x90, [_, _, code]) => Packet::SubAck(code & 0x80 == 0),
        (0xd0, _) => Packet::PingResp,
        (_, [high, low, rest @ ..]) => {
            let Some((topic, payload)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else {
                return refused;
            };
            let topic = String::from_utf8_lossy(topic).into_owned();
            Packet::Publish { topic, payload: payload.to_vec(), retained: first & 1 == 1 }
        }
        _ => return refused,
    };
    Ok(Some((packet, 1 + digits + len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_as_the_standard_has_it() {
        let connect = Connect {
            client_id: "c",
            keep_alive: 60,
            will: ("w/a", b"off"),
            username: Some("u"),
            password: Some(b"pw"),
        };
        let expected = b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x3c\x00\x01c\x00\x03w/a\x00\x03off\x00\x01u\x00\x02pw";
        assert_eq!(connect.encode(), expected);
    }

    #[test]
    fn lengths_are_in_digits_of_128() {
        assert_eq!(publish(7, "t", b"x", false), b"\x32\x06\x00\x01t\x00\x07x");
        assert_eq!(publish(7, "t", b"", true)[0], 0x33);
        for (payload, len) in [(122, vec![0x7f]), (123, vec![0x80, 1]), (16_379, vec![0x80, 0x80, 1])] {
            let packet = publish(1, "t", &vec![0; payload], false);
            assert_eq!(packet[1..=len.len()], len, "{payload}");
            assert_eq!(packet.len(), 1 + len.len() + payload + 5);
        }
    }

    #[test]
    fn answers_are_read_whole_or_waited_for() {
        let stream = [0x20, 2, 0, 5, 0x40, 2, 0x12, 0x34, 0xd0, 0];
        assert_eq!(parse(&stream), Ok(Some((Packet::ConnAck(5), 4))));
        assert_eq!(parse(&stream[4..]), Ok(Some((Packet::PubAck(0x1234), 4))));
        assert_eq!(parse(&stream[8..]), Ok(Some((Packet::PingResp, 2))));
        for part in [&stream[..0], &stream[..1], &stream[..3], &stream[4..7], &stream[8..9]] {
            assert_eq!(parse(part), Ok(None), "{part:?}");
        }
        assert_eq!(parse(b"HTTP/1.1 400"), Err(Unexpected(b'H')));
        assert_eq!(parse(&[0x20, 3]), Err(Unexpected(0x20)));
    }

    #[test]
    fn messages_that_were_asked_for_are_read() {
        assert_eq!(subscribe(9, "a/+"), b"\x82\x08\x00\x09\x00\x03a/+\x00");
        assert_eq!(parse(&[0x90, 3, 0, 9, 0]), Ok(Some((Packet::SubAck(true), 5))));
        let mut message = vec![0x31, 0x85, 1, 0, 3];
        message.extend(b"a/b");
        message.extend([7; 128]);
        let publish = Packet::Publish { topic: "a/b".into(), payload: vec![7; 128], retained: true };
        assert_eq!(parse(&message), Ok(Some((publish, message.len()))));
        assert_eq!(parse(&[0x90, 3, 0, 9, 0x80]), Ok(Some((Packet::SubAck(false), 5))));
        for cut in 1..message.len() {
            assert_eq!(parse(&message[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(parse(&[0x30, 2, 0, 1]), Err(Unexpected(0x30)));
        assert_eq!(parse(&[0x30, 0xff, 0xff, 0xff, 0xff]), Err(Unexpected(0x30)));
    }

    #[test]
    fn a_message_that_is_too_long_is_skipped_and_not_held() {
        let mut long = vec![0x31, 0xff, 0xff, 0x7f];
        long.resize(4 + 0x1f_ffff, 0);
        let stream = [&[0xd0, 0][..], &long, &[0xd0, 0, 0x40]].concat();
        let (mut incoming, mut packets) = (Incoming::default(), Vec::new());
        for part in stream.chunks(1000) {
            incoming.push(part);
            while let Some(packet) = incoming.packet().unwrap() {
                packets.push(packet);
            }
            assert!(incoming.bytes.len() <= 1000, "{}", incoming.bytes.len());
        }
        assert_eq!(packets, [Packet::PingResp, Packet::TooLong, Packet::PingResp]);
        assert_eq!(incoming.bytes.len(), 1);
    }
}
