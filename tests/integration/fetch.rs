//! `models/fetch.sh` against a server of our own: the script runs beside a list of small files.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

const NAME: &str = "small.onnx";

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// What the server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// Continues where it is asked to.
    Ranges,
    /// Always sends the whole.
    Whole,
    /// Sends this many bytes less than it announces.
    Short(usize),
    /// Answers that there is no such file.
    Missing,
}

/// Serves `body` at every path on a free port until the process ends; the requests' `Range` headers are collected.
fn serve(server: Server, body: Vec<u8>) -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            let header = |line: &String| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_string);
            let range = head.iter().find_map(header);
            seen.lock().unwrap().push(range.clone());
            let from = range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
            let (status, body) = match (server, from) {
                (Server::Missing, _) => ("404 Not Found".into(), &b"no such file"[..]),
                (Server::Ranges, Some(from)) if from >= body.len() => ("416 Range Not Satisfiable".into(), &[][..]),
                (Server::Ranges, Some(from)) => {
                    let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
                    (format!("206 Partial Content\r\n{range}"), &body[from..])
                }
                _ => ("200 OK".into(), &body[..]),
            };
            let sent = if let Server::Short(less) = server { body.len() - less } else { body.len() };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
        }
    });
    (url, ranges)
}

/// A copy of the script with a list of one file, and a folder to fetch into.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fetch.sh");
        std::fs::copy(script, dir.path().join("fetch.sh")).unwrap();
        let hash: String = Sha256::digest(content()).iter().map(|b| format!("{b:02x}")).collect();
        let list = format!("# a list\n{NAME} {} {hash} folder\n", content().len());
        std::fs::write(dir.path().join("fetch.list"), list).unwrap();
        Place { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("to").join(NAME)
    }

    fn part(&self) -> PathBuf {
        self.file().with_extension("onnx.part")
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn command(&self, url: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg(self.dir.path().join("fetch.sh")).args(["small", "--to"]).arg(self.dir.path().join("to"));
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.env("OUTLIERD_MODELS_URL", url);
        command
    }

    /// Runs the script; the exit code and what it said.
    fn fetch(&self, url: &str) -> (i32, String) {
        said(self.command(url).output().unwrap())
    }

    /// Runs the script with these programs alone on the path.
    fn fetch_with(&self, url: &str, programs: &[&str]) -> Option<(i32, String)> {
        let bin = self.dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let basics = ["sh", "awk", "basename", "cat", "cut", "dirname", "mkdir", "mv", "rm", "sha256sum", "sync", "tr"];
        for program in basics.iter().chain(&["wc"]).chain(programs) {
            let all = std::env::var_os("PATH").unwrap();
            let found = std::env::split_paths(&all).map(|dir| dir.join(program)).find(|p| p.is_file());
            let Some(found) = found else {
                println!("SKIPPED: no {program} here");
                return None;
            };
            let _ = std::os::unix::fs::symlink(found, bin.join(program));
        }
        Some(said(self.command(url).env("PATH", bin).output().unwrap()))
    }
}

fn said(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

/// Whether there is a tool to download with; says so if not.
fn tool(test: &str) -> bool {
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !there("curl") && !there("wget") {
        println!("SKIPPED {test}: no curl and no wget");
        return false;
    }
    true
}

#[test]
fn a_file_is_fetched_once() {
    if !tool("a_file_is_fetched_once") {
        return;
    }
    let place = Place::new();
    let (url, ranges) = serve(Server::Ranges, content());
    let (code, text) = place.fetch(&format!("{url}/"));
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read(place.file()).unwrap(), content());
    assert!(!place.part().exists());
    assert_eq!(ranges.lock().unwrap().len(), 1);
    let (code, text) = place.fetch(&url);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("is there"), "{text}");
    assert_eq!(ranges.lock().unwrap().len(), 1, "what is there is not fetched again");
}

#[test]
fn curl_and_wget_both_go_on_where_they_stopped() {
    for tool in ["curl", "wget"] {
        let place = Place::new();
        place.put(&place.part(), &content()[..60_000]);
        let (url, ranges) = serve(Server::Ranges, content());
        let Some((code, text)) = place.fetch_with(&url, &[tool]) else { continue };
        assert_eq!(code, 0, "{text}");
        assert_eq!(*ranges.lock().unwrap(), [Some("60000-".to_string())], "{tool}");
        assert_eq!(std::fs::read(place.file()).unwrap(), content());
    }
}

#[test]
fn a_server_that_cannot_continue_is_asked_for_the_whole() {
    for tool in ["curl", "wget"] {
        let place = Place::new();
        place.put(&place.part(), &content()[..60_000]);
        let (url, _) = serve(Server::Whole, content());
        let Some((code, text)) = place.fetch_with(&url, &[tool]) else { continue };
        assert_eq!(code, 0, "{text}");
        assert_eq!(std::fs::read(place.file()).unwrap(), content());
    }
}

#[test]
fn a_wrong_beginning_is_thrown_away() {
    if !tool("a_wrong_beginning_is_thrown_away") {
        return;
    }
    for wrong in [vec![7; 60_000], vec![7; 100_000], vec![7; 200_000]] {
        let place = Place::new();
        place.put(&place.part(), &wrong);
        let (url, _) = serve(Server::Ranges, content());
        let (code, text) = place.fetch(&url);
        assert_eq!(code, 0, "{text}");
        assert_eq!(std::fs::read(place.file()).unwrap(), content());
    }
}

#[test]
fn a_whole_part_needs_no_server() {
    let place = Place::new();
    place.put(&place.part(), &content());
    let Some((code, text)) = place.fetch_with("http://127.0.0.1:9", &["curl"]) else { return };
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read(place.file()).unwrap(), content());
}

#[test]
fn an_interrupted_download_keeps_what_came() {
    for tool in ["curl", "wget"] {
        let place = Place::new();
        let (url, _) = serve(Server::Short(30_000), content());
        let Some((code, text)) = place.fetch_with(&url, &[tool, "timeout"]) else { continue };
        assert_eq!(code, 69, "{text}");
        assert!(text.contains("the next call goes on"), "{text}");
        assert_eq!(std::fs::read(place.part()).unwrap(), content()[..70_000]);
        assert!(!place.file().exists());
        let (url, ranges) = serve(Server::Ranges, content());
        let (code, text) = place.fetch(&url);
        assert_eq!(code, 0, "{text}");
        assert_eq!(*ranges.lock().unwrap(), [Some("70000-".to_string())]);
    }
}

#[test]
fn something_else_from_the_server_is_refused() {
    let mut flipped = content();
    flipped[50_000] ^= 1;
    let pointer = b"version https://git-lfs.github.com/spec/v1\n".to_vec();
    let cases = [
        (Server::Ranges, flipped, "SHA-256"),
        (Server::Ranges, pointer, "it has 43 bytes, not 100000"),
        (Server::Ranges, vec![1; 150_000], ""),
        (Server::Missing, content(), "ended with status"),
    ];
    for tool in ["curl", "wget"] {
        for (server, body, says) in cases.clone() {
            let place = Place::new();
            let (url, _) = serve(server, body);
            let Some((code, text)) = place.fetch_with(&url, &[tool]) else { break };
            assert_eq!(code, 69, "{text}");
            assert!(text.contains(says) && text.contains("cannot be had"), "{text}");
            assert!(!place.file().exists() && !place.part().exists(), "{tool}: {text}");
        }
    }
}

#[test]
fn without_network_or_tool_it_says_so() {
    let place = Place::new();
    // A port that was free a moment ago: nothing listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    if let Some((code, text)) = place.fetch_with(&format!("http://{free}"), &["curl"]) {
        assert_eq!(code, 69, "{text}");
        assert!(text.contains("Is there a network?"), "{text}");
    }
    let place = Place::new();
    if let Some((code, text)) = place.fetch_with("http://127.0.0.1:9", &[]) {
        assert_eq!(code, 69, "{text}");
        assert!(text.contains("no curl and no wget"), "{text}");
    }
}

#[test]
fn another_file_under_the_name_is_left_alone() {
    let place = Place::new();
    place.put(&place.file(), b"mine");
    let (code, text) = place.fetch("http://127.0.0.1:9");
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("it has 4 bytes, not 100000") && text.contains("move it away"), "{text}");
    assert_eq!(std::fs::read(place.file()).unwrap(), b"mine");
}

#[test]
fn a_folder_is_a_mirror_too() {
    let place = Place::new();
    let mirror = place.dir.path().join("mirror");
    place.put(&mirror.join(NAME), &content());
    let Some((code, text)) = place.fetch_with(&format!("file://{}", mirror.display()), &["curl"]) else { return };
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read(place.file()).unwrap(), content());
}

#[test]
fn the_list_pins_the_zoos_files() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fetch.sh");
    let run = |args: &[&str]| said(Command::new("sh").arg(&script).args(args).output().unwrap());
    let (code, text) = run(&["--list"]);
    assert_eq!(code, 0);
    for (name, bytes, hash) in [
        ("resnet50-v1-12-int8.onnx", "25816052", "c234f30975989788b4405f25253275aae247ab6dbdd34aaa69ab0a59ff76f6d0"),
        ("resnet50-v1-12-qdq.onnx", "25753167", "e6429d274805654c79ba68dc886c1efd4eff95393e747c35d3fdab579febd8a0"),
        ("resnet50-v1-12.onnx", "102576419", "ab65bdc02c5b3123eb3cdf6dac01742438517d8635d4f233913b2be1c70db3b6"),
    ] {
        let row = |line: &&str| line.split_whitespace().collect::<Vec<_>>() == [name, bytes, "bytes", hash];
        assert_eq!(text.lines().filter(row).count(), 1, "{text}");
    }
    for (args, says) in [
        (&["resnet18"][..], "--list says what is"),
        (&["--frobnicate"], "--help says what is"),
        (&["--to"], "needs a folder"),
    ] {
        let (code, text) = run(args);
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(says), "{text}");
    }
    assert!(run(&["--help"]).1.contains("OUTLIERD_MODELS_URL"));
}
