//! A model, or its backbone, that is damaged, replaced or gone when the daemon is told to take it over.

use std::path::{Path, PathBuf};
use std::process::Command;

use outlierd::internals::model::Model;
use outlierd::internals::watch::events::Kind;

use crate::daemon::{Place, outlierd, text, world};
use crate::rig::{Rig, count, limited};

/// A rig with a model of its own.
fn with_model() -> Rig {
    let mut place = Place::unconfigured();
    place.model = place.path("model.outlierd");
    std::fs::copy(world().join("model.outlierd"), &place.model).unwrap();
    Rig::on(place, "", "")
}

/// What stands in the model's place is refused at a reload, the old model goes on; once it is back it is taken over.
fn is_refused(reason: &str, plant: impl FnOnce(&Path, Vec<u8>)) {
    let rig = with_model();
    let daemon = rig.starts();
    let whole = std::fs::read(&rig.place.model).unwrap();
    std::fs::remove_file(&rig.place.model).unwrap();
    plant(&rig.place.model, whole.clone());
    rig.refuses(&daemon, reason);
    rig.works(&daemon);
    let _ = std::fs::remove_dir(&rig.place.model);
    std::fs::write(rig.path("new"), whole).unwrap();
    std::fs::rename(rig.path("new"), &rig.place.model).unwrap();
    rig.reload(&daemon);
    rig.tells("reloaded");
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_model_that_is_cut_short_is_refused_and_the_old_one_stays() {
    is_refused("checksum is wrong", |path, whole| std::fs::write(path, &whole[..whole.len() / 2]).unwrap());
}

#[test]
fn fault_a_model_with_one_wrong_bit_is_refused_and_the_old_one_stays() {
    is_refused("checksum is wrong", |path, mut whole| {
        let middle = whole.len() / 2;
        whole[middle] ^= 4;
        std::fs::write(path, whole).unwrap();
    });
}

#[test]
fn fault_a_model_of_a_later_version_is_refused_and_the_old_one_stays() {
    is_refused("it has format version 7", |path, mut whole| {
        whole[8] = 7;
        let end = whole.len() - 4;
        let crc = crc32fast::hash(&whole[..end]);
        whole[end..].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path, whole).unwrap();
    });
}

#[test]
fn fault_something_else_in_the_model_s_place_is_refused_and_the_old_one_stays() {
    is_refused("does not start as a model file does", |path, _| std::fs::write(path, "no model").unwrap());
    is_refused("not a plain file", |path, _| std::fs::create_dir(path).unwrap());
}

#[test]
fn fault_a_model_that_is_gone_is_refused_and_the_old_one_stays() {
    is_refused("No such file", |_, _| {});
}

#[test]
fn fault_a_pipe_in_the_model_s_place_does_not_hang_the_reload() {
    is_refused("not a plain file", |path, _| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    });
}

#[test]
fn fault_a_model_of_gigabytes_is_not_read() {
    is_refused("larger than", |path, _| std::fs::File::create(path).unwrap().set_len(40 << 30).unwrap());
}

/// A rig whose model was fitted on a backbone file.
fn with_backbone() -> (Rig, PathBuf) {
    let mut place = Place::unconfigured();
    place.model = place.path("model.outlierd");
    let backbone = place.path("backbone.onnx");
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/default.onnx");
    std::fs::copy(embedded, &backbone).unwrap();
    let mut fit = outlierd();
    fit.args(["fit", "--normal"]).arg(world().join("normal")).arg("--backbone").arg(&backbone);
    let output = fit.args(["--tap", "layer3+layer4", "--resize", "stretch", "-o"]).arg(&place.model).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (Rig::on(place, "", ""), backbone)
}

#[test]
fn fault_a_backbone_that_is_changed_pipe_or_gone_is_refused_and_the_old_one_stays() {
    let (rig, backbone) = with_backbone();
    let daemon = rig.starts();
    let whole = std::fs::read(&backbone).unwrap();
    let mut other = whole.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    std::fs::write(&backbone, other).unwrap();
    rig.refuses(&daemon, "the model was fitted on another backbone");
    std::fs::write(&backbone, &whole[..whole.len() / 2]).unwrap();
    rig.refuses(&daemon, "the model was fitted on another backbone");
    std::fs::remove_file(&backbone).unwrap();
    rig.refuses(&daemon, "No such file");
    assert!(Command::new("mkfifo").arg(&backbone).status().unwrap().success());
    rig.refuses(&daemon, "not a plain file");
    rig.works(&daemon);
    std::fs::remove_file(&backbone).unwrap();
    std::fs::write(&backbone, whole).unwrap();
    rig.reload(&daemon);
    rig.tells("reloaded");
    rig.works(&daemon);
}

#[test]
fn fault_a_backbone_that_is_cut_while_the_daemon_runs_changes_no_verdict() {
    let (rig, backbone) = with_backbone();
    let daemon = rig.starts();
    rig.works(&daemon);
    std::fs::File::options().write(true).open(&backbone).unwrap().set_len(0).unwrap();
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_refused_reload_is_told_also_among_many_other_errors() {
    let rig = with_model();
    let daemon = rig.starts();
    for number in 0..30 {
        std::fs::write(rig.frames.join(format!("bad-{number}.png")), "no picture").unwrap();
    }
    daemon.wait_for("ten errors", |events| count(events, Kind::Error) >= 10);
    std::fs::write(&rig.place.model, "no model").unwrap();
    rig.refuses(&daemon, "does not start as a model file does");
}

/// A command with room for so many bytes in a file dies in the middle of writing the model.
fn dies_writing(bytes: u64, arguments: &[&str], model: &Path, config: Option<&Path>) {
    let mut command = limited(&[&format!("--fsize={bytes}")]);
    command.args(arguments);
    match config {
        Some(config) => command.arg("--config").arg(config),
        None => command.arg("-o").arg(model),
    };
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{bytes} bytes: {}", text(&output.stdout));
}

#[test]
fn fault_a_fit_that_is_killed_at_any_byte_leaves_the_old_model_whole() {
    let place = Place::unconfigured();
    let model = place.path("model.outlierd");
    std::fs::copy(world().join("model.outlierd"), &model).unwrap();
    let old = std::fs::read(&model).unwrap();
    let normal = world().join("normal");
    let fit = ["fit", "--seed", "7", "--normal", normal.to_str().unwrap()];
    // The features are kept in a file of their own, which is larger.
    std::fs::create_dir(place.path("model.outlierd.features")).unwrap();
    for bytes in [0, 1, 14, old.len() as u64 / 3, old.len() as u64 - 100] {
        dies_writing(bytes, &fit, &model, None);
        assert_eq!(std::fs::read(&model).unwrap(), old, "{bytes} bytes");
        Model::load(&model).unwrap();
    }
}

#[test]
fn fault_a_lesson_that_is_killed_at_any_byte_leaves_the_old_model_whole() {
    let (rig, raise) = Rig::with_false_alarm();
    let id = raise.id.unwrap();
    let model = &rig.place.model;
    let old = std::fs::read(model).unwrap();
    for bytes in [0, 5000, old.len() as u64 - 1, old.len() as u64 + 1] {
        dies_writing(bytes, &["learn", &id], model, Some(&rig.path("o.toml")));
        assert_eq!(std::fs::read(model).unwrap(), old, "{bytes} bytes");
        if let Ok(backup) = std::fs::read(rig.path("model.outlierd.bak")) {
            assert_eq!(backup, old);
        }
    }
    assert!(rig.run(&["learn", &id]).status.success());
    assert_ne!(std::fs::read(model).unwrap(), old);
}

#[test]
fn fault_lessons_under_a_running_daemon_are_taken_over_whole_or_not_at_all() {
    let (rig, raise) = Rig::with_false_alarm();
    let id = raise.id.unwrap();
    let old = std::fs::read(&rig.place.model).unwrap();
    assert!(rig.run(&["learn", &id]).status.success());
    let new = std::fs::read(&rig.place.model).unwrap();
    rig.watch("", "");
    let daemon = rig.starts();
    for _ in 0..10 {
        for bytes in [&old, &new] {
            outlierd::internals::fs::replace(&rig.place.model, bytes).unwrap();
            daemon.signal(rustix::process::Signal::HUP);
        }
    }
    rig.reload(&daemon);
    rig.works(&daemon);
    rig.stops(daemon);
    assert_eq!(crate::rig::messages(&rig.events()), [""; 0]);
}

#[test]
fn fault_a_model_that_root_has_taught_is_still_the_daemon_s() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !crate::rig::is_root("fault_a_model_that_root_has_taught_is_still_the_daemon_s") {
        return;
    }
    let (rig, raise) = Rig::with_false_alarm();
    let id = raise.id.unwrap();
    let model = &rig.place.model;
    chown(model, Some(1234), Some(1235)).unwrap();
    std::fs::set_permissions(model, std::fs::Permissions::from_mode(0o640)).unwrap();
    let old = std::fs::metadata(model).unwrap();
    assert!(rig.run(&["learn", &id]).status.success());
    let new = std::fs::metadata(model).unwrap();
    assert_ne!(new.ino(), old.ino());
    assert_eq!((new.uid(), new.gid(), new.mode()), (1234, 1235, old.mode()));
}
