//! The documents' part of `cargo xtask check`: links resolve, every C function is described, nothing points outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::shell::{self, Outcome};

/// Texts that no file of the repository may contain. Each is put together here, so that this file does not contain it.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("../sha", "red"), "a stranger's checkout has no such folder"),
    (concat!("sha", "red/", "design"), "a stranger's checkout has no such folder"),
    (concat!("sha", "red/", "research"), "a stranger's checkout has no such folder"),
    (concat!("/work/", "sha", "red"), "a stranger's checkout has no such folder"),
    (concat!("/.lib", "rary"), "a stranger's checkout has no such folder"),
    (concat!(".lib", "rary/"), "a stranger's checkout has no such folder"),
    (concat!("crates", ".io"), "which registry is used is the builder's configuration"),
    (concat!("registry", ".npmjs.org"), "which registry is used is the builder's configuration"),
    (concat!("py", "pi.org"), "which registry is used is the builder's configuration"),
    (concat!("pythonhosted", ".org"), "which registry is used is the builder's configuration"),
    (concat!("proxy", ".golang.org"), "which registry is used is the builder's configuration"),
    (concat!("deb", ".debian.org"), "which registry is used is the builder's configuration"),
];

/// Relative links and their anchors, in every Markdown file.
pub(crate) fn links() -> Outcome {
    let mut pages = BTreeMap::new();
    let files = files()?;
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        pages.insert(file.clone(), shell::read(&shell::root().join(file))?);
    }
    let problems = broken_links(&pages, &|path| shell::root().join(path).exists());
    println!("  {} pages", pages.len());
    finish(problems, "documents have broken links")
}

/// No file names what only its authors have.
pub(crate) fn nothing_foreign() -> Outcome {
    let mut problems = Vec::new();
    for file in files()?.iter().filter(|file| *file != Path::new("Cargo.lock")) {
        let Ok(bytes) = std::fs::read(shell::root().join(file)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                problems.push(format!("{}:{}: `{word}`: {why}", file.display(), number + 1));
            }
        }
    }
    finish(problems, "files name what does not belong to the repository")
}

/// All files of the repository that git tracks or would track.
fn files() -> Result<Vec<PathBuf>, String> {
    let text = shell::output(
        shell::program("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]),
        "needs git and a checkout",
    )?;
    Ok(text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|path| shell::root().join(path).exists())
        .collect())
}

fn finish(problems: Vec<String>, summary: &str) -> Outcome {
    if problems.is_empty() { Ok(()) } else { Err(format!("{summary}\n  {}", problems.join("\n  "))) }
}

fn broken_links(pages: &BTreeMap<PathBuf, String>, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&PathBuf, BTreeSet<String>> =
        pages.iter().map(|(path, text)| (path, anchors(text))).collect();
    let mut problems = Vec::new();
    for (path, text) in pages {
        for (line, target) in link_targets(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) =
                target.split_once('#').map_or((target.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let place = format!("{}:{line}", path.display());
            let Some(goal) = (if file.is_empty() { Some(path.clone()) } else { resolve(path, file) }) else {
                problems.push(format!("{place}: ({target}) leads out of the repository"));
                continue;
            };
            if !exists(&goal) {
                problems.push(format!("{place}: ({target}) leads to nothing"));
            } else if let (Some(anchor), Some(known)) = (anchor, anchors.get(&goal))
                && !known.contains(anchor)
            {
                problems.push(format!("{place}: ({target}): {} has no heading for #{anchor}", goal.display()));
            }
        }
    }
    problems
}

fn resolve(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path =
        if target.starts_with('/') { PathBuf::new() } else { page.parent().map(PathBuf::from).unwrap_or_default() };
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

/// Inline links `](target)` outside of code, and reference definitions `[name]: target`.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            targets.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        if let Some((_, target)) =
            line.strip_prefix('[').filter(|line| !line.starts_with('^')).and_then(|line| line.split_once("]: "))
        {
            targets.push((number, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    targets
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (heading, _) in headings(text) {
        let slug = slug(&heading);
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    for part in text.split("<a id=\"").skip(1) {
        anchors.extend(part.split('"').next().map(str::to_owned));
    }
    anchors
}

/// As GitHub does: lower case, blanks become hyphens, other punctuation goes.
fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ if character.is_alphanumeric() => Some(character),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

fn headings(text: &str) -> Vec<(String, usize)> {
    prose(text)
        .filter_map(|(number, line)| {
            let level = line.bytes().take_while(|byte| *byte == b'#').count();
            let heading = line[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level))?;
            Some((link_texts(heading.trim().trim_end_matches('#').trim_end()), number))
        })
        .collect()
}

/// A link in a heading counts with its text only.
fn link_texts(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replacen('[', "", 1));
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text + rest
}

fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((number + 1, line))
    })
}

fn without_code(line: &str) -> String {
    line.split('`').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "" }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(pages: &[(&str, &str)]) -> Vec<String> {
        let pages: BTreeMap<PathBuf, String> =
            pages.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        broken_links(&pages, &|path| pages.contains_key(path) || path == Path::new("docs"))
    }

    #[test]
    fn links_and_anchors_resolve() {
        let good = "[b](docs/b.md#two-words--camagent_start) [c](#top) [x](https://example.com/no) [d](docs)\n# Top\n[r]: docs/b.md\n";
        assert_eq!(
            problems(&[("a.md", good), ("docs/b.md", "## Two words: `camagent_start`!\n[up](../a.md)")]).len(),
            1
        );
        let good = good.replace("words--", "words-");
        assert_eq!(
            problems(&[("a.md", &good), ("docs/b.md", "## Two words: `camagent_start`!\n[up](../a.md)")]),
            [""; 0]
        );
    }

    #[test]
    fn broken_links_are_named_with_their_line() {
        let found =
            problems(&[("a.md", "x\n[b](b.md) [c](#none) [o](../out.md)\n```\n[code](no.md)\n```\n`[code](no.md)`\n")]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|problem| problem.starts_with("a.md:2:")), "{found:?}");
    }

    #[test]
    fn equal_headings_are_numbered() {
        assert_eq!(anchors("# A\n## A\n").into_iter().collect::<Vec<_>>(), ["a", "a-1"]);
    }
}
