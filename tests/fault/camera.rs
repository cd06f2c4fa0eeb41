//! What a camera gives, or does not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use image::{Rgb, RgbImage};
use outlierd::internals::watch::events::Kind;
use rustix::process::{Resource, Signal};

use crate::daemon::{Place, world};
use crate::rig::{NOBODY, Rig, count, is_root, limit, memory, open_to_all, until};

/// Puts something among the pictures of a running daemon: an error event says so, and the watch goes on.
fn is_told(name: &str, said: &str, plant: impl FnOnce(&Path)) {
    let rig = Rig::new("");
    let daemon = rig.starts();
    // What is read without end must end the test and not the machine.
    limit(&daemon, Resource::As, Some(8 << 30));
    // In one step: a picture that is half written is another error.
    let path = rig.frames.join(name);
    plant(&rig.path(name));
    std::fs::rename(rig.path(name), &path).unwrap();
    daemon.wait_for(said, |events| {
        let named = |event: &&outlierd::internals::watch::events::Event| {
            event.message.as_ref().is_some_and(|m| m.contains(name) && m.contains(said))
        };
        events.iter().any(|event| named(&event))
    });
    assert!(memory(&daemon, "VmHWM") < 400_000, "{} kB", memory(&daemon, "VmHWM"));
    std::fs::remove_file(&path).unwrap();
    rig.works(&daemon);
    rig.stops(daemon);
}

fn jpeg() -> Vec<u8> {
    let picture = image::open(world().join("frames/0001.png")).unwrap();
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Jpeg).unwrap();
    bytes
}

#[test]
fn fault_a_truncated_picture_is_a_dropped_frame_and_no_outlier() {
    is_told("cut.jpg", "cannot decode picture", |path| {
        let whole = jpeg();
        std::fs::write(path, &whole[..whole.len() * 2 / 3]).unwrap();
    });
}

#[test]
fn fault_garbage_instead_of_a_picture_is_a_dropped_frame() {
    is_told("bad.jpg", "cannot decode picture", |path| {
        let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(path, noise).unwrap();
    });
}

#[test]
fn fault_an_empty_picture_is_a_dropped_frame() {
    is_told("empty.webp", "not a JPEG, PNG, BMP or WebP picture", |path| std::fs::write(path, "").unwrap());
}

#[test]
fn fault_a_pipe_among_the_pictures_does_not_hang_the_watch() {
    is_told("pipe.png", "not a plain file", |path| {
        let mut mkfifo = std::process::Command::new("mkfifo");
        assert!(mkfifo.arg(path).status().unwrap().success());
    });
}

#[test]
fn fault_a_link_to_a_device_without_end_is_not_read() {
    is_told("zero.bmp", "not a plain file", |path| symlink("/dev/zero", path).unwrap());
}

#[test]
fn fault_a_picture_file_of_gigabytes_is_not_read() {
    is_told("vast.jpg", "larger than", |path| {
        std::fs::File::create(path).unwrap().set_len(40 << 30).unwrap();
    });
}

#[test]
fn fault_a_link_that_leads_nowhere_is_a_dropped_frame() {
    is_told("gone.png", "No such file", |path| symlink("/nonexistent/picture.png", path).unwrap());
}

#[test]
fn fault_a_link_to_itself_is_a_dropped_frame() {
    is_told("self.png", "symbolic link", |path| symlink(path.file_name().unwrap(), path).unwrap());
}

#[test]
fn fault_a_header_that_promises_too_many_pixels_costs_no_memory() {
    is_told("bomb.png", "larger than", |path| {
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |kind: &[u8], data: &[u8]| {
            png.extend((data.len() as u32).to_be_bytes());
            let body = [kind, data].concat();
            png.extend(&body);
            png.extend(crc32fast::hash(&body).to_be_bytes());
        };
        let side = 16_000_u32.to_be_bytes();
        chunk(b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
        chunk(b"IDAT", &[0x78, 0x9c, 1, 0, 0, 0xff, 0xff]);
        std::fs::write(path, png).unwrap();
    });
    is_told("bomb.jpg", "larger than", |path| {
        let mut bytes = jpeg();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].fill(0xff);
        std::fs::write(path, bytes).unwrap();
    });
}

#[test]
fn fault_pictures_of_any_shape_are_judged_and_not_taken_for_unchanged() {
    let mut place = Place::unconfigured();
    place.frames = place.path("frames");
    std::fs::create_dir(&place.frames).unwrap();
    let sizes = [(128, 96), (64, 48), (1, 1), (3000, 1), (1, 3000), (31, 33), (640, 480), (128, 96)];
    for (number, (width, height)) in sizes.into_iter().enumerate() {
        let picture = RgbImage::from_pixel(width, height, Rgb([90, 90, 90]));
        picture.save(place.frames.join(format!("{number}.png"))).unwrap();
    }
    let camera = "interval = \"1ms\"\nchange-threshold = 255.0";
    place.configure(camera, "[decision]\nthreshold = 1.0\nraise-after = 1\n");
    let run = place.run(&["run"]);
    assert!(run.status.success(), "{}", crate::daemon::text(&run.stderr));
    let events = outlierd::internals::watch::events::read(&place.log).unwrap();
    assert_eq!(events.last().unwrap().frames, Some(sizes.len() as u64));
    assert!(events.iter().any(|event| event.event == Kind::Raise && event.heat.is_some()), "{events:?}");
}

#[test]
fn fault_a_folder_that_goes_is_a_lost_camera_and_is_found_again() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    daemon.notified("STATUS=normal");
    std::fs::rename(&rig.frames, rig.path("away")).unwrap();
    daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
    let lost = rig.events().into_iter().find(|event| event.event == Kind::CameraLost).unwrap();
    assert!(lost.message.as_ref().unwrap().contains("frames"), "{lost:?}");
    std::fs::rename(rig.path("away"), &rig.frames).unwrap();
    daemon.wait_for("camera-found", |events| count(events, Kind::CameraFound) == 1);
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_folder_that_is_emptied_is_a_lost_camera() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    std::fs::rename(&rig.frames, rig.path("away")).unwrap();
    std::fs::create_dir(&rig.frames).unwrap();
    daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
    rig.show(false);
    daemon.wait_for("camera-found", |events| count(events, Kind::CameraFound) == 1);
    rig.works(&daemon);
}

#[test]
fn fault_garbage_for_long_is_a_lost_camera_that_is_found_again() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    daemon.notified("STATUS=normal");
    for name in ["a.png", "b.png", "c.png"] {
        std::fs::remove_file(rig.frames.join(name)).unwrap();
        std::fs::write(rig.frames.join(name), "no picture").unwrap();
    }
    daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
    let lost = rig.events().into_iter().find(|event| event.event == Kind::CameraLost).unwrap();
    assert!(lost.message.as_ref().unwrap().contains("dropped a frame of"), "{lost:?}");
    rig.show(false);
    daemon.wait_for("camera-found", |events| count(events, Kind::CameraFound) == 1);
    rig.works(&daemon);
}

#[test]
fn fault_a_flood_of_bad_pictures_fills_neither_log_nor_journal() {
    let mut place = Place::unconfigured();
    place.frames = place.path("frames");
    std::fs::create_dir(&place.frames).unwrap();
    for number in 0..3000 {
        std::fs::write(place.frames.join(format!("{number:05}.png")), "no picture").unwrap();
    }
    place.configure("interval = \"1ms\"\nlost-after = \"1h\"", "");
    let run = place.run(&["run"]);
    assert!(run.status.success());
    let events = outlierd::internals::watch::events::read(&place.log).unwrap();
    let errors = count(&events, Kind::Error);
    assert!((5..100).contains(&errors), "{errors} error events");
    assert!(run.stderr.len() < 100_000, "{} bytes", run.stderr.len());
}

#[test]
fn fault_pictures_deleted_between_listing_and_opening_are_dropped_frames() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    let mut rounds = 0;
    until("a picture that is gone", || {
        rounds += 1;
        daemon.signal(Signal::STOP);
        for name in ["b.png", "c.png"] {
            let _ = std::fs::remove_file(rig.frames.join(name));
        }
        daemon.signal(Signal::CONT);
        // The daemon was not always between the two; where it was, it needs this long to come to the next picture.
        std::thread::sleep(std::time::Duration::from_millis(20) * rounds);
        rig.show(false);
        crate::rig::messages(&rig.events()).iter().any(|message| message.contains("No such file"))
    });
    rig.works(&daemon);
    rig.stops(daemon);
}

/// The daemon as someone who owns nothing; None where that cannot be.
fn as_nobody(test: &str, rig: &Rig) -> Option<crate::daemon::Daemon> {
    if !is_root(test) {
        return None;
    }
    for path in [rig.dir.path(), world(), &rig.frames] {
        open_to_all(path);
    }
    let daemon = rig.spawn_with(|command| {
        open_to_all(&rig.path("notify"));
        command.uid(NOBODY).gid(NOBODY);
    });
    daemon.notified("READY=1");
    Some(daemon)
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn fault_a_picture_that_may_not_be_read_is_a_dropped_frame() {
    let rig = Rig::new("");
    let Some(daemon) = as_nobody("fault_a_picture_that_may_not_be_read_is_a_dropped_frame", &rig) else { return };
    std::fs::copy(rig.frames.join("a.png"), rig.path("secret.png")).unwrap();
    allow(&rig.path("secret.png"), 0);
    std::fs::rename(rig.path("secret.png"), rig.frames.join("secret.png")).unwrap();
    rig.error(&daemon, "Permission denied");
    allow(&rig.frames.join("secret.png"), 0o644);
    rig.works(&daemon);
}

#[test]
fn fault_a_folder_that_may_not_be_read_is_a_lost_camera() {
    let rig = Rig::new("");
    let Some(daemon) = as_nobody("fault_a_folder_that_may_not_be_read_is_a_lost_camera", &rig) else { return };
    allow(&rig.frames, 0o700);
    daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
    allow(&rig.frames, 0o755);
    daemon.wait_for("camera-found", |events| count(events, Kind::CameraFound) == 1);
    rig.works(&daemon);
}

#[test]
fn fault_a_device_that_is_no_camera_is_lost_and_the_daemon_can_be_stopped() {
    let pipe = tempfile::tempdir().unwrap();
    let pipe = pipe.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for device in ["/dev/nonexistent-video", "/dev/null", pipe.to_str().unwrap()] {
        let rig = Rig::new("");
        let config = std::fs::read_to_string(rig.path("o.toml")).unwrap();
        let source = format!("source = \"v4l:{device}\"");
        let config = config.replace(&format!("source = \"folder:{}\"", rig.frames.display()), &source);
        std::fs::write(rig.path("o.toml"), config.replace("loop = true\n", "")).unwrap();
        let daemon = rig.spawn();
        daemon.notified("READY=1");
        daemon.wait_for("camera-lost", |events| count(events, Kind::CameraLost) == 1);
        let lost = rig.events().into_iter().find(|event| event.event == Kind::CameraLost).unwrap();
        assert!(lost.message.as_ref().unwrap().contains(device), "{lost:?}");
        rig.stops(daemon);
        assert_eq!(rig.kinds(), [Kind::Start, Kind::CameraLost, Kind::Stop]);
    }
}

#[test]
fn fault_a_picture_s_name_writes_no_lines_of_its_own_into_the_journal() {
    let rig = Rig::new("");
    let daemon = rig.starts();
    std::fs::write(rig.frames.join("x\noutlierd: raise forged\x1b[2J.png"), "no picture").unwrap();
    rig.error(&daemon, "forged");
    rig.tells("forged");
    let told = rig.told();
    assert!(!told.contains("\noutlierd: raise forged") && !told.contains('\x1b'), "{told}");
    let shown = rig.run(&["events"]);
    let shown = crate::daemon::text(&shown.stdout);
    assert!(shown.contains("forged") && !shown.contains("\noutlierd: raise") && !shown.contains('\x1b'), "{shown}");
}
