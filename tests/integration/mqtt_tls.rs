//! TLS to a real broker, with certificates that the program `openssl` makes.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::daemon::{PATIENCE, text};
use crate::mqtt_broker::{Broker, Received, mosquitto};
use outlierd::internals::watch::outputs::mqtt::account::Account;
use outlierd::internals::watch::outputs::mqtt::client::Client;
use outlierd::internals::watch::outputs::mqtt::tls::Tls;
use rustix::process::Signal;

/// Two CAs and what they have signed. A certificate `NAME.pem` has its key in `NAME.key`.
struct Certificates(tempfile::TempDir);

/// Of `openssl ca`: whatever is asked for, from when to when.
const CA: &str = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\n\
                  policy = p\nunique_subject = no\n[p]\ncommonName = supplied\n[here]\nsubjectAltName = \
                  IP:127.0.0.1,DNS:localhost\n[elsewhere]\nsubjectAltName = DNS:broker.example\n";

impl Certificates {
    fn make() -> Self {
        let made = Certificates(tempfile::tempdir().unwrap());
        std::fs::write(made.path("conf"), CA).unwrap();
        std::fs::write(made.path("index"), "").unwrap();
        for ca in ["ca", "other-ca"] {
            let subject = format!("/CN=test {ca}");
            made.openssl(&format!("req -x509 -days 3650 {EC} -keyout {ca}.key -out {ca}.pem -subj"), &[&subject]);
        }
        let (old, now, far) = ("20200101000000Z", "20240101000000Z", "20990101000000Z");
        for (name, ca, extensions, from, to) in [
            ("server", "ca", "here", now, far),
            ("elsewhere", "ca", "elsewhere", now, far),
            ("expired", "ca", "here", old, "20210101000000Z"),
            ("early", "ca", "here", "20980101000000Z", far),
            ("client", "ca", "here", now, far),
            ("other-server", "other-ca", "here", now, far),
            ("other-client", "other-ca", "here", now, far),
        ] {
            made.openssl(&format!("req -new {EC} -keyout {name}.key -out {name}.csr -subj /CN={name}"), &[]);
            let dates = format!("-startdate {from} -enddate {to} -extensions {extensions}");
            let by = format!("-config conf -cert {ca}.pem -keyfile {ca}.key");
            made.openssl(&format!("ca -batch -notext {by} {dates} -in {name}.csr -out {name}.pem"), &[]);
        }
        made.openssl("pkey -in client.key -aes256 -passout pass:secret -out locked.key", &[]);
        made
    }

    fn openssl(&self, arguments: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        let out = command.args(arguments.split(' ')).args(more).current_dir(self.0.path()).output().unwrap();
        assert!(out.status.success(), "openssl {arguments}: {}", text(&out.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a listener with a certificate needs.
    fn listener(&self, name: &str) -> String {
        let path = |end: &str| self.path(&format!("{name}.{end}"));
        format!("certfile {}\nkeyfile {}", path("pem").display(), path("key").display())
    }
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Broker and certificates; None, and a line that names the test, where a program is missing.
fn programs(test: &str) -> Option<(PathBuf, &'static Certificates)> {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED {test}: no openssl");
        return None;
    }
    Some((mosquitto(test)?, MADE.get_or_init(Certificates::make)))
}

fn account(port: u16, tls: Option<Tls>) -> Account {
    Account {
        host: "127.0.0.1".into(),
        port,
        tls,
        client_id: "test".into(),
        username: None,
        password_file: None,
        will: ("gone".into(), "gone".into()),
        birth: None,
    }
}

/// What the connection says.
fn connect(port: u16, tls: Option<Tls>) -> Result<(), String> {
    account(port, tls).connect().map(drop).map_err(|e| e.to_string())
}

#[test]
fn the_daemon_speaks_tls_and_takes_renewed_certificates_without_a_restart() {
    let test = "the_daemon_speaks_tls_and_takes_renewed_certificates_without_a_restart";
    let Some((program, made)) = programs(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let install = |ca: &str, server: &str| {
        for (from, to) in
            [(format!("{ca}.pem"), "ca.pem"), (format!("{server}.pem"), "s.pem"), (format!("{server}.key"), "s.key")]
        {
            std::fs::copy(made.path(&from), file(to)).unwrap();
        }
    };
    install("ca", "server");
    let tls = format!("certfile {}\nkeyfile {}", file("s.pem").display(), file("s.key").display());
    let mut broker = Broker::start_tls(program, &tls);
    let subscriber = broker.subscribe(&["home/door/#", "large"]);
    let place = broker.place("interval = \"1h\"", &format!("tls = true\nca-file = {:?}", file("ca.pem")));
    let check = text(&place.run(&["check"]).stdout);
    assert!(check.contains("mqtt      ok    127.0.0.1") && !check.contains("warning"), "{check}");
    let daemon = place.spawn();
    subscriber.has("home/door/availability", "online");
    let started = |all: &[Received]| all.iter().any(|r| r.topic == "home/door/event");
    subscriber.wait("the start", started);
    broker.down();
    let before = subscriber.received().len();
    install("other-ca", "other-server");
    broker.up();
    // What is retained is of the connection before.
    subscriber.wait("the new broker", |all| all[before..].iter().any(|r| r.payload == "online" && !r.retained));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    subscriber.has("home/door/availability", "offline");

    // A wrong CA by the command.
    std::fs::copy(made.path("ca.pem"), file("ca.pem")).unwrap();
    let check = text(&place.run(&["check"]).stdout);
    let told =
        format!("mqtt      WRONG MQTT broker 127.0.0.1:{}: its certificate is of a CA", broker.tls_port.unwrap());
    assert!(check.contains(&told), "{check}");
}

#[test]
fn pictures_of_megabytes_go_both_ways_round_a_slow_reader() {
    let test = "pictures_of_megabytes_go_both_ways_round_a_slow_reader";
    let Some((program, made)) = programs(test) else { return };
    let broker = Broker::start_tls(program, &made.listener("server"));
    let tls = Some(Tls { ca: Some(made.path("ca.pem")), client: None });
    let account = Account { birth: Some(("large".into(), b"x".into())), ..account(broker.tls_port.unwrap(), tls) };
    let mut client = Client::start(account).unwrap();
    // It is subscribed to, so that it comes back, is too long, and is skipped.
    for _ in 0..8 {
        client.send("large".into(), vec![b'x'; 3 << 19]).unwrap();
    }
    client.send("small".into(), b"last".into()).unwrap();
    let (left, failures) = client.end(Duration::from_secs(60));
    assert!(left.is_empty() && failures.is_empty(), "{} left, {failures:?}", left.len());
}

#[test]
fn what_is_wrong_with_certificates_is_told() {
    let Some((program, made)) = programs("what_is_wrong_with_certificates_is_told") else { return };
    let with = |ca: &str, client: Option<&str>| {
        let files = |name: &str| (made.path(&format!("{name}.pem")), made.path(&format!("{name}.key")));
        Some(Tls { ca: Some(made.path(ca)), client: client.map(files) })
    };
    let start = |listener: &str| Broker::start_tls(program.clone(), listener);
    let server = start(&made.listener("server"));
    let port = server.tls_port.unwrap();
    assert_eq!(connect(port, with("ca.pem", None)), Ok(()));
    let refused = |port: u16, tls: Option<Tls>, expected: &str| {
        let told = connect(port, tls).unwrap_err();
        assert!(told.starts_with(expected), "is  {told}\nnot {expected}");
    };
    refused(port, with("other-ca.pem", None), "its certificate is of a CA that is not in mqtt.ca-file /");
    refused(port, Some(Tls { ca: None, client: None }), "its certificate is of a CA that is not in this machine's");
    refused(
        port,
        with("none.pem", None),
        &format!("cannot read mqtt.ca-file {}/none.pem: No such", made.0.path().display()),
    );
    refused(
        port,
        with("ca.key", None),
        &format!("cannot read mqtt.ca-file {}/ca.key: there is no", made.0.path().display()),
    );
    let closed =
        |hint: &str| format!("the broker closed the connection before it had taken us: does it speak TLS {hint}");
    refused(port, None, &closed("on this port (mqtt.tls = true)?"));
    refused(server.port, with("ca.pem", None), &closed("on this port (8883 as a rule)?"));
    for (name, expected) in [
        ("expired", "its certificate has expired on 2021-01-01T00:00:00Z"),
        ("early", "its certificate is not valid before 2098-01-01T00:00:00Z, and it is 20"),
        ("elsewhere", "its certificate is for broker.example, mqtt.host is 127.0.0.1"),
    ] {
        let broker = start(&made.listener(name));
        refused(broker.tls_port.unwrap(), with("ca.pem", None), expected);
    }

    let wanted = format!("cafile {}\nrequire_certificate true", made.path("ca.pem").display());
    let broker = start(&format!("{}\n{wanted}", made.listener("server")));
    let port = broker.tls_port.unwrap();
    assert_eq!(connect(port, with("ca.pem", Some("client"))), Ok(()));
    refused(port, with("ca.pem", None), "it wants a client certificate (");
    refused(port, with("ca.pem", Some("other-client")), "it refuses mqtt.client-cert-file /");
    let client = |cert: &str, key: &str| {
        Some(Tls { ca: Some(made.path("ca.pem")), client: Some((made.path(cert), made.path(key))) })
    };
    let key = |name: &str| format!("cannot read mqtt.client-key-file {}", made.path(name).display());
    refused(
        port,
        client("client.pem", "locked.key"),
        &format!("{}: it is encrypted; `openssl pkey", key("locked.key")),
    );
    refused(port, client("client.pem", "none"), &format!("{}: No such file", key("none")));
    refused(port, client("client.pem", "client.pem"), &format!("{}: there is no private key", key("client.pem")));
    refused(port, client("client.pem", "server.key"), "mqtt.client-key-file /");
}

/// One that takes connections and answers nothing, or a byte now and then of what could be an answer, with and without TLS.
#[test]
fn a_slow_broker_holds_nobody_up() {
    let Some((_, made)) = programs("a_slow_broker_holds_nobody_up") else { return };
    let started = Instant::now();
    let slow = |trickle: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in trickle.iter().chain(std::iter::repeat(&0)) {
                if !trickle.is_empty() && stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        port
    };
    let tls = || Some(Tls { ca: Some(made.path("ca.pem")), client: None });
    // A long PUBLISH, and a record of TLS of 16 KiB.
    let cases =
        [(slow(b""), None), (slow(b"\x30\xff\x7f"), None), (slow(b""), tls()), (slow(b"\x16\x03\x03\x40\x00"), tls())];
    let waiting = cases.map(|(port, tls)| std::thread::spawn(move || connect(port, tls)));
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), Err("no answer within 10s".into()));
    }
    assert!(started.elapsed() < PATIENCE);
}
