//! Several daemons on one machine.

use std::path::Path;

use outlierd::internals::config::Config;

use crate::common::daemon::{outlierd, text, world};

#[test]
fn minimal_configs_share_nothing() {
    let config = |name: &str, more: &str| {
        let path = Path::new("/etc/outlierd").join(name);
        Config::parse(&path, &format!("[model]\npath = \"/m\"\n{more}")).unwrap()
    };
    let paths = |config: Config| {
        let paths =
            [config.events.log.clone(), config.events.snapshots.clone(), config.history_path(), config.socket_path()];
        paths.map(|path| path.display().to_string())
    };
    assert_eq!(
        paths(config("outlierd.toml", "")),
        [
            "/var/log/outlierd/events.jsonl",
            "/var/lib/outlierd/snapshots",
            "/var/lib/outlierd/outlierd.history",
            "/run/outlierd/outlierd.sock"
        ]
    );
    assert_eq!(
        paths(config("door.toml", "")),
        [
            "/var/log/outlierd/door/events.jsonl",
            "/var/lib/outlierd/door/snapshots",
            "/var/lib/outlierd/door/door.history",
            "/run/outlierd/door.sock"
        ]
    );
    let named = config("door.toml", "[events]\nlog = \"/var/log/outlierd/events.jsonl\"\n");
    assert_eq!(named.events.log, Path::new("/var/log/outlierd/events.jsonl"));
    assert_eq!(named.events.snapshots, Path::new("/var/lib/outlierd/door/snapshots"));
}

#[test]
fn check_all_tells_what_two_configs_share() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, source: &str, files: &str, gpio: &str| {
        let text = format!(
            "[camera]\nsource = {source:?}\n[model]\npath = {:?}\n\
             [events]\nlog = \"{files}/log\"\nsnapshots = \"{files}/pictures\"\n{gpio}",
            world().join("model.outlierd")
        );
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    let run = |arguments: &[&str]| {
        let mut command = outlierd();
        command.args(["check", "--all", "--config"]).arg(dir.path().join("outlierd.toml")).args(arguments);
        command.output().unwrap()
    };
    let none = run(&[]);
    assert!(none.status.code() == Some(66) && text(&none.stderr).contains("there is no config"), "{none:?}");

    let frames = format!("folder:{}", world().join("frames").display());
    for name in ["back", "front"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        write(&format!("{name}.toml"), &frames, name, "");
    }
    let well = run(&[]);
    assert!(well.status.success(), "{}", text(&well.stdout));
    assert_eq!(text(&well.stdout).lines().filter(|line| line.starts_with("config    ok ")).count(), 2);

    // The same folder by another name, the same device and line.
    std::os::unix::fs::symlink("front", dir.path().join("side")).unwrap();
    let gpio = "[gpio]\nchip = \"/dev/nonexistent\"\nline = 17\n";
    write("front.toml", "v4l:/dev/nonexistent-camera", "front", gpio);
    write("side.toml", "v4l:/dev/nonexistent-camera", "side", gpio);
    let shared = run(&["--json"]);
    assert_eq!(shared.status.code(), Some(78));
    let lines: Vec<serde_json::Value> =
        text(&shared.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (name, other) in [("front", "side.toml"), ("side", "front.toml"), ("back", "")] {
        let told = |line: &&serde_json::Value| {
            let of = line["config"].as_str().unwrap().ends_with(&format!("{name}.toml"));
            of && line["message"].as_str().unwrap().contains("each daemon needs its own")
        };
        let told: Vec<_> = lines.iter().filter(told).collect();
        let checks: Vec<_> = told.iter().map(|line| line["check"].as_str().unwrap()).collect();
        let expected: &[&str] = if other.is_empty() { &[] } else { &["camera", "log", "snapshots", "gpio"] };
        assert_eq!(checks, expected, "{name}");
        assert!(told.iter().all(|line| line["message"].as_str().unwrap().contains(other)));
    }
}

/// The template's lines are those of the one service, but for the names.
#[test]
fn every_instance_has_the_sandbox_of_the_one_service() {
    let one = include_str!("../../systemd/outlierd.service");
    let template = include_str!("../../systemd/outlierd@.service");
    let lines = |unit: &str| -> Vec<String> {
        let own = |line: &&str| !["#", "Description=", "After="].iter().any(|start| line.starts_with(start));
        let renamed = |line: &str| line.replace("/%i.toml", "/outlierd.toml").replace("outlierd/%i", "outlierd");
        unit.lines().filter(own).map(renamed).collect()
    };
    assert_eq!(lines(one), lines(template));
    assert!(
        template.contains("\nStateDirectory=outlierd/%i\n") && template.contains("--config /etc/outlierd/%i.toml\n")
    );
}
