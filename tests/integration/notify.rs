//! The packaged scripts that hand events to a spool and send them from there, with curl and a server on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use outlierd::internals::watch::events::{Event, Kind};

const SPOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/spool.sh");
const SEND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/send.sh");
const TOKEN: &str = "se\"cr\\et";

/// Whether the commands are there; where one is not, a line names the test.
fn has(test: &str, commands: &[&str]) -> bool {
    commands.iter().all(|name| {
        let find = Command::new("/bin/sh").args(["-c", "command -v \"$0\"", name]).output().unwrap();
        if !find.status.success() {
            println!("SKIPPED {test}: {name} is not installed");
        }
        find.status.success()
    })
}

/// A folder with the spool, the snapshots, and programs that stand in for others.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for folder in ["spool", "programs", "credentials"] {
            std::fs::create_dir(place.path(folder)).unwrap();
        }
        // By another process: what another test starts meanwhile would hold the file open for writing.
        place.program("sleep", &format!("echo \"$1\" >> {}", place.path("slept").display()));
        std::fs::write(place.path("credentials/token"), format!("{TOKEN}\n")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("programs").join(name);
        let write =
            ["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod +x \"$0\"", path.to_str().unwrap(), script];
        assert!(Command::new("/bin/sh").args(write).status().unwrap().success());
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(script);
        let path = format!("{}:{}", self.path("programs").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("SPOOL", self.path("spool"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start_spool(&self, event: &Event, kinds: &[&str]) -> Child {
        let mut child = self.command(SPOOL).args(kinds).env("OUTLIERD_EVENT", event.event.name()).spawn().unwrap();
        // One that wants no event of its kind does not read it.
        let _ = child.stdin.take().unwrap().write_all(event.to_json().as_bytes());
        child
    }

    fn spool(&self, event: &Event, kinds: &[&str]) -> String {
        let output = self.start_spool(event, kinds).wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The event with that id, which a picture belongs to.
    fn raise(&self, id: &str) -> Event {
        let snapshot = self.path(&format!("outlier-{id}.jpg"));
        std::fs::write(&snapshot, format!("picture of {id}\r\n\0")).unwrap();
        Event {
            id: Some(id.into()),
            p: Some(0.004),
            threshold: Some(0.01),
            snapshot: Some(snapshot),
            instance: Some("door".into()),
            ..Event::at(Kind::Raise, SystemTime::UNIX_EPOCH)
        }
    }

    fn send(&self, to: &str, environment: &[(&str, &str)]) -> Output {
        let mut command = self.command(SEND);
        command.env("TO", to).env("CREDENTIALS_DIRECTORY", self.path("credentials"));
        command.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
    }

    fn sends(&self, to: &str, environment: &[(&str, &str)]) -> String {
        let output = self.send(to, environment);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn spooled(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("spool")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    fn slept(&self) -> String {
        std::fs::read_to_string(self.path("slept")).unwrap_or_default()
    }
}

struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|line| line == header)
    }

    fn contains(&self, bytes: &[u8]) -> bool {
        self.body.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Answers with these status codes, one a request, then with 200.
fn server(statuses: &'static [u16]) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, requests) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter().copied();
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = (&mut reader).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
            let Some(line) = head.next() else { continue };
            let headers: Vec<String> = head.collect();
            let length = headers.iter().find_map(|header| header.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let status = statuses.next().unwrap_or(200);
            let answer = format!("HTTP/1.1 {status} It\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // Before the answer: who is answered may end.
            if told.send(Request { line, headers, body }).is_err() {
                return;
            }
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (port, requests)
}

#[test]
fn a_hook_spools_the_kinds_it_is_told_to_in_order() {
    if !has("a_hook_spools_the_kinds_it_is_told_to_in_order", &["flock"]) {
        return;
    }
    let place = Place::new();
    let kinds = ["raise", "camera-lost"];
    assert_eq!(place.spool(&place.raise("a"), &kinds), "");
    place.spool(&Event::new(Kind::Stop), &kinds);
    place.spool(&Event::new(Kind::CameraLost), &kinds);
    place.spool(&Event::new(Kind::Stop), &[]);
    assert_eq!(place.spooled(), ["0000000001.jpg", "0000000001.json", "0000000002.json", "0000000003.json"]);
    let spooled = |name: &str| std::fs::read_to_string(place.path("spool").join(name)).unwrap();
    assert_eq!(spooled("0000000001.json"), place.raise("a").to_json());
    assert_eq!(spooled("0000000001.jpg"), "picture of a\r\n\0");
    assert!(spooled("0000000003.json").contains("\"stop\""));
    // A picture that is gone does not keep its event.
    let lost = Event { snapshot: Some("/nonexistent/a.jpg".into()), ..place.raise("b") };
    assert!(place.spool(&lost, &kinds).contains("/nonexistent/a.jpg"));
    assert_eq!(place.spooled().last().unwrap(), "0000000004.json");
}

#[test]
fn hooks_of_several_daemons_share_a_spool_that_is_bounded() {
    if !has("hooks_of_several_daemons_share_a_spool_that_is_bounded", &["flock"]) {
        return;
    }
    let place = Place::new();
    let children: Vec<Child> = (0..8).map(|id| place.start_spool(&place.raise(&id.to_string()), &[])).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(place.spooled().len(), 16);
    let mut child = place.command(SPOOL).env("OUTLIERD_EVENT", "stop").env("SPOOL_MOST", "5").spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"event\":\"stop\"}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("5 events wait"), "{}", output.status);
    let expected: Vec<String> = (5..9)
        .flat_map(|n| [format!("{n:010}.jpg"), format!("{n:010}.json")])
        .chain(["0000000009.json".into()])
        .collect();
    assert_eq!(place.spooled(), expected);
}

#[test]
fn ntfy_gets_pictures_and_the_token_which_no_process_list_shows() {
    if !has("ntfy_gets_pictures_and_the_token_which_no_process_list_shows", &["curl", "flock"]) {
        return;
    }
    let place = Place::new();
    let curl = Command::new("/bin/sh").args(["-c", "command -v curl"]).output().unwrap().stdout;
    let arguments = place.path("arguments");
    let curl = String::from_utf8(curl).unwrap();
    place.program("curl", &format!("echo \"$*\" >> {}\nexec {} \"$@\"", arguments.display(), curl.trim()));
    place.spool(&place.raise("a"), &[]);
    let lost = Event {
        message: Some("\"gone\" \\ @away".into()),
        instance: Some("door".into()),
        ..Event::new(Kind::CameraLost)
    };
    place.spool(&lost, &[]);
    let (port, requests) = server(&[]);
    assert_eq!(place.sends(&format!("ntfy:http://127.0.0.1:{port}/secret-topic"), &[]), "");
    assert!(place.spooled().is_empty() && place.slept().is_empty());
    let requests: Vec<Request> = requests.try_iter().collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].line, "PUT /secret-topic HTTP/1.1");
    assert_eq!(requests[0].body, b"picture of a\r\n\0");
    assert!(requests[0].has("Title: door: raise"), "{:?}", requests[0].headers);
    assert!(requests[0].has("Message: p 0.004, threshold 0.01; 1970-01-01T00:00:00.000Z"), "{:?}", requests[0].headers);
    assert!(requests.iter().all(|request| request.has(&format!("Authorization: Bearer {TOKEN}"))));
    assert_eq!(requests[1].line, "POST /secret-topic HTTP/1.1");
    assert!(requests[1].has("Title: door: camera-lost") && requests[1].body.starts_with(b"\"gone\" \\ @away; "));
    let arguments = std::fs::read_to_string(arguments).unwrap();
    assert_eq!(arguments.lines().count(), 2);
    assert!(!arguments.contains("cr") && !arguments.contains("topic"), "{arguments}");
}

#[test]
fn a_webhook_gets_the_event_as_json_or_a_form() {
    if !has("a_webhook_gets_the_event_as_json_or_a_form", &["curl", "flock"]) {
        return;
    }
    let place = Place::new();
    let (port, requests) = server(&[]);
    let to = format!("webhook:http://127.0.0.1:{port}/hook");
    let raise = place.raise("a");
    for picture in ["yes", "no"] {
        place.spool(&raise, &[]);
        place.sends(&to, &[("PICTURE", picture)]);
    }
    let [form, json] = requests.try_iter().collect::<Vec<Request>>().try_into().ok().unwrap();
    assert!(form.headers.iter().any(|header| header.starts_with("Content-Type: multipart/form-data")));
    assert!(form.contains(raise.to_json().as_bytes()) && form.contains(b"picture of a\r\n\0"));
    assert!(json.has("Content-Type: application/json"));
    assert_eq!(json.body, raise.to_json().as_bytes());
    assert!(place.spooled().is_empty());
}

#[test]
fn what_is_not_taken_is_sent_again_in_order_and_once() {
    if !has("what_is_not_taken_is_sent_again_in_order_and_once", &["curl", "flock"]) {
        return;
    }
    let place = Place::new();
    for id in ["a", "b"] {
        place.spool(&place.raise(id), &[]);
    }
    let (port, requests) = server(&[503, 429, 404, 401, 200, 500]);
    let told = place.sends(&format!("webhook:http://127.0.0.1:{port}/"), &[("RETRY_MOST", "12")]);
    let sent: Vec<u8> =
        requests.try_iter().map(|request| if request.contains(b"picture of a") { b'a' } else { b'b' }).collect();
    assert_eq!(String::from_utf8(sent).unwrap(), "aaaaabb");
    assert_eq!(place.slept(), "5\n10\n12\n12\n5\n");
    assert!(told.contains("door: raise: the receiver answers with status 503"), "{told}");
    assert!(place.spooled().is_empty());
}

#[test]
fn what_is_refused_or_too_old_is_dropped_and_the_next_is_sent() {
    if !has("what_is_refused_or_too_old_is_dropped_and_the_next_is_sent", &["curl", "flock"]) {
        return;
    }
    let place = Place::new();
    for id in ["large", "bad", "old", "new"] {
        place.spool(&place.raise(id), &[]);
    }
    let four_days_ago = SystemTime::now() - Duration::from_secs(4 * 86_400);
    let old = std::fs::File::options().append(true).open(place.path("spool/0000000003.json")).unwrap();
    old.set_modified(four_days_ago).unwrap();
    // The picture is too large; neither picture nor event is liked; the receiver is down.
    let (port, requests) = server(&[413, 200, 400, 400, 503, 200]);
    let told = place.sends(&format!("webhook:http://127.0.0.1:{port}/"), &[]);
    let requests: Vec<Request> = requests.try_iter().collect();
    let ids = ["large", "large", "bad", "bad", "old", "new"];
    assert_eq!(requests.len(), ids.len());
    for (request, id) in requests.iter().zip(ids) {
        assert!(request.contains(format!("\"id\":\"{id}\"").as_bytes()));
    }
    assert!(!requests[1].contains(b"picture of") && !requests[3].contains(b"picture of"));
    assert!(told.contains("refused, and dropped") && told.contains("not sent in 3 days, and dropped"), "{told}");
    assert!(place.spooled().is_empty() && place.slept().is_empty());
}

#[test]
fn a_receiver_that_is_not_there_keeps_the_events() {
    if !has("a_receiver_that_is_not_there_keeps_the_events", &["curl", "flock"]) {
        return;
    }
    let place = Place::new();
    place.spool(&place.raise("a"), &[]);
    // The first wait ends it, as the service does.
    place.program("sleep", "kill -TERM $PPID");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = place.send(&format!("ntfy:http://127.0.0.1:{port}/topic"), &[]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("door: raise: not sent; tried again in 5 s"));
    assert_eq!(place.spooled(), ["0000000001.jpg", "0000000001.json"]);
}

#[test]
fn mail_has_the_picture_attached() {
    if !has("mail_has_the_picture_attached", &["flock", "base64"]) {
        return;
    }
    let place = Place::new();
    let mail = place.path("mail");
    place.program("sendmail", &format!("[ \"$*\" = '-i -t' ] && cat > {}", mail.display()));
    place.spool(&place.raise("a"), &[]);
    assert_eq!(place.sends("mail:you@example.org", &[]), "");
    let mail = std::fs::read_to_string(mail).unwrap();
    // base64 of "door: raise" and of the picture.
    for expected in
        ["To: you@example.org\n", "=?utf-8?B?ZG9vcjogcmFpc2U=?=", "\ncGljdHVyZSBvZiBhDQoA\n", "\n--outlierd--\n"]
    {
        assert!(mail.contains(expected), "no {expected:?} in {mail}");
    }
    assert!(place.spooled().is_empty());
}

#[test]
fn a_config_that_cannot_send_says_what_is_wrong() {
    let place = Place::new();
    for (to, environment, code, expected) in [
        ("", ("PICTURE", "yes"), 78, "TO is not set: in /etc/outlierd/notify.conf"),
        ("ntfy:file:///etc/passwd", ("PICTURE", "yes"), 78, "TO is not set"),
        ("mail:nobody", ("PICTURE", "yes"), 78, "TO is not set"),
        ("webhook:http://x/", ("PICTURE", "ja"), 78, "PICTURE=ja: yes or no"),
        ("webhook:http://x/", ("KEEP_DAYS", "0.5"), 78, "KEEP_DAYS=0.5: a whole number above 0"),
        ("webhook:http://x/", ("CREDENTIALS_DIRECTORY", "/nonexistent"), 78, "/nonexistent/token cannot be read"),
        ("webhook:http://x/", ("PATH", "/nonexistent"), 69, "curl is not installed: `apt install curl`"),
        ("mail:a@b", ("PATH", "/nonexistent"), 69, "sendmail is not installed: `apt install msmtp-mta`"),
    ] {
        let output = place.send(to, &[environment]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && told.contains(expected), "{to}: {told}");
    }
    let missing = Command::new(SPOOL).env("SPOOL", Path::new("/nonexistent")).env("OUTLIERD_EVENT", "raise").output();
    assert!(!missing.unwrap().status.success());
}
