//! Seeds of the targets: small, made by the program itself, or the fixtures of other tests.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use image::RgbImage;
use outlierd::internals::backbone::{quantize, untrained};
use outlierd::internals::config::MAX_BYTES;
use outlierd::internals::model::records::{Learnt, Records};
use outlierd::internals::model::{Model, file};
use outlierd::internals::training::{import, npz};
use outlierd::internals::watch::history::Writer;

use super::small_model;

/// Name and bytes.
pub type Seed = (String, Vec<u8>);

fn tests() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.ends_with("tests/fuzz") { here.join("..") } else { here.join("tests") }
}

/// The seeds of a target. Findings of the fuzzers, which are fixed, are among them.
pub fn of(target: &str) -> Vec<Seed> {
    let mut seeds = match target {
        "model" => models(),
        "onnx" => networks(true),
        "quantize" => networks(false),
        "config" => configs(),
        "events" | "learn" => logs(),
        "history" => histories(),
        "pixels" => frames(),
        "mjpg" => jpegs().into_iter().map(|(name, jpeg)| (name, [&[24, 16], jpeg.as_slice()].concat())).collect(),
        "stream" => streams(),
        "picture" => pictures(),
        "npz" => arrays().into_iter().chain([("small".into(), stored(b"small"))]).collect(),
        "list" => vec![("list".into(), b"# normal\n\na.png\r\nsub/b.jpg\n../c.webp\n/dev/zero\n".to_vec())],
        "cache" => vec![("rows".into(), rows())],
        "page" => requests(),
        "mqtt" => broker_packets(),
        _ => Vec::new(),
    };
    let found = std::fs::read_dir(tests().join("fuzz/findings").join(target)).into_iter().flatten().flatten();
    for path in found.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        seeds.push((name, std::fs::read(&path).expect("a finding can be read")));
    }
    seeds
}

fn broker_packets() -> Vec<Seed> {
    let publish = |first: u8, topic: &[u8], payload: &[u8]| {
        let mut rest = 2 + topic.len() + payload.len();
        let mut packet = vec![first];
        while rest > 127 {
            packet.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        packet.push(rest as u8);
        packet.extend((topic.len() as u16).to_be_bytes());
        [&packet, topic, payload].concat()
    };
    let answers = vec![0x20, 2, 0, 0, 0x90, 3, 0, 1, 0, 0x40, 2, 0, 1, 0xd0, 0];
    let birth = publish(0x30, b"homeassistant/status", b"online");
    let long = publish(0x31, b"homeassistant/status", &[7; 70_000]);
    let refused = vec![0x20, 2, 0, 5, 0x90, 3, 0, 1, 0x80];
    vec![
        ("answers".into(), answers.clone()),
        ("birth".into(), [&answers[..], &birth, &publish(0x31, b"b/client/1", b"host"), &[0xd0, 0][..]].concat()),
        ("long".into(), [&answers[..], &long, &birth].concat()),
        ("refused".into(), refused),
    ]
}

fn requests() -> Vec<Seed> {
    let request = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: localhost:8788\r\n{more}\r\n");
    let form = "Content-Type: application/x-www-form-urlencoded\r\nOrigin: http://localhost:8788\r\nCookie: a=b; outlierd=c\r\n";
    let named = |(name, text): (&str, String)| (name.to_owned(), text.into_bytes());
    [
        ("live", request("GET /o/live", "Accept: */*\r\n") + &request("HEAD /", "")),
        (
            "events",
            request("GET /o/events?kind=all&from=2h&to=18%3A00&text=%3Cb%3E&page=1", "Sec-Fetch-Site: none\r\n"),
        ),
        ("threshold", request("GET /o/threshold?threshold=1e-3", "")),
        ("picture", request("GET /o/picture/e1-heat.jpg", "Range: bytes=0-\r\n")),
        (
            "programs",
            request("GET /metrics", "Authorization: Bearer x\r\n") + &request("GET /api/events?limit=3&instance=o", ""),
        ),
        ("form", request("POST /o/normal", &format!("{form}Content-Length: 16\r\n")) + "form=0123&id=e%31"),
        (
            "chunks",
            request("POST /login", &format!("{form}Transfer-Encoding: chunked\r\n"))
                + "6\r\ntoken=\r\n2\r\nxy\r\n0\r\n\r\n",
        ),
    ]
    .map(named)
    .to_vec()
}

fn streams() -> Vec<Seed> {
    let y4m = |header: &str, bytes: usize| {
        let frame = [b"FRAME\n", vec![0x80; bytes].as_slice()].concat();
        [&[7], format!("YUV4MPEG2 W5 H3 F30:1 {header}\n").as_bytes(), &frame, &frame].concat()
    };
    let planes = [("C420jpeg", 27), ("C422 XCOLORRANGE=FULL", 33), ("C444", 45), ("Cmono", 15)];
    let planes = planes.map(|(header, bytes)| (header.to_owned(), y4m(header, bytes)));
    let mjpeg = |(name, jpeg): Seed| (name, [&[200][..], b"--x\r\n\r\n", jpeg.as_slice(), &jpeg].concat());
    planes.into_iter().chain(jpegs().into_iter().map(mjpeg)).collect()
}

fn models() -> Vec<Seed> {
    let bytes = |model: &Model| file::encode(model).expect("a model can be written");
    let small = small_model();
    let learnt = vec![Learnt { event: "20261123T201500-0123abcd-1".into(), score: -8.5 }];
    let records = Records { normal_scores: vec![-2.0, -1.0], learnt };
    let older = |version: u8| {
        let path = tests().join(format!("fixtures/models/v{version}.outlierd"));
        (format!("v{version}"), std::fs::read(path).expect("a fixture"))
    };
    let mut seeds = vec![
        older(1),
        older(2),
        older(3),
        older(4),
        ("small".into(), bytes(&small)),
        ("learnt".into(), bytes(&Model { records, ..small })),
    ];
    for (name, npz) in arrays() {
        let arrays = npz::Npz::parse(&npz).expect("a fixture can be read");
        if let Ok(model) = import::model(&arrays, outlierd::internals::model::FeatureSource::unknown(), 0.05) {
            seeds.push((name, bytes(&model)));
        }
    }
    seeds
}

fn arrays() -> Vec<Seed> {
    let names = ["forest", "gmm-diag", "gmm-full", "gmm-spherical", "gmm-tied", "svm-linear", "svm-poly", "svm-rbf"];
    let read = |name: &str| std::fs::read(tests().join(format!("sklearn/import/{name}.npz"))).expect("a fixture");
    names.iter().map(|name| (name.to_string(), read(name))).collect()
}

/// An archive of one stored member, without an array.
fn stored(content: &[u8]) -> Vec<u8> {
    let (crc, len) = (crc32fast::hash(content).to_le_bytes(), (content.len() as u32).to_le_bytes());
    let mut bytes = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([crc, len, len].concat());
    bytes.extend(b"\x05\0\0\0a.npy");
    bytes.extend(content);
    let start = (bytes.len() as u32).to_le_bytes();
    bytes.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0");
    bytes.extend([crc, len, len].concat());
    bytes.extend(b"\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a.npy");
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x33\0\0\0");
    bytes.extend(start);
    bytes.extend(b"\0\0");
    bytes
}

/// Tiny ResNets, float and, for `int8`, quantized.
fn networks(int8: bool) -> Vec<Seed> {
    let params = untrained::Params { seed: 1, width: 1, size: 16, blocks: vec![1, 1] };
    let float = untrained::resnet50(&params).to_bytes();
    let mut seeds = vec![("float".into(), float.clone())];
    if int8 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let watch = quantize::Watch { stop: &stop, begin: &|_, _| {}, done: &|| {} };
        let network = quantize::Network::from_bytes("float.onnx", float, None, None).expect("it is ours");
        let quantized = network.quantize(&[picture(16, 16)], &quantize::Options::default(), &watch);
        seeds.push(("qdq".into(), quantized.expect("it is ours").to_bytes()));
    }
    let others: &[&str] = match int8 {
        true => &["torchvision-resnet34-int8", "timm-resnet50d-int8"],
        false => &["torchvision-resnet34"],
    };
    seeds.extend(others.iter().map(|name| {
        let packed = std::fs::File::open(tests().join(format!("exports/{name}.onnx.gz"))).expect("a fixture");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("a fixture");
        (name.to_string(), bytes)
    }));
    seeds
}

fn configs() -> Vec<Seed> {
    let whole = std::fs::read(tests().join("../systemd/outlierd.toml")).expect("the packaged config");
    assert!((whole.len() as u64) < MAX_BYTES);
    // Its keys are commented out.
    let text = String::from_utf8_lossy(&whole);
    let keys = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| l.contains(" = ") || l.starts_with('[')).unwrap_or(line));
    let every: String = keys.flat_map(|line| [line, "\n"]).collect();
    let small = "[model]\npath = \"/m\"\n[camera]\nsource = \"folder:/p\"\ninterval = \"1m 30s\"\ncrop = [0, 0, 9, 9]\n\
                 controls = { exposure = 3, auto = true }\n[drift]\nwindow = 20000\n[gpio]\nline = \"A\"\nmode = \"pulse\"\n\
                 [events]\nmax-log-size = \"1.5 MiB\"\nhook = [\"/bin/true\", \"x\"]\n";
    let far =
        "[model]\npath = \"/m\"\n[camera]\ninterval = \"500000000000y\"\nlost-after = \"18446744073709551615s\"\n";
    let nested = format!("[model]\npath = {}", "[".repeat(10_000));
    let keys = format!("[model]\n{} = 1\n", "a".repeat(100_000));
    let named = [("packaged", whole.clone()), ("every", every.into()), ("small", small.into()), ("far", far.into())];
    let named = named.into_iter().chain([("nested", nested.into()), ("long-key", keys.into())]);
    named.map(|(name, bytes)| (name.to_string(), bytes)).collect()
}

fn logs() -> Vec<Seed> {
    let line = |event: &str, id: &str, score: &str| {
        format!(
            "{{\"time\":\"2026-11-23T20:15:00.123Z\",\"event\":\"{event}\",\"id\":{id},\"p\":0.0163934426,\"score\":{score},\
             \"threshold\":0.05,\"frames\":3,\"duration_s\":1.5,\"snapshot\":\"/s/a.jpg\",\"heat\":null,\"model\":\"m\"}}\n"
        )
    };
    let usual =
        [line("start", "null", "null"), line("raise", "\"a-1\"", "-9.5"), line("clear", "\"a-1\"", "-1.0")].concat();
    let torn = format!("{usual}{{\"time\":\"2026-\n{}{}", line("raise", "\"b\"", "-8.9"), "{\"time\":\"2026-11");
    let far =
        [line("raise", "\"c\"", "-1e308"), line("raise", "\"d\"", "1e308"), line("raise", "\"e\"", "-0.0")].concat();
    let deep = format!("{}\n{usual}", "[".repeat(100_000));
    let long = format!("{}\n{usual}", "x".repeat(200_000));
    let named = [("usual", usual), ("torn", torn), ("far", far), ("deep", deep), ("long", long)];
    named.into_iter().map(|(name, text)| (name.to_string(), text.into_bytes())).collect()
}

/// Pages as the daemon writes them, and one of a single page, whose CRC the target can mend.
fn histories() -> Vec<Seed> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("h");
    let time = |seconds: f64| UNIX_EPOCH + Duration::from_secs_f64(1_764_000_000.0 + seconds);
    let written = |frames: u32| {
        let mut writer = Writer::open(&path, 1 << 20, u64::from(frames)).expect("it can be opened");
        for at in 0..frames {
            let p = 1.0 / f64::from(1 + at * at);
            let written = writer.push(time(0.5 * f64::from(at)), -f64::from(at), p, at % 9 > 6, 0.01);
            written.expect("it can be written");
        }
        writer.flush().expect("it can be written");
        if frames > 40 {
            writer.take_back(time(3.0), time(9.0)).expect("it can be written");
        }
        std::fs::read(&path).expect("it is there")
    };
    vec![("page".into(), written(9)), ("pages".into(), written(200))]
}

/// See the target: format, width, height, stride, lines of a plane, region, then the frame.
fn frames() -> Vec<Seed> {
    let frame = |how: u8, stride: u8, len: usize| {
        let mut bytes = vec![how, 8, 6, stride, 6, 1, 2, 5, 3];
        bytes.extend((0..len).map(|i| (i * 7) as u8));
        bytes
    };
    let huge = [&[0x81][..], &[0xff; 32], &[0; 64]].concat();
    let named = [
        ("yuyv", frame(0, 16, 96)),
        ("nv12", frame(1, 9, 90)),
        ("grey", frame(2, 8, 48)),
        ("rgb3", frame(3, 24, 144)),
        ("nv12-709-full", frame(0x61, 8, 72)),
        ("huge", huge),
    ];
    named.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect()
}

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 9, y as u8 * 7, (x * y) as u8]))
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(24, 16).write_to(&mut bytes, format).expect("a picture can be written");
    bytes.into_inner()
}

fn jpegs() -> Vec<Seed> {
    let whole = encoded(image::ImageFormat::Jpeg);
    // Without Huffman tables, as webcams send it.
    let (mut bare, mut at) = (whole[..2].to_vec(), 2);
    while whole[at + 1] != 0xda {
        let len = 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        if whole[at + 1] != 0xc4 {
            bare.extend_from_slice(&whole[at..at + len]);
        }
        at += len;
    }
    bare.extend_from_slice(&whole[at..]);
    // A header that promises more than a camera of this size sends.
    let mut vast = whole.clone();
    if let Some(at) = vast.windows(2).position(|w| w == [0xff, 0xc0]) {
        vast[at + 5..at + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
    }
    [("whole", whole), ("bare", bare), ("vast", vast)].map(|(name, bytes)| (name.to_string(), bytes)).into()
}

fn pictures() -> Vec<Seed> {
    use image::ImageFormat::{Bmp, Png, WebP};
    let named = [("png", Png), ("bmp", Bmp), ("webp", WebP)];
    jpegs().into_iter().chain(named.map(|(name, format)| (name.to_string(), encoded(format)))).collect()
}

fn rows() -> Vec<u8> {
    let mut bytes = b"OUTLFEAT\x03\0".to_vec();
    for (key, row) in [(1, vec![0.5_f32, 1.5]), (2, vec![])] {
        bytes.extend([key; 32]);
        bytes.extend((row.len() as u32).to_le_bytes());
        bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        // 1 x 1 cells of 2 values with the first, none with the second.
        let side: u16 = if row.is_empty() { 0 } else { 1 };
        bytes.extend([side, side, 2 * side].iter().flat_map(|side| side.to_le_bytes()));
        if side > 0 {
            bytes.extend(0.5_f32.to_le_bytes());
            bytes.extend([3, 250]);
        }
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}
