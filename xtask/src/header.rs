//! `cargo xtask header`: the C header from the Rust sources, and the ledger that dates each of its symbols.
//!
//! The header itself is written by the root package's build.rs, so that it follows every build; this command forces that
//! and adds new symbols to the ledger. The ledger only grows: what a release had, a later one keeps.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask header

Regenerates include/camagent.h from camagent-ffi, adds new symbols, with the version of this workspace, to
include/symbols-in-versions.txt, and writes the pages of sdk-docs/reference/c-api/. Commit all together with the change in
camagent-ffi.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::nothing_left(arguments)?;
    generate()?;
    let header = shell::read(&header_path())?;
    let ledger = std::fs::read_to_string(ledger_path()).unwrap_or_default();
    let complete = with_new_symbols(&ledger, &header, env!("CARGO_PKG_VERSION"));
    if complete != ledger {
        std::fs::write(ledger_path(), &complete).map_err(|error| format!("{}: {error}", ledger_path().display()))?;
    }
    crate::c_reference::write()?;
    println!(
        "include/camagent.h and include/symbols-in-versions.txt are up to date ({} symbols)",
        symbols(&header).len()
    );
    compare_ledger(&complete, &header)
}

/// Builds the root package, whose build script writes the header when its text differs.
pub(crate) fn generate() -> Outcome {
    // The build script runs again only when a source is newer than its last run, so a header that somebody edited needs a push.
    let script = shell::root().join("build.rs");
    let file = std::fs::File::options().append(true).open(&script).map_err(|error| format!("build.rs: {error}"))?;
    file.set_modified(std::time::SystemTime::now()).map_err(|error| format!("build.rs: {error}"))?;
    shell::run(
        shell::cargo().args(["build", "--quiet", "-p", "camagent"]),
        "the header comes from the sources of camagent-ffi: mend what the compiler names above",
    )
}

/// Where the header lies.
pub(crate) fn header_path() -> PathBuf {
    shell::root().join("include/camagent.h")
}

/// Where the ledger lies.
pub(crate) fn ledger_path() -> PathBuf {
    shell::root().join("include/symbols-in-versions.txt")
}

/// All functions, types and macros of the header, its include guard aside.
pub(crate) fn symbols(header: &str) -> BTreeSet<String> {
    let text = without_comments(header);
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("camagent_") || word.starts_with("CAMAGENT_"))
        .filter(|word| *word != "CAMAGENT_H")
        .map(str::to_owned)
        .collect()
}

/// Whether ledger and header name the same symbols.
pub(crate) fn compare_ledger(ledger: &str, header: &str) -> Outcome {
    let mut problems = String::new();
    let in_header = symbols(header);
    let mut in_ledger = BTreeSet::new();
    for (number, line) in
        ledger.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, _born] => {
                if !in_ledger.insert((*name).to_owned()) {
                    let _ = writeln!(problems, "  line {}: {name} stands twice", number + 1);
                }
            }
            [name, _born, _retired] => {
                if in_header.contains(*name) {
                    let _ = writeln!(problems, "  line {}: {name} is retired, but the header still has it", number + 1);
                }
            }
            _ => {
                let _ = writeln!(problems, "  line {}: `{line}` is not NAME BORN [RETIRED]", number + 1);
            }
        }
    }
    for name in in_header
        .difference(&in_ledger)
        .filter(|name| !ledger.lines().any(|line| line.split_whitespace().next() == Some(name)))
    {
        let _ = writeln!(problems, "  {name} is in the header only: run `cargo xtask header` and commit");
    }
    for name in in_ledger.difference(&in_header) {
        let _ = writeln!(
            problems,
            "  {name} is in the ledger only: never released, delete its line; else the header must keep it, or a major version retires it"
        );
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("include/symbols-in-versions.txt and the header differ\n{}", problems.trim_end()))
    }
}

fn with_new_symbols(ledger: &str, header: &str, version: &str) -> String {
    let mut text = ledger.to_owned();
    if text.is_empty() {
        text.push_str("# Every function, type and macro of camagent.h: NAME, the version it came with, the version that retired it.\n");
    }
    let known: BTreeSet<&str> = ledger.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for name in symbols(header).iter().filter(|name| !known.contains(name.as_str())) {
        let _ = writeln!(text, "{name} {version}");
    }
    text
}

fn without_comments(header: &str) -> String {
    let mut text = String::with_capacity(header.len());
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        text.push_str(&rest[..start]);
        text.push(' ');
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#ifndef CAMAGENT_H\n#define CAMAGENT_H\n/* camagent_comment() is not a symbol */\n#define CAMAGENT_OK 0\n\
        #define CAMAGENT_API __attribute__((visibility(\"default\")))\n\
        typedef struct camagent_frame_t { int64_t pts_us; } camagent_frame_t;\n\
        CAMAGENT_API\ncamagent_result camagent_push_frame(camagent_t *agent, void (*release)(void *));\n\
        CAMAGENT_API const char *camagent_version(void);\n#endif\n";

    #[test]
    fn functions_types_and_macros_are_found_and_comments_are_not() {
        assert_eq!(
            symbols(HEADER).into_iter().collect::<Vec<_>>(),
            [
                "CAMAGENT_API",
                "CAMAGENT_OK",
                "camagent_frame_t",
                "camagent_push_frame",
                "camagent_result",
                "camagent_t",
                "camagent_version"
            ]
        );
    }

    #[test]
    fn a_new_symbol_is_added_and_a_lost_one_is_an_error() {
        let ledger = with_new_symbols("", HEADER, "0.1.0");
        assert_eq!(compare_ledger(&ledger, HEADER), Ok(()));
        assert_eq!(with_new_symbols(&ledger, HEADER, "0.2.0"), ledger);
        let problem = compare_ledger(&format!("{ledger}camagent_gone 0.1.0\n"), HEADER).unwrap_err();
        assert!(problem.contains("camagent_gone"), "{problem}");
        assert_eq!(compare_ledger(&format!("{ledger}camagent_gone 0.1.0 1.0.0\n"), HEADER), Ok(()));
        let problem = compare_ledger("CAMAGENT_OK 0.1.0\n", HEADER).unwrap_err();
        assert!(problem.contains("camagent_push_frame"), "{problem}");
    }
}
