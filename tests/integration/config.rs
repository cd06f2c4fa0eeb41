//! The config file as users write it: DESIGN's example, defaults, and every way to get it wrong.

use std::path::Path;
use std::time::Duration;

use outlierd::internals::config::{Active, Clips, Config, Crop, Error, Line, Mode, PixelFormat, Source, Span};

const EXAMPLE: &str = r#"
[camera]
source = "v4l:/dev/video0"
width = 1280
height = 720
format = "mjpg"
interval = "500ms"
crop = [0, 0, 1280, 720]
lost-after = "10s"
[camera.controls]
exposure_time_absolute = 200
white_balance_automatic = false

[model]
path = "/var/lib/outlierd/model.outlierd"
backbone = "/usr/share/outlierd/backbone.onnx"
threads = 0

[decision]
threshold = 0.5
raise-after = 3
clear-after = 5

[events]
log = "/var/log/outlierd/events.jsonl"
max-log-size = "10 MB"
snapshots = "/var/lib/outlierd/snapshots"
keep-snapshots = 500
hook = ["/usr/local/bin/on-outlier"]

[gpio]
chip = "/dev/gpiochip0"
line = 17
active = "high"
mode = "hold"
pulse = "500ms"
"#;

fn load(text: &str) -> Result<Config, Error> {
    let config = Config::parse(Path::new("o.toml"), text)?;
    config.check()?;
    Ok(config)
}

fn refused(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

#[test]
fn the_whole_example_is_read() {
    let config = load(EXAMPLE).unwrap();
    assert_eq!(config.camera.source, Source::V4l("/dev/video0".into()));
    assert_eq!(config.camera.format, PixelFormat::Mjpg);
    assert_eq!(config.camera.interval, Duration::from_millis(500));
    assert_eq!(config.camera.crop, Some(Crop::Pixels([0, 0, 1280, 720])));
    assert_eq!(config.camera.controls["exposure_time_absolute"], 200);
    assert_eq!(config.camera.controls["white_balance_automatic"], 0);
    assert_eq!(config.decision.threshold, Some(0.5));
    assert_eq!(config.events.max_log_size, 10_000_000);
    assert_eq!(config.events.hook.as_deref().unwrap(), ["/usr/local/bin/on-outlier"]);
    let gpio = config.gpio.unwrap();
    assert_eq!((gpio.line, gpio.active, gpio.mode), (Line::Number(17), Active::High, Mode::Hold));
}

#[test]
fn only_the_model_has_no_default() {
    let config = load("[model]\npath = \"m\"\n").unwrap();
    assert_eq!((config.decision.raise_after, config.decision.clear_after), (Span::Frames(3), Span::Frames(5)));
    assert_eq!(config.decision.threshold, None);
    assert!(config.gpio.is_none() && config.events.hook.is_none());
    assert_eq!(
        refused("[camera]\n"),
        "o.toml:1: model.path is missing: name the file that `outlierd fit -o MODEL` wrote"
    );
}

#[test]
fn relative_paths_lie_beside_the_config() {
    let text = "[camera]\nsource = \"folder:frames\"\n[model]\npath = \"m\"\nbackbone = \"/usr/b.onnx\"\ncache = \"c\"\n\
                [events]\nlog = \"../log/e\"\nhook = [\"bin/hook\", \"a/b\", \"$HOME\"]\nmetrics = \"m.prom\"\n\
                [mqtt]\npassword-file = \"secret\"\n";
    let config = Config::parse(Path::new("/etc/outlierd/door.toml"), text).unwrap();
    let at = |path: &str| std::path::PathBuf::from(path);
    assert_eq!(config.camera.source, Source::Folder(at("/etc/outlierd/frames")));
    assert_eq!(config.model.path, at("/etc/outlierd/m"));
    assert_eq!(config.model.backbone, Some(at("/usr/b.onnx")));
    assert_eq!(config.cache_folder(), Some(at("/etc/outlierd/c")));
    assert_eq!(load("[model]\npath = \"m\"\ncache = \"\"\n").unwrap().cache_folder(), None);
    assert_eq!(config.events.log, at("/etc/outlierd/../log/e"));
    assert_eq!(config.events.metrics, Some(at("/etc/outlierd/m.prom")));
    assert_eq!(config.events.hook.as_deref().unwrap(), ["/etc/outlierd/bin/hook", "a/b", "$HOME"]);
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.password_file, Some(at("/etc/outlierd/secret")));
    // Two configs of one host are two nodes and two instances.
    assert_eq!(config.instance(), "door");
    assert!(mqtt.node().ends_with("-door"), "{}", mqtt.node());
    let packaged = Config::parse(Path::new("/etc/outlierd/outlierd.toml"), text).unwrap();
    assert_eq!((packaged.instance(), packaged.mqtt.unwrap().node_id), ("outlierd".into(), None));
    let program = load("[model]\npath = \"m\"\n[events]\nhook = [\"notify\"]\n").unwrap();
    assert_eq!(program.events.hook.unwrap(), ["notify"]);
}

#[test]
fn a_gpio_line_may_be_a_name() {
    let config = load("[model]\npath = \"m\"\n[gpio]\nline = \"GPIO17\"\nmode = \"pulse\"\n").unwrap();
    assert_eq!(config.gpio.unwrap().line, Line::Name("GPIO17".into()));
}

#[test]
fn unknown_keys_name_the_nearest() {
    let message = refused("[model]\npath = \"m\"\n\n[decision]\nraise_after = 2\n");
    assert!(
        message.starts_with("o.toml:5: unknown key \"raise_after\" in [decision]: did you mean \"raise-after\"?"),
        "{message}"
    );
    let message = refused("[model]\npath = \"m\"\n[camrea]\nwidth = 1\n");
    assert!(message.starts_with("o.toml:3: unknown section [camrea]: did you mean [camera]?"), "{message}");
    let message = refused("[events]\nkeep-snapshot = 5\n");
    assert!(message.contains("did you mean \"keep-snapshots\"?"), "{message}");
    let message = refused("threshold = 0.5\n");
    assert_eq!(message, "o.toml:1: key \"threshold\" stands outside of a section: put it below [decision]");
    let message = refused("[model]\npath = \"m\"\n[gpio]\npin = 17\n");
    assert!(message.starts_with("o.toml:4: unknown key \"pin\" in [gpio]"), "{message}");
}

#[test]
fn wrong_values_name_line_and_remedy() {
    let model = "[model]\npath = \"m\"\n";
    for (text, expected) in [
        ("[camera]\ninterval = \"soon\"", "o.toml:4: \"soon\" is not a duration"),
        ("[camera]\ninterval = \"5 parsecs\"", "o.toml:4: \"5 parsecs\" is not a duration"),
        ("[camera]\ninterval = 5", "o.toml:4: invalid type: integer `5`, expected a string, such as \"2s\""),
        ("[camera]\ninterval = \"0s\"", "o.toml:4: camera.interval must be longer than 0"),
        ("[camera]\ninterval = \"1M\"", "o.toml:4: \"1M\": M is a month, surely by mistake"),
        ("[camera]\nlost-after = \"2 M 1s\"", "o.toml:4: \"2 M 1s\": M is a month"),
        ("[camera]\ninterval = \"30d\"", "o.toml:4: camera.interval is longer than a week"),
        ("[camera]\nsource = \"folder:~/frames\"", "o.toml:4: camera.source = \"~/frames\": ~ is not expanded here"),
        ("[events]\nlog = \"$HOME/e\"", "o.toml:4: events.log = \"$HOME/e\": variables are not expanded here"),
        ("[events]\nsnapshots = \"/x/${A}\"", "o.toml:4: events.snapshots = \"/x/${A}\": variables"),
        ("[events]\nhook = [\"~/hook\"]", "o.toml:4: events.hook = \"~/hook\": ~ is not expanded"),
        ("[events]\nmetrics = \"~pi/m.prom\"", "o.toml:4: events.metrics = \"~pi/m.prom\": ~ is not expanded"),
        ("[gpio]\nchip = \"$CHIP\"", "o.toml:4: gpio.chip = \"$CHIP\": variables"),
        ("[camera]\n\nlost-after = \"0s\"", "o.toml:5: camera.lost-after must be longer than 0"),
        ("[camera]\nwidth = 0", "o.toml:4: camera.width = 0: must be 1 to"),
        ("[camera]\nwidth = -3", "o.toml:4: invalid value: integer `-3`"),
        (
            "[camera]\ncrop = [0, 0, 1281, 720]",
            "o.toml:4: camera.crop: crop 0,0 1281x720 does not fit into a 1280x720 picture",
        ),
        ("[camera]\ncrop = [4294967295, 0, 10, 10]", "o.toml:4: camera.crop: crop 4294967295,0 10x10 does not fit"),
        ("[camera]\ncrop = [0, 0, 0, 720]", "o.toml:4: camera.crop is 0x720"),
        ("[camera]\ncrop = [0, 0, 5]", "o.toml:4: crop is [x, y, width, height]"),
        ("[camera]\ncrop = [0.5, 0, 0.75, 1]", "o.toml:4: camera.crop [0.5, 0, 0.75, 1] does not lie inside the frame"),
        ("[camera]\ncrop = [-10, 0, 20, 20]", "o.toml:4: camera.crop [-10, 0, 20, 20] does not lie inside the frame"),
        ("[[camera.mask]]\npolygon = [[0, 0], [1, 1]]", "o.toml:3: a mask has 2 corners: 3 to 256"),
        (
            "[[camera.mask]]\npolygon = [[0, 0], [640, 0], [0, 1]]",
            "o.toml:3: a mask has a corner at [640, 0]: write shares",
        ),
        ("[[camera.mask]]\npolygons = []", "o.toml:4: unknown field `polygons`, expected `polygon`"),
        ("[camera]\nmask = 5", "o.toml:4: invalid type: integer `5`, expected a sequence"),
        ("[camera]\nsource = \"rtsp://x\"", "o.toml:4: source \"rtsp://x\" is none of"),
        ("[camera]\nformat = \"h264\"", "o.toml:4: unknown variant `h264`, expected one of `auto`"),
        ("[camera]\nloop = true", "o.toml:4: camera.loop is for source = \"folder:...\" only"),
        ("[camera]\nchange-threshold = -1.0", "o.toml:4: camera.change-threshold = -1: must be 0"),
        ("[camera]\nchange-threshold = nan", "o.toml:4: camera.change-threshold = NaN: must be 0"),
        ("[camera]\njudge-at-least-every = \"0s\"", "o.toml:4: camera.judge-at-least-every must be longer than 0"),
        ("nice = 20", "o.toml:3: model.nice = 20: must be 0"),
        ("nice = -1", "o.toml:3: model.nice = -1: must be 0"),
        ("duty = 0.0", "o.toml:3: model.duty = 0: must be 0.01 to 1.0"),
        ("duty = 1.1", "o.toml:3: model.duty = 1.1: must be 0.01 to 1.0"),
        ("duty = nan", "o.toml:3: model.duty = NaN: must be 0.01 to 1.0"),
        ("[decision]\nthreshold = 1.5", "o.toml:4: decision.threshold = 1.5: must be 0 to 1"),
        ("[decision]\nthreshold = nan", "o.toml:4: decision.threshold = NaN: must be 0 to 1"),
        ("[decision]\nraise-after = 0", "o.toml:4: decision.raise-after = 0"),
        ("[decision]\nclear-after = 0", "o.toml:4: decision.clear-after = 0"),
        ("[drift]\nwindow = \"5s\"", "o.toml:4: drift.window is 5s: at least \"10s\" or 60 frames"),
        ("[drift]\nwindow = 59", "o.toml:4: drift.window is 59 frames: at least"),
        ("[drift]\nwindow = true", "o.toml:4: write a number of frames (100) or a duration"),
        ("[drift]\nwindow = \"soon\"", "o.toml:4: \"soon\" is not a duration"),
        ("[drift]\nmean-p = 0.5", "o.toml:4: drift.mean-p = 0.5: must be 0.01 to 0.4"),
        ("[drift]\nmean-p = nan", "o.toml:4: drift.mean-p = NaN: must be 0.01 to 0.4"),
        ("[events]\nmax-log-size = \"ten\"", "o.toml:4: \"ten\" is not a size"),
        ("[events]\nmax-log-size = \"1 kB\"", "o.toml:4: events.max-log-size is 1000 bytes"),
        ("[events]\nhook = []", "o.toml:4: events.hook is empty"),
        ("[events]\nhook = \"a\"", "o.toml:4: invalid type: string \"a\", expected a sequence"),
        ("[events]\nkeep-snapshots = 0", "o.toml:4: events.keep-snapshots = 0"),
        ("[events]\nmax-snapshot-bytes = \"1 kB\"", "o.toml:4: events.max-snapshot-bytes is 1000"),
        ("[events]\nheat-map = \"yes\"", "o.toml:4: invalid type: string \"yes\", expected a boolean"),
        ("[events]\nmetrics = \"/run/..\"", "o.toml:4: events.metrics names no file"),
        ("[clips]\nbefore = \"1h\"", "o.toml:4: clips.before is 1h: at most \"5m\""),
        ("[clips]\nafter = \"301s\"", "o.toml:4: clips.after is 5m 1s: at most \"5m\""),
        ("[clips]\nmax-rate = 0", "o.toml:4: clips.max-rate = 0: must be 0.1 to 120"),
        ("[clips]\nmax-rate = nan", "o.toml:4: clips.max-rate = NaN: must be"),
        ("[clips]\nmax-memory = \"10 kB\"", "o.toml:4: clips.max-memory is 10000 bytes: must be \"100 kB\""),
        ("[clips]\nmax-memory = \"1 GB\"", "o.toml:4: clips.max-memory is 1000000000 bytes"),
        ("[clips]\nkeep = 0", "o.toml:4: clips.keep = 0: at least 1"),
        ("[clips]\nmax-bytes = \"1 kB\"", "o.toml:4: clips.max-bytes is 1000: at least \"1 MB\""),
        ("[clips]\nmax-byte = 1", "o.toml:4: unknown key \"max-byte\" in [clips]: did you mean \"max-bytes\"?"),
        ("[gpio]\nmode = \"blink\"", "o.toml:4: unknown variant `blink`, expected `hold` or `pulse`"),
        ("[gpio]\nactive = \"on\"", "o.toml:4: unknown variant `on`"),
        ("[gpio]\nline = true", "o.toml:4: a line is a number (17) or a name"),
        ("[gpio]\nmode = \"pulse\"\npulse = \"0s\"", "o.toml:5: gpio.pulse must be longer than 0"),
        ("[gpio]\nheartbeat = 17", "o.toml:4: gpio.heartbeat and gpio.line are the same line"),
        ("[camera]\nwidth = 1\nwidth = 2", "o.toml:5: duplicate key"),
        ("[camera\n", "o.toml:3:"),
    ] {
        let message = refused(&format!("{model}{text}\n"));
        assert!(message.starts_with(expected), "{text}\n  is     {message}\n  not    {expected}");
    }
}

#[test]
fn a_drift_window_is_time_or_frames() {
    let window = |text: &str| load(&format!("[model]\npath = \"m\"\n[drift]\nwindow = {text}\n")).unwrap().drift.window;
    assert_eq!(window("\"24h\""), Span::Time(Duration::from_secs(86_400)));
    assert_eq!(window("20000"), Span::Frames(20_000));
    assert!(window("0").is_zero() && window("\"0s\"").is_zero());
}

#[test]
fn a_broker_is_checked_key_by_key() {
    let mqtt = load("[model]\npath = \"m\"\n[mqtt]\nhost = \"broker\"\n").unwrap().mqtt.unwrap();
    assert_eq!((mqtt.host.as_str(), mqtt.port(), mqtt.discovery_prefix.as_str()), ("broker", 1883, "homeassistant"));
    assert_eq!(mqtt.base(), format!("outlierd/{}", mqtt.node()));
    let tls = load("[model]\npath = \"m\"\n[mqtt]\ntls = true\nca-file = \"ca.pem\"\n").unwrap().mqtt.unwrap();
    assert_eq!(tls.port(), 8883);
    for (line, expected) in [
        ("host = \"mqtts://broker\"", "o.toml:4: mqtt.host = \"mqtts://broker\": the name or address alone"),
        ("port = 0", "o.toml:3: mqtt.host and mqtt.port must name a broker"),
        ("ca-file = \"ca.pem\"", "o.toml:4: mqtt.ca-file needs mqtt.tls = true"),
        ("tls = true\nclient-cert-file = \"c\"", "o.toml:5: mqtt.client-cert-file needs mqtt.client-key-file"),
        ("tls = true\nclient-key-file = \"k\"", "o.toml:5: mqtt.client-key-file needs mqtt.client-cert-file"),
        ("password-file = \"p\"", "o.toml:4: mqtt.password-file needs mqtt.username"),
        ("base-topic = \"a/#\"", "o.toml:4: mqtt.base-topic = \"a/#\""),
        ("discovery-prefix = \"/x\"", "o.toml:4: mqtt.discovery-prefix = \"/x\""),
        ("node-id = \"the door\"", "o.toml:4: mqtt.node-id"),
        ("interval = \"0s\"", "o.toml:4: mqtt.interval"),
        ("pasword-file = \"p\"", "o.toml:4: unknown key \"pasword-file\" in [mqtt]: did you mean \"password-file\"?"),
    ] {
        let message = refused(&format!("[model]\npath = \"m\"\n[mqtt]\n{line}\n"));
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let message = Config::load(Path::new("/nonexistent/o.toml")).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/o.toml") && message.contains("-c FILE"), "{message}");
}

#[test]
fn sizes_and_durations() {
    use outlierd::internals::config::values::{parse_duration, parse_size};
    assert_eq!(parse_size("10 MB"), Ok(10_000_000));
    assert_eq!(parse_size("64KiB"), Ok(65_536));
    assert_eq!(parse_size("1.5 kB"), Ok(1_500));
    assert_eq!(parse_size("0"), Ok(0));
    assert!(parse_size("").is_err() && parse_size("-1").is_err() && parse_size("99999999999 GB").is_err());
    assert!(parse_size("1.2.3 MB").is_err());
    assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
    assert!(parse_duration("").is_err() && parse_duration("5").is_err());
}

/// The file that packages install, with and without its comments taken away from keys.
#[test]
fn the_packaged_file_is_read_and_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/outlierd.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let config = load(&text).unwrap();
    let bare = load("[model]\npath = \"/var/lib/outlierd/model.outlierd\"\n").unwrap();
    assert_eq!(config, bare);
    let is_key =
        |line: &str| line.starts_with("#[") || line.split_once(" = ").is_some_and(|(key, _)| !key.contains("# "));
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && is_key(line)).unwrap_or(line))
        .collect();
    // One of the two sets the threshold.
    assert!(refused(&uncommented.join("\n")).contains("both set the threshold"));
    let all = uncommented.join("\n").replace("\nthreshold = 0.5\n", "\n");
    let all = load(&all).unwrap();
    assert!(all.mqtt.is_some());
    assert!(all.gpio.is_some() && all.events.hook.is_some() && all.camera.crop.is_some());
    assert_eq!((all.camera.controls.len(), all.clips), (4, Some(Clips::default())));
    assert_eq!(all.decision.false_alarms.unwrap().to_string(), "1/day");
}
