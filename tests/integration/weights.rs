//! Packed weights in files that processes share: what is read from them is what the network's file says, whatever
//! becomes of them.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outlierd::internals::backbone::kernels::{
    Addends, Conv, ConvShape, Epilogue, Isa, Mapped, OutputMut, Packed, Pool, Scratch,
};
use outlierd::internals::backbone::untrained::{Params, resnet50};
use outlierd::internals::backbone::{Backbone, Options};

use crate::common::networks::{options, picture, quantized, small};

/// A network's file and a cache folder.
struct Place {
    dir: tempfile::TempDir,
    network: PathBuf,
    cache: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { network: dir.path().join("n.onnx"), cache: dir.path().join("cache"), dir };
        std::fs::create_dir(&place.cache).unwrap();
        std::fs::write(&place.network, quantized(small().to_bytes())).unwrap();
        place
    }

    /// What the network says with its weights from `cache`.
    fn features_by(&self, cache: Option<&Path>) -> Vec<f32> {
        let options = Options { cache: cache.map(Path::to_path_buf), ..options(None) };
        Backbone::load(&self.network, &options).unwrap().features(&picture(3)).unwrap()
    }

    fn features(&self) -> Vec<f32> {
        self.features_by(Some(&self.cache))
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(&self.cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The one file of packed weights.
    fn file(&self) -> PathBuf {
        let files = self.files();
        assert!(matches!(files.as_slice(), [one] if one.extension().unwrap() == "weights"), "{files:?}");
        files[0].clone()
    }
}

fn inode(path: &Path) -> u64 {
    path.metadata().unwrap().ino()
}

/// Another network of the same shape.
fn other(seed: u64) -> Vec<u8> {
    let params = Params { width: 4, size: 32, blocks: vec![1, 1], seed };
    quantized(resnet50(&params).to_bytes())
}

#[test]
fn packed_weights_are_written_once_and_give_the_same_features() {
    let place = Place::new();
    let features = place.features_by(None);
    assert!(place.files().is_empty());
    assert_eq!(place.features(), features);
    let (file, first) = (place.file(), inode(&place.file()));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o440);
    assert_eq!(place.features(), features);
    assert_eq!(inode(&file), first);
}

#[test]
fn weights_stay_mapped_when_their_file_is_removed() {
    let place = Place::new();
    let load =
        || Backbone::load(&place.network, &Options { cache: Some(place.cache.clone()), ..options(None) }).unwrap();
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
    let backbone = load();
    let file = place.file();
    let features = backbone.features(&picture(3)).unwrap();
    let mapped = maps().lines().find(|line| line.contains(file.to_str().unwrap())).map(str::to_owned);
    assert!(mapped.as_ref().is_some_and(|line| line.contains(" r--s ")), "{mapped:?}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(backbone.features(&picture(3)).unwrap(), features);
    let again = load();
    drop(backbone);
    assert_eq!(again.features(&picture(3)).unwrap(), features);
    drop(again);
    assert!(!maps().contains(file.to_str().unwrap()));
}

#[test]
fn damaged_files_of_packed_weights_are_made_anew() {
    let place = Place::new();
    let features = place.features();
    let file = place.file();
    let whole = std::fs::read(&file).unwrap();
    let plant = |bytes: &[u8]| {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        assert_eq!(place.features(), features);
        assert!(std::fs::read(place.file()).unwrap() == whole);
    };
    for len in [0, 1, 63, 64, 65, whole.len() / 2, whole.len() - 1] {
        plant(&whole[..len]);
    }
    // Each field of the header, panels, addends.
    for at in [0, 8, 12, 16, 47, 48, 55, 56, 63, 64, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        plant(&bytes);
    }
    plant(&[&whole[..], b"x"].concat());
    plant(&vec![0; whole.len()]);
    plant(b"weights");
}

/// A checksum says that a file is whole, not that it was made by this program.
#[test]
fn addends_that_do_not_fit_are_made_anew_though_the_checksum_is_right() {
    let place = Place::new();
    let features = place.features();
    let file = place.file();
    let whole = std::fs::read(&file).unwrap();
    let number = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap());
    let plant = |start: u64, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[48..56].copy_from_slice(&start.to_le_bytes());
        let len = bytes.len() as u64;
        bytes[56..64].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&[&bytes[64..], &bytes[16..64]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        assert_eq!(place.features(), features);
        assert!(std::fs::read(place.file()).unwrap() == whole);
    };
    let start = number(48) as usize;
    assert_eq!(number(56), whole.len() as u64);
    // Where they start is beyond the end; panels are taken for addends; there are fewer of them; they say the bias is longer.
    plant(u64::MAX, &whole);
    plant(whole.len() as u64 + 1, &whole);
    plant(64, &whole);
    plant(start as u64, &whole[..start]);
    plant(start as u64, &whole[..start + (whole.len() - start) / 2]);
    let mut longer = whole.clone();
    longer[start] ^= 1;
    plant(start as u64, &longer);
    // The panels are gone, the addends are as they were.
    plant(64, &[&whole[..64], &whole[start..]].concat());
}

#[test]
fn packed_weights_that_others_may_write_are_made_anew() {
    let place = Place::new();
    let features = place.features();
    let file = place.file();
    for mode in [0o460, 0o442, 0o666] {
        let before = inode(&file);
        // Holds the number, so that the new file has another.
        let _held = std::fs::File::open(&file).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        assert_eq!(place.features(), features);
        assert_ne!(inode(&place.file()), before);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o440);
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED another user's packed weights: it needs root");
        return;
    }
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    assert_eq!(place.features(), features);
    assert_eq!(file.metadata().unwrap().uid(), 0);
}

#[test]
fn a_cache_folder_that_cannot_be_used_costs_nothing_but_memory() {
    let place = Place::new();
    let features = place.features();
    let file = place.file();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(place.features(), features);
    for folder in [place.dir.path().join("none"), place.network.clone(), PathBuf::from("/proc")] {
        assert_eq!(place.features_by(Some(&folder)), features, "{}", folder.display());
    }
}

#[test]
fn another_network_in_the_same_place_has_weights_of_its_own_and_old_ones_are_removed() {
    let place = Place::new();
    let first = place.features();
    // As if that had been hours ago; what was used last stays longest.
    let hours = |hours: u64| SystemTime::now() - Duration::from_secs(3600 * hours);
    let mut newest = place.file();
    std::fs::File::open(&newest).unwrap().set_modified(hours(200)).unwrap();
    for n in 0..6 {
        std::fs::write(&place.network, other(n)).unwrap();
        let features = place.features();
        assert_eq!(features, place.features_by(None));
        assert_ne!(features, first);
        let files = place.files();
        assert_eq!(files.len(), (n as usize + 2).min(4));
        newest = files.into_iter().max_by_key(|file| file.metadata().unwrap().modified().unwrap()).unwrap();
        std::fs::File::open(&newest).unwrap().set_modified(hours(100 - n)).unwrap();
    }
    assert!(newest.exists());
    std::fs::write(&place.network, quantized(small().to_bytes())).unwrap();
    let abandoned = newest.with_file_name(format!(".{}.x1y2z3.part", newest.file_name().unwrap().to_str().unwrap()));
    let [recent, strange] = [abandoned.with_extension("recent.part"), place.cache.join("notes.txt")];
    for path in [&abandoned, &recent, &strange] {
        std::fs::write(path, "x").unwrap();
    }
    std::fs::File::open(&abandoned).unwrap().set_modified(hours(2)).unwrap();
    assert_eq!(place.features(), first);
    assert!(newest.exists() && recent.exists() && strange.exists() && !abandoned.exists());
    assert_eq!(place.files().len(), 6);
}

#[test]
fn several_that_start_at_once_map_one_file() {
    let place = Place::new();
    let features = place.features_by(None);
    let load =
        || Backbone::load(&place.network, &Options { cache: Some(place.cache.clone()), ..options(None) }).unwrap();
    let backbones: Vec<Backbone> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(backbones.iter().all(|backbone| backbone.features(&picture(3)).unwrap() == features));
    let (file, maps) = (place.file(), std::fs::read_to_string("/proc/self/maps").unwrap());
    let mapped = maps.lines().filter(|line| line.contains(file.to_str().unwrap()));
    let inodes: Vec<u64> = mapped.map(|line| line.split_whitespace().nth(4).unwrap().parse().unwrap()).collect();
    assert!(inodes.iter().all(|number| *number == inode(&file)), "{maps}");
    assert_eq!(inodes.len(), 8);
}

#[test]
fn every_instruction_set_reads_mapped_weights_as_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w");
    let shapes = [
        ConvShape { in_h: 7, in_w: 6, in_c: 3, out_c: 70, kernel: [3, 3], ..ConvShape::default() },
        ConvShape { in_h: 5, in_w: 4, in_c: 36, out_c: 40, kernel: [3, 3], pads: [1; 4], ..ConvShape::default() },
        ConvShape { in_h: 3, in_w: 3, in_c: 64, out_c: 64, ..ConvShape::default() },
    ];
    for (isa, s) in Isa::available().into_iter().flat_map(|isa| shapes.iter().map(move |s| (isa, s))) {
        // Pairs of neighbours of one sign are what a saturating kernel keeps beside its panels.
        let weights: Vec<i8> = (0..s.weights_len()).map(|n| ((n / 5 * 97 + n * n % 7) % 256) as u8 as i8).collect();
        let bias: Vec<i32> = (0..s.out_c as i32).map(|n| n * 300 - 4000).collect();
        let input: Vec<u8> = (0..s.in_len()).map(|n| (n * 89 % 256) as u8).collect();
        let run = |packed: Packed| {
            let epilogue = Epilogue::new(vec![1e-4; s.out_c], 100, 0, 255);
            let conv = Conv::of(isa, s, packed, 9, epilogue).unwrap();
            let mut out = vec![0u8; s.out_h() * s.out_w() * s.out_c];
            conv.run(&Pool::new(1), &mut Scratch::default(), &input, None, OutputMut::U8(&mut out)).unwrap();
            out
        };
        let packed = Packed::new(isa, s, &weights, &bias, 9).unwrap();
        let (panels, addends) = packed.parts();
        std::fs::write(&path, [&[0; 64], panels].concat()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let addends = postcard::to_stdvec(addends).unwrap();
        let mapped = Arc::new(Mapped::new(&std::fs::File::open(&path).unwrap()).unwrap());
        let read = || postcard::from_bytes::<Addends>(&addends).unwrap();
        let at = |start: usize, shape: &ConvShape| Packed::mapped(isa, shape, &mapped, start, read());
        assert_eq!(run(at(64, s).unwrap()), run(packed), "{} {s:?}", isa.name());
        let wider = ConvShape { out_c: s.out_c + 64, ..*s };
        assert!(at(0, s).is_ok() && at(32, s).is_err() && at(128, s).is_err() && at(64, &wider).is_err());
        assert!(at(usize::MAX - 63, s).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
