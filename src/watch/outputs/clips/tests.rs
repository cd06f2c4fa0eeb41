use ::image::{Rgb, RgbImage};

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A small JPEG; no two numbers give the same.
fn jpeg(number: u32) -> Box<[u8]> {
    let level = |channel: u32| (number * 37 * (channel + 1) % 256) as u8;
    let picture = RgbImage::from_fn(32, 16, |x, _| Rgb([level(0), level(1), x as u8 * 8]));
    jpeg::encode(&picture, 90).unwrap().into()
}

fn frame(number: u32) -> Frame {
    Frame { picture: RgbImage::new(1, 1), jpeg: Some(jpeg(number)), sequence: 0, source: "test".into() }
}

/// A folder for clips, and frames at times of its own.
struct Rig {
    dir: tempfile::TempDir,
    clips: Clips,
    start: Instant,
}

impl Rig {
    fn new(keys: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Rig::config(&dir, keys);
        Rig { clips: Clips::start(&config).unwrap(), start: Instant::now(), dir }
    }

    fn config(dir: &tempfile::TempDir, keys: &str) -> Config {
        let folder = dir.path().display();
        let text = format!("[model]\npath = \"m\"\n[events]\nsnapshots = \"{folder}\"\n[clips]\n{keys}");
        let config = Config::parse(Path::new("/o.toml"), &text).unwrap();
        config.check().unwrap();
        config
    }

    fn at(&self, milliseconds: u32) -> Instant {
        self.start + MILLI * milliseconds
    }

    /// A frame whose number is when it comes.
    fn keep(&mut self, milliseconds: u32) -> Option<String> {
        self.clips.keep(frame(milliseconds), self.at(milliseconds))
    }

    /// Waits for the disk as long as no machine needs.
    fn finish(&mut self) -> Vec<String> {
        self.clips.end(Duration::from_secs(600))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The frames of a clip; its other files must agree with them.
    fn frames(&self, id: &str) -> Vec<Box<[u8]>> {
        let folder = self.clips.path(id).unwrap();
        let count = std::fs::read_dir(&folder).unwrap().count() - 2;
        let read = |name: String| std::fs::read(folder.join(name)).unwrap();
        let frames: Vec<Box<[u8]>> = (1..=count).map(|number| read(format!("{number:05}.jpg")).into()).collect();
        let movie = read(writer::MOVIE.into());
        let mut at = 224;
        for frame in &frames {
            assert_eq!((&movie[at..at + 4], &movie[at + 8..at + 8 + frame.len()]), (&b"00dc"[..], &**frame));
            at += 8 + frame.len().next_multiple_of(2);
        }
        assert_eq!(&movie[at..at + 4], b"idx1");
        frames
    }

    fn times(&self, id: &str) -> String {
        let page = std::fs::read_to_string(self.clips.path(id).unwrap().join(writer::PAGE)).unwrap();
        assert!(page.contains(&format!("<title>{id}</title>")) && !page.contains("{{"));
        page.split_once("times=[").unwrap().1.split_once(']').unwrap().0.to_owned()
    }
}

#[test]
fn a_clip_has_the_frames_from_before_until_after() {
    let mut rig = Rig::new("before = \"3s\"\nafter = \"2s\"\n");
    for second in 0..20 {
        if second == 10 {
            rig.clips.raise("a");
        }
        assert_eq!(rig.keep(second * 1000), None);
        // It is written as soon as it is over.
        if second == 13 {
            assert_eq!(rig.clips.until, None);
        }
    }
    assert_eq!(rig.finish(), [""; 0]);
    assert_eq!(rig.names(), ["clip-a"]);
    assert_eq!(rig.frames("a"), [7, 8, 9, 10, 11, 12].map(|second| jpeg(second * 1000)));
    assert_eq!(rig.times("a"), "-3000,-2000,-1000,0,1000,2000");
}

#[test]
fn a_raise_ends_the_clip_before_and_has_its_own_frames() {
    let mut rig = Rig::new("before = \"2s\"\nafter = \"5s\"\n");
    for second in 0..9 {
        match second {
            3 => rig.clips.raise("a"),
            5 => rig.clips.raise("b"),
            _ => {}
        }
        rig.keep(second * 1000);
    }
    assert_eq!(rig.finish(), [""; 0]);
    assert_eq!((rig.times("a"), rig.times("b")), ("-2000,-1000,0,1000".into(), "-2000,-1000,0,1000,2000,3000".into()));
}

#[test]
fn more_frames_than_the_rate_are_not_kept_but_the_one_that_raised() {
    let mut rig = Rig::new("before = \"1s\"\nafter = \"1s\"\nmax-rate = 2.0\n");
    for tenth in 0..40 {
        if tenth == 23 {
            rig.clips.raise("a");
        }
        rig.keep(tenth * 100);
    }
    rig.finish();
    assert_eq!(rig.times("a"), "-800,-300,0,700");
}

#[test]
fn a_frame_that_is_no_jpeg_is_encoded_and_one_without_tables_completed() {
    let mut rig = Rig::new("");
    let picture = RgbImage::from_fn(20, 10, |x, y| Rgb([x as u8 * 9, y as u8 * 9, 7]));
    rig.clips.raise("a");
    let raw = Frame { picture: picture.clone(), jpeg: None, sequence: 0, source: "test".into() };
    assert_eq!(rig.clips.keep(raw, rig.at(0)), None);
    let padded = [&*jpeg(1), &[0; 64]].concat().into_boxed_slice();
    rig.clips.keep(Frame { jpeg: Some(padded), ..frame(1) }, rig.at(1000));
    rig.finish();
    assert_eq!(rig.frames("a"), [jpeg::encode(&picture, QUALITY).unwrap().into(), jpeg(1)]);
}

#[test]
fn memory_is_a_limit_and_a_frame_that_breaks_it_is_told_once() {
    let mut rig = Rig::new("max-memory = \"100 kB\"\n");
    let large = |rig: &mut Rig, len: usize, at: u32| {
        let padding = [0xFF, 0xE0, 0xEA, 0x62].iter().copied().chain(std::iter::repeat_n(0, 60_000));
        let small = jpeg(at);
        let mut bytes: Vec<u8> = small[..2].to_vec();
        while bytes.len() + small.len() < len {
            bytes.extend(padding.clone());
        }
        bytes.extend(&small[2..]);
        rig.clips.keep(Frame { jpeg: Some(bytes.into()), ..frame(at) }, rig.at(at))
    };
    for at in 0..4 {
        assert_eq!(large(&mut rig, 40_000, at * 1000), None);
    }
    assert_eq!(rig.clips.ring.frames().len(), 1);
    let told = large(&mut rig, 110_000, 4000).unwrap();
    assert!(told.contains("larger than clips.max-memory, 100000"), "{told}");
    assert_eq!(large(&mut rig, 110_000, 5000), None);
    assert_eq!(rig.keep(6000), None);
    assert!(large(&mut rig, 110_000, 7000).is_some());
    // The one that raises is too large itself: what was before is there.
    rig.clips.raise("a");
    large(&mut rig, 110_000, 8000);
    assert_eq!(rig.finish(), [""; 0]);
    assert_eq!(rig.times("a"), "-5000,-2000");
}

#[test]
fn the_oldest_clips_go_and_what_is_of_others_stays() {
    let mut rig = Rig::new("keep = 2\nmax-rate = 30.0\nbefore = \"0s\"\nafter = \"0s\"\n");
    let at = |name: &str| rig.dir.path().join(name);
    std::fs::create_dir(at(".clip-cut.part")).unwrap();
    std::fs::write(at(".clip-cut.part/00001.jpg"), "x").unwrap();
    std::fs::write(at("clip-file"), "x").unwrap();
    std::os::unix::fs::symlink("/nonexistent", at("clip-link")).unwrap();
    std::fs::write(at("outlier-1.jpg"), "x").unwrap();
    std::fs::create_dir(at("mine")).unwrap();
    // Older than all by the log, whatever the names and times say.
    for id in ["zz", "yy"] {
        std::fs::create_dir(at(&format!("clip-{id}"))).unwrap();
    }
    rig.clips.take_over(vec!["yy".into(), "zz".into()]).unwrap();
    assert!(!at(".clip-cut.part").exists() && at("clip-yy").exists());
    for (second, id) in ["b", "a"].into_iter().enumerate() {
        rig.clips.raise(id);
        rig.keep(second as u32 * 1000);
    }
    assert_eq!(rig.finish(), [""; 0]);
    assert_eq!(rig.names(), ["clip-a", "clip-b", "clip-file", "clip-link", "mine", "outlier-1.jpg"]);
}

#[test]
fn bytes_of_clips_are_a_limit() {
    let mut rig = Rig::new("max-bytes = \"1 MB\"\nbefore = \"0s\"\nafter = \"0s\"\n");
    let noise = |seed: u32| {
        let mut state = seed + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let picture = RgbImage::from_fn(300, 300, |_, _| Rgb([next(), next(), next()]));
        jpeg::encode(&picture, 90).unwrap().into_boxed_slice()
    };
    let one = noise(0).len() as u64;
    assert!((100_000..300_000).contains(&one), "{one}");
    for number in 0..5 {
        rig.clips.raise(&number.to_string());
        rig.clips.keep(Frame { jpeg: Some(noise(number)), ..frame(0) }, rig.at(number * 1000));
    }
    rig.finish();
    let kept = rig.names();
    // Each has its frame twice.
    let expected = (1_000_000 / (2 * one + 1500)) as usize;
    assert_eq!((kept.len(), kept.last().map(String::as_str)), (expected, Some("clip-4")), "{one}");
}

#[test]
fn what_cannot_be_written_is_told_and_is_no_path() {
    let mut rig = Rig::new("");
    let path = rig.clips.path("a").unwrap();
    std::fs::remove_dir_all(rig.dir.path()).unwrap();
    rig.clips.raise("a");
    rig.keep(0);
    assert!(!rig.clips.has_failed(&path));
    let told = rig.finish();
    assert!(matches!(&told[..], [message] if message.contains("clip-a: No such file")), "{told:?}");
    assert!(rig.clips.has_failed(&path) && !rig.clips.has_failed(&rig.clips.path("b").unwrap()));
}

/// Nobody takes the jobs, as where a disk hangs.
#[test]
fn a_disk_that_hangs_costs_frames_and_no_more_memory() {
    let mut rig = Rig::new("max-memory = \"100 kB\"\nmax-rate = 30.0\n");
    let ((jobs, queue), (_report, failures)) = (sync_channel(4), channel());
    rig.clips.thread = Some(Thread { jobs, failures });
    rig.clips.raise("a");
    let told: Vec<String> = (0..1000).filter_map(|frame| rig.keep(frame)).collect();
    assert_eq!(told, [""; 0]);
    rig.clips.raise("b");
    let told = rig.keep(1001).unwrap();
    assert!(told.contains("/clip-b: the disk is too slow"), "{told}");
    let held: Vec<Job> = queue.try_iter().collect();
    assert_eq!(held.len(), 4);
    drop(queue);
    rig.clips.raise("c");
    assert!(rig.keep(1002).unwrap().contains("has ended"));
}

#[test]
fn without_the_section_nothing_is_kept_and_a_reload_changes_that() {
    let mut rig = Rig::new("");
    let mut without = Rig::config(&rig.dir, "");
    without.clips = None;
    rig.keep(0);
    rig.clips.reconfigure(&without).unwrap();
    assert_eq!((rig.clips.path("a"), rig.clips.ring.frames().len()), (None, 0));
    rig.keep(1000);
    assert_eq!(rig.clips.ring.frames().len(), 0);
    rig.clips.reconfigure(&Rig::config(&rig.dir, "")).unwrap();
    rig.keep(2000);
    rig.clips.raise("a");
    rig.keep(3000);
    rig.finish();
    assert_eq!(rig.times("a"), "-1000,0");
    let off = Clips::start(&without).unwrap();
    assert!(off.thread.is_none());
}
