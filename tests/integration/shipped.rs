//! What is shipped beside the program: manual pages that are made from the packaged config and the event's docs, examples,
//! units.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outlierd::internals::cli::help::topics;
use outlierd::internals::config::Config;
use outlierd::internals::watch::events::{Event, Kind};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Its output, or None and a line that names the test where the program is missing.
fn tool(test: &str, name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).env("LC_ALL", "C").output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED {test}: {name} is not installed");
            None
        }
        other => Some(other.unwrap()),
    }
}

/// A folder with the manual's pages.
fn manual() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made =
        Command::new(project("cross/manual.sh")).arg(folder.path()).env("SOURCE_DATE_EPOCH", "0").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    folder
}

fn plain(roff: &str) -> String {
    roff.replace("\\(dq", "\"").replace("\\-", "-").replace("\\e", "\\")
}

/// Heading, key and value, text, of a page's items: those that follow each other share the text of the last.
fn items(page: &str) -> Vec<(String, String, String)> {
    let (mut section, mut open, mut items, mut text) = (String::new(), Vec::new(), Vec::new(), String::new());
    for line in page.lines().chain([".El"]) {
        let tag = line.strip_prefix(".It Cm ").map(|tag| plain(tag.trim_matches('"')));
        if (tag.is_some() && !text.is_empty()) || line == ".El" {
            items.extend(open.drain(..).map(|tag| (section.clone(), tag, text.clone())));
            text.clear();
        }
        match (tag, line.strip_prefix(".Ss ")) {
            (Some(tag), _) => open.push(tag),
            (_, Some(heading)) => section = heading.trim_matches(['[', ']']).to_owned(),
            _ if !line.starts_with('.') && !open.is_empty() => text.push_str(line),
            _ => {}
        }
    }
    items
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/outlierd/outlierd.toml"), text).map_err(|e| e.to_string())
}

/// What a config with an unknown name says there is.
fn known(text: &str) -> Vec<String> {
    let message = parse(text).unwrap_err();
    let names = message.rsplit_once("known: ").unwrap_or_else(|| panic!("{message}")).1;
    names.split(", ").map(|name| name.trim_matches(['[', ']']).to_owned()).collect()
}

#[test]
fn every_key_is_in_the_manual_with_a_text_and_its_default() {
    let folder = manual();
    let page = read(&folder.path().join("man5/outlierd.toml.5"));
    assert!(page.starts_with(".Dd January 1, 1970\n") && !page.contains("@PART@"));
    let items = items(&page);
    for section in known("[zzz]\n") {
        for key in known(&format!("[{section}]\nzzz = 1\n")) {
            if ["mask", "controls", "when"].contains(&key.as_str()) {
                let heading = format!("[{section}.{key}]");
                assert!(page.contains(&heading), "no {heading}");
                continue;
            }
            let found = items.iter().find(|(of, tag, _)| *of == section && tag.split(" = ").next() == Some(&key));
            let (_, tag, text) = found.unwrap_or_else(|| panic!("no {key} in [{section}]"));
            assert!(text.len() > 5, "{section}.{key} has no text");
            if !text.contains("default") {
                let bare = parse(&format!("[{section}]\n")).unwrap();
                let shown = parse(&format!("[{section}]\n{tag}\n")).unwrap();
                assert_eq!(bare, shown, "{section}.{tag} is not the default");
            }
        }
    }
    let whens = page.split(".Ss [[model.when]]").nth(1).unwrap().split(".Ss").next().unwrap();
    for key in known("[[model.when]]\nzzz = 1\n") {
        assert!(plain(whens).contains(&format!("\n{key} = ")), "no {key} in [[model.when]]");
    }
}

#[test]
fn every_kind_and_field_of_an_event_is_in_the_manual() {
    let folder = manual();
    let items = items(&read(&folder.path().join("man5/outlierd-events.5")));
    let names = |section: &str| -> Vec<String> {
        let of_section = items.iter().filter(|(of, _, text)| of == section && text.len() > 5);
        of_section.map(|(_, tag, _)| tag.clone()).collect()
    };
    assert_eq!(names("Kinds"), Kind::ALL.map(Kind::name));
    let all = Event {
        region: Some([0.0; 4]),
        clip: Some("c".into()),
        instance: Some("i".into()),
        message: Some("m".into()),
        ..Event::new(Kind::Raise)
    };
    let json: serde_json::Value = serde_json::from_str(&all.to_json()).unwrap();
    let mut fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    let mut shown = names("Fields");
    fields.sort();
    shown.sort();
    assert_eq!(shown.iter().collect::<Vec<_>>(), fields);
}

#[test]
fn every_topic_of_help_is_in_the_manual_word_for_word() {
    let folder = manual();
    let page = read(&folder.path().join("man8/outlierd.8"));
    let shown = |line: &str| match line.strip_prefix(".It Cm ") {
        Some(tag) => tag.trim_matches('"').to_owned(),
        None if line.starts_with('.') => String::new(),
        None => line.to_owned(),
    };
    for (name, title, text) in topics() {
        let section = page.split(".Sh ").find_map(|section| section.strip_prefix(&(title.to_uppercase() + "\n")));
        let lines: Vec<String> = section.unwrap_or_else(|| panic!("no {name}")).lines().map(shown).collect();
        let printed = plain(&lines.join(" ")).replace("\\fB", "").replace("\\fP", "").replace("\\&", "");
        let words = |text: &str| text.replace('`', "").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&printed), words(text), "{name}");
    }
}

#[test]
fn the_manual_is_clean() {
    let folder = manual();
    for page in ["man8/outlierd.8", "man5/outlierd.toml.5", "man5/outlierd-events.5"] {
        let path = folder.path().join(page);
        let path = path.to_str().unwrap();
        if let Some(lint) = tool("the_manual_is_clean", "mandoc", &["-T", "lint", "-W", "warning", path]) {
            assert!(lint.status.success() && lint.stdout.is_empty(), "{lint:?}");
        }
        if let Some(groff) = tool("the_manual_is_clean", "groff", &["-w", "w", "-mandoc", "-Tutf8", "-z", path]) {
            assert!(groff.status.success() && groff.stderr.is_empty(), "{groff:?}");
        }
    }
}

/// Files below a folder, by the end of their names.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => files(&path, end),
        false => Some(path).filter(|path| path.to_str().is_some_and(|name| name.ends_with(end))).into_iter().collect(),
    };
    entries.flat_map(of).collect()
}

#[test]
fn examples_of_configs_in_the_documentation_are_taken() {
    let mut count = 0;
    let documents = files(&project("models"), ".md").into_iter().chain(files(&project("systemd"), ".md"));
    for path in documents.chain(["README.md", "SECURITY.md", "cross/README.md"].map(project)) {
        let document = read(&path);
        for block in document.split("\n```toml\n").skip(1) {
            let text = block.split("\n```").next().unwrap();
            let model = if text.contains("[model]") { "" } else { "[model]\npath = \"m\"\n" };
            let taken = parse(&format!("{model}{text}")).and_then(|config| config.check().map_err(|e| e.to_string()));
            assert!(taken.is_ok(), "{}: {taken:?}\n{text}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count} examples");
}

/// Each drop-in with the unit that it is for.
#[test]
fn systemd_knows_every_line_of_units_and_their_examples() {
    let test = "systemd_knows_every_line_of_units_and_their_examples";
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for end in [".service", ".socket", ".path"] {
        for unit in files(&project("systemd"), end) {
            let name = unit.file_name().unwrap().to_str().unwrap().replace("@.", "@door.");
            std::fs::copy(&unit, folder.path().join(&name)).unwrap();
            units.push(folder.path().join(&name));
        }
    }
    for example in files(&project("systemd"), ".conf.example") {
        let of = folder.path().join(example.parent().unwrap().file_name().unwrap());
        std::fs::create_dir_all(&of).unwrap();
        std::fs::copy(&example, of.join(example.file_stem().unwrap())).unwrap();
    }
    assert!(units.len() >= 8);
    let version = tool(test, "systemd-analyze", &["--version"]);
    let version = version.map(|output| String::from_utf8(output.stdout).unwrap());
    let Some(version) = version.and_then(|text| text.split(' ').nth(1)?.split('.').next()?.parse::<u32>().ok()) else {
        return;
    };
    let mut verify = Command::new("systemd-analyze");
    let verify = verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&units);
    let output = verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display())).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // Newer versions know these.
    let newer =
        |line: &&str| version < 254 && (line.contains("'RestartSteps'") || line.contains("'RestartMaxDelaySec'"));
    let of_lines = ["Unknown", "Invalid", "Failed to parse", "ignoring", "Missing '='"];
    let wrong: Vec<&str> = told
        .lines()
        .filter(|line| of_lines.iter().any(|word| line.contains(word)))
        .filter(|line| !newer(line))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
