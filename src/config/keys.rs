//! The keys that there are, and what was probably meant by others.

use toml::de::DeValue;

use super::mqtt;

pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        "camera",
        &[
            "source",
            "width",
            "height",
            "format",
            "interval",
            "crop",
            "mask",
            "lost-after",
            "loop",
            "change-threshold",
            "judge-at-least-every",
            "controls",
        ],
    ),
    ("model", &["path", "backbone", "cache", "threads", "nice", "duty", "when"]),
    ("decision", &["threshold", "false-alarms", "settle", "raise-after", "clear-after"]),
    ("drift", &["window", "mean-p"]),
    ("history", &["path", "max-size"]),
    ("observe", &["socket"]),
    (
        "events",
        &["log", "max-log-size", "snapshots", "keep-snapshots", "max-snapshot-bytes", "heat-map", "hook", "metrics"],
    ),
    ("clips", &["before", "after", "max-rate", "max-memory", "keep", "max-bytes"]),
    ("gpio", &["chip", "line", "active", "mode", "pulse", "heartbeat"]),
    ("mqtt", mqtt::KEYS),
];

pub(super) fn unknown_section(name: &str, sections: &[&str], value: &DeValue<'_>) -> String {
    if value.is_table() {
        let all = sections.join("], [");
        return format!("unknown section [{name}]: did you mean [{}]? known: [{all}]", nearest(name, sections));
    }
    match SECTIONS.iter().find(|(_, keys)| keys.contains(&name)) {
        Some((section, _)) => format!("key \"{name}\" stands outside of a section: put it below [{section}]"),
        None => {
            let keys: Vec<&str> = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
            format!("unknown key \"{name}\" outside of a section: did you mean \"{}\"?", nearest(name, &keys))
        }
    }
}

pub(super) fn unknown_key(name: &str, section: &str, known: &[&str]) -> Option<String> {
    (!known.contains(&name)).then(|| {
        let (nearest, all) = (nearest(name, known), known.join(", "));
        format!("unknown key \"{name}\" in {section}: did you mean \"{nearest}\"? known: {all}")
    })
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> &'a str {
    let plain: String = name.to_ascii_lowercase().replace('_', "-").chars().take(64).collect();
    known.iter().min_by_key(|candidate| strsim::levenshtein(&plain, candidate)).copied().unwrap_or_default()
}
