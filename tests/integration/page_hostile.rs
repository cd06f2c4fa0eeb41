//! What others may send to the web page: nothing leaks, hangs or is executed.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Output;
use std::time::{Duration, Instant};

use outlierd::internals::watch::events::{Event, Kind};

use crate::common::daemon::{Place, outlierd, text};
use crate::common::page::{Answer, Page};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A place with one event and its picture; no daemon runs.
fn place() -> Place {
    let place = Place::new("", "[observe]\nsocket = \"o.sock\"\n");
    std::fs::create_dir(&place.snapshots).unwrap();
    let raise = Event { id: Some("e1".into()), ..Event::new(Kind::Raise) };
    std::fs::write(&place.log, format!("{}\n", raise.to_json())).unwrap();
    image::RgbImage::new(8, 8).save(place.snapshots.join("outlier-e1.jpg")).unwrap();
    place
}

#[test]
fn paths_lead_to_pictures_of_events_alone() {
    let place = place();
    std::fs::write(place.path("secret.jpg"), b"\xff\xd8\xffsecret").unwrap();
    symlink(place.path("secret.jpg"), place.snapshots.join("outlier-link.jpg")).unwrap();
    std::fs::write(place.snapshots.join("outlier-text.jpg"), "secret").unwrap();
    std::fs::create_dir(place.snapshots.join("outlier-folder.jpg")).unwrap();
    for clip in ["clip-e1", "elsewhere"] {
        std::fs::create_dir(place.snapshots.join(clip)).unwrap();
        std::fs::copy(place.snapshots.join("outlier-e1.jpg"), place.snapshots.join(clip).join("00001.jpg")).unwrap();
    }
    symlink(place.path("secret.jpg"), place.snapshots.join("clip-e1/00002.jpg")).unwrap();
    symlink(place.snapshots.join("elsewhere"), place.snapshots.join("clip-e2")).unwrap();
    let page = Page::of(&place);
    assert_eq!(page.get("/o/picture/e1.jpg").status, 200);
    assert_eq!(page.get("/o/clip/e1/00001.jpg").status, 200);
    assert!(page.get("/o/events").text().contains("href=\"/o/clip/e1\""));
    assert!(page.get("/o/clip/e1").text().contains("src=\"/o/clip/e1/00001.jpg\""));
    assert!(!page.get("/o/clip/e2").text().contains("<img"));
    for path in [
        "/o/picture/link.jpg",
        "/o/clip/e1/00002.jpg",
        "/o/clip/e2/00001.jpg",
        "/o/clip/e1/..%2f..%2fsecret.jpg",
        "/o/clip/%2e%2e/00001.jpg",
        "/o/picture/text.jpg",
        "/o/picture/folder.jpg",
        "/o/picture/../secret.jpg",
        "/o/picture/%2e%2e/secret.jpg",
        "/o/picture/..%2fsecret.jpg",
        "/o/picture/%2e%2e%2fsecret.jpg",
        "/o/picture/..%5csecret.jpg",
        "/o/picture/%252e%252e%252fsecret.jpg",
        "/o/picture/e1.jpg/../../secret.jpg",
        "/o/picture//e1.jpg",
        "/o/picture/x%00.jpg",
        "/o/picture/e1",
        "/o/picture/.jpg",
        "/o/picture/-heat.jpg",
        "/../../../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/o.toml",
        "/o/o.toml",
        "/other/live",
        "/o/live/more",
        "/style.css/x",
        "*",
        "o/live",
    ] {
        let answer = page.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret") && !answer.text().contains("root:"), "{path}");
    }
}

#[test]
fn every_answer_keeps_browsers_to_the_page() {
    let place = place();
    let page = Page::of(&place);
    for path in ["/o/events", "/style.css", "/app.js", "/o/picture/e1.jpg", "/api/status", "/nothing"] {
        let answer = page.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("referrer-policy").is_some() && answer.header("cache-control").is_some(), "{path}");
    }
    let text = page.get("/o/events").text();
    for inline in [" style=", "<style", " onclick", "<script>", "http://", "https://"] {
        assert!(!text.contains(inline), "{inline}: {text}");
    }
}

#[test]
fn other_sites_reach_nothing() {
    let place = place();
    let page = Page::of(&place);
    let port = page.address.port();
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.168.1.1", "", "a b", "[::1"]
    {
        let answer = page.request("GET", "/o/events", &[("Host", host)], "");
        assert!(matches!(answer.status, 400 | 421), "{host}: {}", answer.status);
        assert!(!answer.text().contains("e1"), "{host}");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "127.1.2.3"] {
        assert_eq!(page.request("GET", "/o/events", &[("Host", host)], "").status, 200, "{host}");
    }
    assert_eq!(page.raw(b"GET /o/events HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400);
    assert_eq!(page.raw(b"GET /o/events HTTP/1.0\r\n\r\n").status, 400);
    let doubled = "GET /o/events HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(page.raw(doubled.as_bytes()).status, 400);
    let proxied = "GET http://evil.example/o/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(page.raw(proxied.as_bytes()).status, 400);

    let form = page.get("/o/events");
    let body = format!("form={}&id=e1", form.form_token());
    let own = format!("http://127.0.0.1:{port}");
    let post = |headers: &[(&str, &str)], body: &str| page.request("POST", "/o/normal", headers, body).status;
    for headers in [
        [("Origin", "http://evil.example")].as_slice(),
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1")],
        &[("Origin", "http://localhost:1")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", &own)],
        &[("Origin", &own), ("Origin", "http://evil.example")],
    ] {
        assert_eq!(post(headers, &body), 403, "{headers:?}");
    }
    for body in ["id=e1", "form=&id=e1", "form=0000&id=e1", "x"] {
        assert_eq!(post(&[("Origin", &own)], body), 403, "{body}");
    }
    // It comes through, and the command has no model to teach.
    assert_eq!(post(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")], &body), 422);
    for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
        let answer = page.request(method, "/o/events", &[], "");
        assert!(matches!(answer.status, 400 | 405), "{method}: {}", answer.status);
    }
    assert_eq!(page.get("/o/normal").status, 404);
}

#[test]
fn what_is_too_large_or_none_is_refused_and_others_are_answered() {
    let place = place();
    let page = Page::of(&place);
    let long = "x".repeat(100_000);
    let path = page.get(&format!("/{long}"));
    assert!(matches!(path.status, 414 | 431 | 400), "{}", path.status);
    let header = page.request("GET", "/o/events", &[("X-Long", &long)], "");
    assert!(matches!(header.status, 431 | 400), "{}", header.status);
    let many: Vec<(String, String)> = (0..1000).map(|at| (format!("X-{at}"), "y".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(page.request("GET", "/o/events", &many, "").status, 431);
    // What is still on its way when the server closes takes its answer with it.
    assert!(matches!(page.request("POST", "/o/normal", &[], &long).status, 413 | 0));
    let lies =
        "POST /o/normal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\nx";
    assert_eq!(page.raw(lies.as_bytes()).status, 413);
    let smuggled = "POST /o/normal HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    assert_eq!(page.raw(smuggled.as_bytes()).status, 400);
    for bytes in
        [b"\0\0\0\0\r\n\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        assert!(matches!(page.raw(bytes).status, 400 | 0 | 505), "{bytes:?}");
    }
    assert_eq!(page.get("/o/events").status, 200);
}

#[test]
fn many_and_slow_clients_are_left_and_the_page_answers() {
    let place = place();
    let page = Page::of(&place);
    let started = Instant::now();
    // More than are served at once; each says half of a head, and some nothing.
    let mut slow = Vec::new();
    for at in 0..500 {
        let mut stream = page.connect();
        if at % 2 == 0 {
            let _ = stream.write_all(b"GET /o/events HTTP/1.1\r\nHost: localhost\r\n");
        }
        slow.push(stream);
    }
    let refused = |stream: &mut std::net::TcpStream| {
        let mut answer = [0; 12];
        matches!(stream.read(&mut answer), Ok(12) if answer.starts_with(b"HTTP/1.1 503"))
    };
    assert!(slow.iter_mut().skip(64).any(refused));
    // Those that are served and say no more are closed, so that others come in.
    let answered = page.wait_for("/o/events", "answer", |answer| answer.status == 200);
    assert!(answered.text().contains("e1"));
    assert!(started.elapsed() > Duration::from_secs(5), "500 clients did not fill the page");
    drop(slow);
    let slow_body = "POST /o/normal HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nform=";
    let asked = Instant::now();
    assert!(matches!(page.raw(slow_body.as_bytes()).status, 0 | 400 | 408));
    assert!(asked.elapsed() < Duration::from_secs(60));
    assert!(page.peak_kib() < 20 << 10, "{} KiB", page.peak_kib());
}

fn refused(arguments: &[&str]) -> Output {
    let output = outlierd().arg("page").args(arguments).output().unwrap();
    assert!(!output.status.success());
    output
}

#[test]
fn others_are_let_in_by_the_token_alone() {
    let place = place();
    let file = place.path("token");
    let config = place.path("o.toml");
    let (config, token_file) = (config.to_str().unwrap(), file.to_str().unwrap());
    for address in ["0.0.0.0:0", "[::]:0"] {
        let open = refused(&["--listen", address, "-c", config]);
        assert!(
            open.status.code() == Some(64) && text(&open.stderr).contains("--token-file"),
            "{}",
            text(&open.stderr)
        );
    }
    let named = refused(&["--listen", "127.0.0.1:0", "--host", "door.local", "-c", config]);
    assert!(text(&named.stderr).contains("door.local"), "{}", text(&named.stderr));
    std::fs::write(&file, "short\n").unwrap();
    let short = refused(&["--listen", "0.0.0.0:0", "--token-file", token_file, "-c", config]);
    assert!(
        short.status.code() == Some(78) && text(&short.stderr).contains("shorter than 20"),
        "{}",
        text(&short.stderr)
    );
    let none = refused(&["--listen", "0.0.0.0:0", "--token-file", "/nonexistent", "-c", config]);
    assert_eq!(none.status.code(), Some(66));

    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let page = Page::start(&place, |command| {
        command.args(["--host", "door.local", "--token-file", token_file]);
    });
    assert_eq!(page.get("/o/events").header("location"), Some("/login"));
    for path in ["/api/status", "/api/events", "/metrics", "/snapshot.jpg", "/o/picture/e1.jpg", "/o/frame.jpg"] {
        let answer = page.get(path);
        assert!(answer.status == 401 && !answer.text().contains("e1"), "{path}: {}", answer.status);
    }
    let login = page.get("/login");
    assert_eq!(page.post("/o/normal", &login, "id=e1").status, 401);
    let wrong = page.post("/login", &login, "token=0123456789abcdef0123456789abcdee");
    assert!(wrong.status == 403 && wrong.header("set-cookie").is_none());
    let opened = page.post("/login", &login, &format!("token={TOKEN}"));
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
    let cookie = opened.header("set-cookie").unwrap().to_owned();
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |cookie: &str, path: &str| page.request("GET", path, &[("Cookie", cookie), ("Host", "door.local")], "");
    let events = with(&format!("a=b; {cookie}"), "/o/events");
    assert!(events.status == 200 && events.text().contains("e1"));
    assert_eq!(with(&format!("{cookie}0"), "/o/events").status, 303);
    assert_eq!(with("outlierd=", "/api/status").status, 401);
    // A form is of its session, not of the log-in before.
    let post = |of: &Answer| {
        let body = format!("form={}&id=nothing", of.form_token());
        page.request("POST", "/o/normal", &[("Cookie", cookie.as_str())], &body).status
    };
    assert_eq!((post(&login), post(&events)), (403, 422));
    let bearer =
        |token: &str| page.request("GET", "/metrics", &[("Authorization", &format!("Bearer {token}"))], "").status;
    assert_eq!((bearer(TOKEN), bearer("wrong")), (200, 401));
    let out = format!("form={}", events.form_token());
    assert_eq!(page.request("POST", "/logout", &[("Cookie", &cookie)], &out).status, 303);
    assert_eq!(with(&cookie, "/o/events").status, 303);
    let mut later = false;
    for _ in 0..20 {
        later |= page.post("/login", &login, "token=x").text().contains("Too many");
    }
    assert!(later && page.post("/login", &login, &format!("token={TOKEN}")).status == 403);
}

#[test]
fn the_unit_is_as_closed_as_systemd_can_tell() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/outlierd-page.service");
    let mut command = std::process::Command::new("systemd-analyze");
    // 2.0 of 10.
    match command.args(["security", "--offline=true", "--threshold=20", "--no-pager", unit]).output() {
        Ok(output) => assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr)),
        Err(e) => println!("SKIPPED page unit: no systemd-analyze: {e}"),
    }
}
