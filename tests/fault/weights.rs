//! Packed weights that daemons share, on disks and beside processes that spoil them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Resource;

use crate::daemon::Daemon;
use crate::rig::{Disk, Rig, is_root, limit};

/// The only file of a folder.
fn only(folder: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none());
    file
}

/// The inode of the packed weights that a daemon has mapped.
fn mapped(daemon: &Daemon) -> Option<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.child.id())).unwrap();
    let line = maps.lines().find(|line| line.contains(".weights"))?;
    line.split_whitespace().nth(4).unwrap().parse().ok()
}

#[test]
fn fault_daemons_of_one_network_map_one_file_and_outlive_it() {
    let (one, two) = (Rig::new(""), Rig::new(""));
    let cache = one.path("cache");
    std::fs::create_dir(&cache).unwrap();
    let spawn = |rig: &Rig| {
        rig.spawn_with(|command| {
            command.env("CACHE_DIRECTORY", &cache);
        })
    };
    let daemons = [spawn(&one), spawn(&two)];
    daemons.iter().for_each(|daemon| daemon.notified("READY=1"));
    let file = only(&cache);
    let inode = file.metadata().unwrap().ino();
    assert!(daemons.iter().all(|daemon| mapped(daemon) == Some(inode)));
    std::fs::remove_file(&file).unwrap();
    one.works(&daemons[0]);
    two.works(&daemons[1]);
    one.reload(&daemons[0]);
    let made = only(&cache).metadata().unwrap().ino();
    assert_eq!(mapped(&daemons[0]), Some(made));
    one.works(&daemons[0]);
    let [first, second] = daemons;
    one.stops(first);
    two.stops(second);
    assert!(!(one.told() + &two.told()).contains("packed weights"));
}

#[test]
fn fault_damaged_packed_weights_are_told_and_made_anew_at_a_reload() {
    let rig = Rig::new("");
    let cache = rig.path("cache");
    std::fs::create_dir(&cache).unwrap();
    rig.watch("", "");
    let daemon = rig.starts_with(|command| {
        command.env("CACHE_DIRECTORY", &cache);
    });
    let file = only(&cache);
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let mut permissions = file.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&file, permissions).unwrap();
    rig.reload(&daemon);
    rig.tells("it is cut short; they are packed anew");
    assert!(std::fs::read(only(&cache)).unwrap() == whole);
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_no_room_for_packed_weights_costs_a_warning() {
    let test = "fault_no_room_for_packed_weights_costs_a_warning";
    let rig = Rig::new("");
    let Some(_disk) = Disk::mount(test, &rig.path("cache"), 256) else { return };
    let starts = || {
        rig.starts_with(|command| {
            command.env("CACHE_DIRECTORY", rig.path("cache"));
        })
    };
    let daemon = starts();
    rig.tells("cannot share packed weights in");
    rig.tells("No space left on device");
    assert_eq!(mapped(&daemon), None);
    assert!(std::fs::read_dir(rig.path("cache")).unwrap().next().is_none());
    rig.works(&daemon);
    rig.stops(daemon);
}

#[test]
fn fault_a_cache_that_may_not_be_written_costs_a_warning() {
    let test = "fault_a_cache_that_may_not_be_written_costs_a_warning";
    if !is_root(test) {
        return;
    }
    let rig = Rig::new("");
    let Some(disk) = Disk::mount(test, &rig.path("cache"), 64 << 10) else { return };
    disk.remount("ro");
    let daemon = rig.starts_with(|command| {
        command.env("CACHE_DIRECTORY", rig.path("cache"));
    });
    rig.tells("Read-only file system (os error 30); this process keeps its own in memory");
    rig.works(&daemon);
    disk.remount("rw");
    limit(&daemon, Resource::Fsize, Some(1 << 20));
    rig.reload(&daemon);
    rig.tells("File too large (os error 27); this process keeps its own in memory");
    limit(&daemon, Resource::Fsize, None);
    rig.reload(&daemon);
    assert_eq!(mapped(&daemon), Some(only(&rig.path("cache")).metadata().unwrap().ino()));
    rig.works(&daemon);
    rig.stops(daemon);
}
