//! `cargo xtask layers`: the drawing in ARCHITECTURE.md is the test.
//!
//! A fence ```` ```layers crates ```` names the crates in rows, a fence ```` ```layers NAME ```` the top-level modules of one
//! crate. A row uses rows below it only. In the first, `name*` may use everything and `name-` no crate of ours. A fence
//! ```` ```layers without NAME ```` names crates of others that must never be linked with that crate, whatever its features.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::outline;
use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask layers

Compares the fenced drawings of ARCHITECTURE.md with the dependencies of the crates (`cargo metadata`) and with the
paths from the crate's root (`crate::…`, `super::…` that reaches it) in their sources, tests included. When they
differ, either the code took a way that the architecture forbids, or the drawing must change in the same commit.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::nothing_left(arguments)?;
    let drawings = parse(&shell::read(&shell::root().join("ARCHITECTURE.md"))?)?;
    let packages = packages()?;
    let mut problems = compare(&drawings, &packages)?;
    for (name, banned) in &drawings.without {
        problems.extend(linked_against_the_rules(name, banned, &linked(name)?));
    }
    if problems.is_empty() {
        let modules: usize = drawings.crates.values().map(|drawing| drawing.rows.iter().flatten().count()).sum();
        println!("  {} crates and {modules} modules stand as they are drawn", packages.len());
        Ok(())
    } else {
        Err(format!("the code and the drawing in ARCHITECTURE.md differ\n  {}", problems.join("\n  ")))
    }
}

/// Rows of names, the highest first.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Drawing {
    rows: Vec<Vec<String>>,
}

impl Drawing {
    fn row(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.iter().any(|other| other.trim_end_matches(['*', '-']) == name))
    }

    fn mark(&self, name: &str) -> Option<char> {
        let entry = self.rows.iter().flatten().find(|other| other.trim_end_matches(['*', '-']) == name)?;
        entry.chars().last().filter(|last| matches!(last, '*' | '-'))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.rows.iter().flatten().map(|name| name.trim_end_matches(['*', '-'])).collect()
    }
}

/// The drawings of ARCHITECTURE.md.
#[derive(Debug, Default)]
pub(crate) struct Drawings {
    between: Drawing,
    crates: BTreeMap<String, Drawing>,
    /// What must not be linked with a crate.
    without: BTreeMap<String, BTreeSet<String>>,
}

/// A crate of ours as cargo sees it.
pub(crate) struct Package {
    name: String,
    root_name: String,
    uses: Vec<String>,
    sources: PathBuf,
}

/// Reads the fences of ARCHITECTURE.md.
pub(crate) fn parse(markdown: &str) -> Result<Drawings, String> {
    let mut drawings = Drawings::default();
    let mut open: Option<(String, Drawing)> = None;
    let mut other_fence = false;
    for line in markdown.lines() {
        if let Some((_, drawing)) = &mut open {
            if line.starts_with("```") {
                let (name, drawing) = open.take().expect("it was matched just above");
                if name == "crates" {
                    drawings.between = drawing;
                } else if let Some(name) = name.strip_prefix("without ") {
                    let banned = drawing.rows.into_iter().flatten();
                    drawings.without.entry(name.to_owned()).or_default().extend(banned);
                } else if drawings.crates.insert(name.clone(), drawing).is_some() {
                    return Err(format!("ARCHITECTURE.md draws {name} twice"));
                }
            } else if !line.trim().is_empty() {
                drawing.rows.push(line.split_whitespace().map(str::to_owned).collect());
            }
        } else if let Some(name) = line.strip_prefix("```layers ").filter(|_| !other_fence) {
            open = Some((name.trim().to_owned(), Drawing::default()));
        } else if line.starts_with("```") {
            other_fence = !other_fence;
        }
    }
    if open.is_some() {
        return Err("ARCHITECTURE.md has a layers fence without an end".to_owned());
    }
    if drawings.between.rows.is_empty() {
        return Err("ARCHITECTURE.md has no ```layers crates fence".to_owned());
    }
    Ok(drawings)
}

/// Compares drawings and code; one line for each difference.
pub(crate) fn compare(drawings: &Drawings, packages: &[Package]) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for name in drawings.between.names().difference(&ours) {
        problems.push(format!("{name} is drawn, but there is no such crate"));
    }
    for package in packages {
        let name = package.name.as_str();
        let Some(row) = drawings.between.row(name) else {
            problems.push(format!("crate {name} is not in the drawing of the crates"));
            continue;
        };
        for used in package.uses.iter().filter(|used| ours.contains(used.as_str())) {
            let allowed = match drawings.between.mark(name) {
                Some('*') => true,
                Some('-') => false,
                _ => drawings.between.row(used).is_some_and(|used| used > row),
            };
            if !allowed {
                problems.push(format!("{name} depends on {used}, which is not in a row below it"));
            }
        }
        if let Some(drawing) = drawings.crates.get(name) {
            compare_modules(package, drawing, &mut problems)?;
        }
    }
    for name in drawings.crates.keys().filter(|name| !ours.contains(name.as_str())) {
        problems.push(format!("the modules of {name} are drawn, but there is no such crate"));
    }
    Ok(problems)
}

/// The names that are banned and linked all the same; a crate that is linked with nothing was not looked at.
fn linked_against_the_rules(name: &str, banned: &BTreeSet<String>, linked: &BTreeSet<String>) -> Vec<String> {
    if linked.len() < 2 {
        return vec![format!("{name} is drawn without some crates, but there is no such crate")];
    }
    let found = banned.intersection(linked);
    found
        .map(|other| format!("{name} is linked with {other}: `cargo tree -p {name} --all-features -i {other}`"))
        .collect()
}

/// Every crate that is linked with this one, all its features on.
fn linked(name: &str) -> Result<BTreeSet<String>, String> {
    let tree = ["tree", "--package", name, "--all-features", "--edges", "normal", "--target", "all"];
    let text = shell::output(
        shell::cargo().args(tree).args(["--prefix", "none", "--format", "{p}"]),
        "cargo cannot read the manifests: see above",
    )?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn compare_modules(package: &Package, drawing: &Drawing, problems: &mut Vec<String>) -> Outcome {
    let name = &package.name;
    let root = outline::read(&shell::read(&package.sources.join("lib.rs"))?, 0, &[]);
    let mut modules: BTreeSet<String> = root
        .modules
        .iter()
        .filter(|(module, inline)| !(*inline && module == "tests"))
        .map(|(module, _)| module.clone())
        .collect();
    // A name that lib.rs hands on (`pub use codec::Codec`) belongs to its module, whichever way it is named.
    let mut handed_on: BTreeMap<String, String> = BTreeMap::new();
    for words in &root.uses {
        let words: Vec<&String> = words.iter().skip_while(|word| matches!(word.as_str(), "crate" | "self")).collect();
        if let (Some(first), Some(last)) = (words.first(), words.last())
            && words.len() > 1
            && modules.contains(*first)
        {
            handed_on.insert((*last).clone(), (*first).clone());
        }
    }
    let mut files: Vec<(String, usize, PathBuf)> = Vec::new();
    let main = package.sources.join("main.rs");
    if main.is_file() {
        modules.insert("main".to_owned());
        files.push(("main".to_owned(), 0, main));
    }
    for module in &modules {
        let file = package.sources.join(format!("{module}.rs"));
        if file.is_file() && module != "main" {
            files.push((module.clone(), 1, file));
        }
        list_sources(&package.sources.join(module), module, 1, &mut files)?;
    }
    for module in modules.iter().filter(|module| drawing.row(module).is_none()) {
        problems.push(format!("{name}: module {module} is not in the drawing"));
    }
    for module in drawing.names().into_iter().filter(|module| !modules.contains(*module)) {
        problems.push(format!("{name}: {module} is drawn, but there is no such module"));
    }
    for (module, depth, file) in files {
        let Some(row) = drawing.row(&module) else { continue };
        let found = outline::read(&shell::read(&file)?, depth, &[package.root_name.as_str()]);
        let mut told = BTreeSet::new();
        for (_, path) in found.paths {
            let Some(first) = path.words.first() else { continue };
            let used = if modules.contains(first) { first } else { handed_on.get(first).unwrap_or(first) };
            if *used == module || !modules.contains(used) {
                continue;
            }
            if drawing.row(used).is_some_and(|used| used <= row) && told.insert(used.clone()) {
                let file = file.strip_prefix(shell::root()).unwrap_or(&file);
                problems.push(format!(
                    "{}:{}: {module} uses {used}, which is not in a row below it",
                    file.display(),
                    path.line
                ));
            }
        }
    }
    Ok(())
}

fn list_sources(folder: &Path, module: &str, depth: usize, files: &mut Vec<(String, usize, PathBuf)>) -> Outcome {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list_sources(&path, module, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let own = path.file_name().is_some_and(|file| file == "mod.rs");
            files.push((module.to_owned(), if own { depth } else { depth + 1 }, path));
        }
    }
    Ok(())
}

fn packages() -> Result<Vec<Package>, String> {
    let text = shell::output(
        shell::cargo().args(["metadata", "--format-version", "1", "--no-deps"]),
        "cargo cannot read the manifests: see above",
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let list = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let mut packages = Vec::new();
    for package in list {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or_default());
        let uses = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect();
        let root_name = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib")))
            .and_then(|target| target["name"].as_str().map(str::to_owned))
            .unwrap_or_else(|| name.replace('-', "_"));
        packages.push(Package { name, root_name, uses, sources: manifest.with_file_name("src") });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Map\n```\nnot ```layers\n```\n```layers crates\ntools- kit*\ntop\nleft right\n```\n\n```layers left\nc\na b\n```\n";

    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-layers-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn crates(sources: PathBuf, extra: &[(&str, &str)]) -> Vec<Package> {
        ["tools", "kit", "top", "left", "right"]
            .iter()
            .map(|name| Package {
                name: (*name).to_owned(),
                root_name: (*name).to_owned(),
                uses: extra.iter().filter(|(from, _)| from == name).map(|(_, to)| (*to).to_owned()).collect(),
                sources: sources.clone(),
            })
            .collect()
    }

    fn problems(name: &str, files: &[(&str, &str)], uses: &[(&str, &str)]) -> Vec<String> {
        let folder = tree(name, files);
        let found = compare(&parse(PAGE).unwrap(), &crates(folder.clone(), uses)).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        found
    }

    const GOOD: &[(&str, &str)] = &[
        ("lib.rs", "mod a; mod b; mod c; pub use a::Apple;"),
        ("a.rs", "use bytes::Bytes;"),
        ("b/mod.rs", ""),
        ("c.rs", "use crate::{a, b::X};"),
    ];

    #[test]
    fn a_tree_as_drawn_passes() {
        assert_eq!(
            problems("good", GOOD, &[("kit", "top"), ("kit", "tools"), ("top", "left"), ("left", "serde")]),
            [""; 0]
        );
    }

    #[test]
    fn crates_go_down_only() {
        let found = problems("crates", GOOD, &[("left", "right"), ("left", "top"), ("tools", "left")]);
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn modules_go_down_only_in_whatever_way_they_are_named() {
        for (file, text) in [
            ("b/deep.rs", "fn f() { crate::a::g() }"),
            ("b/mod.rs", "mod tests { use super::super::a; }"),
            ("b/mod.rs", "use super::a::Apple;"),
            ("b/mod.rs", "use crate::Apple;"),
            ("b/mod.rs", "#[cfg(test)] mod tests { use crate::{c}; }"),
            ("main.rs", ""),
        ] {
            let mut files = GOOD.to_vec();
            files.push((file, text));
            let found = problems("down", &files, &[]);
            assert_eq!(found.len(), 1, "{file} {text}: {found:?}");
        }
    }

    #[test]
    fn drawing_and_modules_are_the_same_set() {
        let found =
            problems("set", &[("lib.rs", "mod a; mod c; mod d;"), ("a.rs", ""), ("c.rs", ""), ("d.rs", "")], &[]);
        assert_eq!(found, ["left: module d is not in the drawing", "left: b is drawn, but there is no such module"]);
    }

    #[test]
    fn what_must_not_be_linked_is_found() {
        let drawings = parse(&format!("{PAGE}\n```layers without left\nretina\nurl\n```\n")).unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let banned = &drawings.without["left"];
        assert_eq!(banned, &set(&["retina", "url"]));
        assert_eq!(linked_against_the_rules("left", banned, &set(&["left", "bytes"])), [""; 0]);
        assert_eq!(linked_against_the_rules("left", banned, &set(&["left", "url"])).len(), 1);
        assert_eq!(linked_against_the_rules("left", banned, &set(&[])).len(), 1, "it was not looked at");
    }

    #[test]
    fn the_library_of_firmware_is_linked_with_no_rtsp_client_and_the_daemon_is() {
        let drawings = parse(&shell::read(&shell::root().join("ARCHITECTURE.md")).unwrap()).unwrap();
        let banned = &drawings.without["camagent-ffi"];
        assert_eq!(linked_against_the_rules("camagent-ffi", banned, &linked("camagent-ffi").unwrap()), [""; 0]);
        let daemon = linked_against_the_rules("camagent", banned, &linked("camagent").unwrap());
        assert!(daemon.iter().any(|problem| problem.contains("linked with retina")), "{daemon:?}");
    }

    #[test]
    fn a_page_without_the_drawing_is_an_error() {
        assert!(parse("# Map\n").is_err());
        assert!(parse("```layers crates\na\n").is_err());
    }
}
