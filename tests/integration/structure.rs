//! The house's rules, read from the sources: which module may know which, and no two files know each other, not even in
//! a round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module knows those before it in its line.
const LAYERS: &[(&str, &[&str])] = &[
    ("fs", &[]),
    ("text", &[]),
    ("estimators", &[]),
    ("image", &["fs"]),
    ("pictures", &["image", "fs"]),
    ("config", &["pictures", "image", "fs", "text"]),
    ("camera", &["config", "pictures", "image", "fs", "text"]),
    ("backbone", &["image", "fs"]),
    ("model", &["backbone", "estimators", "image", "fs"]),
    ("training", &["model", "backbone", "estimators", "pictures", "image", "fs"]),
    ("watch", &["model", "camera", "backbone", "estimators", "config", "pictures", "image", "fs"]),
    ("page", &["watch", "model", "camera", "config", "pictures", "image", "fs", "text"]),
    ("cli", &["page", "training", "watch", "model", "camera", "backbone", "config", "pictures", "image", "fs"]),
];

type Module = Vec<String>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// `src/watch/raise.rs` is `watch::raise`, `src/watch/mod.rs` and `src/watch.rs` are `watch`.
fn module(path: &Path, root: &Path) -> Module {
    let inside = path.strip_prefix(root).unwrap().with_extension("");
    let mut names: Module = inside.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// Without comments and unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests").or_else(|| text.find("#[cfg(test)]\npub(super) mod tests"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every `a::b::{c, d::e}` in a text, as `a b c` and `a b d e`.
fn paths(text: &str) -> Vec<Module> {
    let bytes = text.as_bytes();
    let is_name = |at: usize| bytes.get(at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if is_name(at) && (at == 0 || !is_name(at - 1)) {
            let starts = at < 2 || &bytes[at - 2..at] != b"::";
            if starts {
                walk(text, &mut at, Vec::new(), &mut found);
                continue;
            }
        }
        at += 1;
    }
    found
}

/// Follows one path from `at`, into groups.
fn walk(text: &str, at: &mut usize, mut before: Module, found: &mut Vec<Module>) {
    let bytes = text.as_bytes();
    loop {
        let start = *at;
        while bytes.get(*at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
            *at += 1;
        }
        before.push(text[start..*at].to_owned());
        if !text[*at..].starts_with("::") {
            break;
        }
        *at += 2;
        if bytes.get(*at) == Some(&b'{') {
            *at += 1;
            while bytes.get(*at).is_some_and(|c| *c != b'}') {
                match bytes[*at].is_ascii_alphanumeric() || bytes[*at] == b'_' {
                    true => walk(text, at, before.clone(), found),
                    false => *at += 1,
                }
            }
            *at += 1;
            return;
        }
    }
    found.push(before);
}

/// The files that a file's code names.
fn known(own: &Module, code: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    // One name alone is no path: `pub(super)`.
    for path in paths(code).into_iter().filter(|path| path.len() > 1) {
        let child = [own.as_slice(), &path[..1]].concat();
        let (mut base, mut rest) = match path[0].as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (own.clone(), &path[1..]),
            "super" => (own.clone(), &path[..]),
            _ if modules.contains(&child) => (own.clone(), &path[..]),
            _ => continue,
        };
        while let Some(("super", others)) = rest.split_first().map(|(first, others)| (first.as_str(), others)) {
            base.pop();
            rest = others;
        }
        while let Some((first, others)) = rest.split_first() {
            let deeper = [base.as_slice(), std::slice::from_ref(first)].concat();
            if !modules.contains(&deeper) {
                break;
            }
            (base, rest) = (deeper, others);
        }
        if base != *own && modules.contains(&base) {
            found.insert(base);
        }
    }
    found
}

fn graph() -> BTreeMap<Module, BTreeSet<Module>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let outside = ["main", "lib", "internals"];
    let named: BTreeMap<Module, PathBuf> = files.into_iter().map(|path| (module(&path, &root), path)).collect();
    let named: BTreeMap<_, _> = named.into_iter().filter(|(name, _)| !outside.contains(&name[0].as_str())).collect();
    let modules: BTreeSet<Module> = named.keys().cloned().collect();
    named.iter().map(|(name, path)| (name.clone(), known(name, &code(path), &modules))).collect()
}

#[test]
fn modules_know_those_below_them_only() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, known) in graph() {
        let own = name[0].as_str();
        let below = allowed.get(own).unwrap_or_else(|| panic!("src/{own} has no line among the layers"));
        let above = known.iter().filter(|other| other[0] != own && !below.contains(&other[0].as_str()));
        wrong.extend(above.map(|other| format!("{} knows {}", name.join("::"), other.join("::"))));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (at, (name, below)) in LAYERS.iter().enumerate() {
        let lower = |other: &str| LAYERS[..at].iter().any(|(name, _)| *name == other);
        assert!(below.iter().all(|other| lower(other)), "{name} knows one that is not below it");
    }
}

#[test]
fn no_files_know_each_other_in_a_round() {
    let graph = graph();
    assert!(graph.len() > 100, "{} files", graph.len());
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 300);
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(name) = open.pop() {
            if seen.insert(name) {
                open.extend(&graph[name]);
            }
        }
        seen.contains(to)
    };
    let mut rounds = Vec::new();
    for (name, known) in &graph {
        let back = known.iter().filter(|other| reaches(other, name));
        rounds.extend(back.map(|other| format!("{} -> {}", name.join("::"), other.join("::"))));
    }
    assert!(rounds.is_empty(), "{rounds:#?}");
}

#[test]
fn paths_are_found_in_uses_and_in_expressions() {
    let found = |text: &str| paths(text).into_iter().map(|path| path.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("use a::{b, c::{d, e as f}};"), ["use", "a b", "a c d", "a c e", "a c as", "a c f"]);
    assert_eq!(found("x.y(crate::z::W::new(1))"), ["x", "y", "crate z W new", "1"]);
}
