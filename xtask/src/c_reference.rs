//! The C API's reference pages, written from the header, so that they cannot say anything else.
//!
//! One page a function, one for the types, one for the constants, in sdk-docs/reference/c-api/. The page README.md there is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::header::{header_path, ledger_path};
use crate::shell::{self, Outcome};

const NOTICE: &str =
    "<!-- Written from include/camagent.h by `cargo xtask header`: change camagent-ffi, never this file. -->\n\n";

/// A documented thing of the header.
#[derive(Debug, PartialEq)]
struct Item {
    name: String,
    kind: Kind,
    documentation: Vec<String>,
    declaration: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Function,
    Type,
    Constant,
}

/// Writes the pages that differ.
pub(crate) fn write() -> Outcome {
    for (page, text) in pages()? {
        let file = folder().join(&page);
        if std::fs::read_to_string(&file).is_ok_and(|present| present == text) {
            continue;
        }
        std::fs::create_dir_all(folder()).map_err(|error| format!("{}: {error}", folder().display()))?;
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Whether the pages are what the header says.
pub(crate) fn compare() -> Outcome {
    let pages = pages()?;
    let mut problems = String::new();
    for (page, text) in &pages {
        if std::fs::read_to_string(folder().join(page)).is_ok_and(|present| present == *text) {
            continue;
        }
        let _ = writeln!(problems, "  sdk-docs/reference/c-api/{page} is not what the header says");
    }
    let present = std::fs::read_dir(folder()).map_err(|error| format!("{}: {error}", folder().display()))?;
    for entry in present.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "README.md" && !pages.contains_key(&name) {
            let _ = writeln!(problems, "  sdk-docs/reference/c-api/{name} describes nothing of the header: delete it");
        }
    }
    println!("  {} pages", pages.len());
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("run `cargo xtask header` and commit\n{}", problems.trim_end()))
    }
}

fn folder() -> PathBuf {
    shell::root().join("sdk-docs/reference/c-api")
}

fn pages() -> Result<BTreeMap<String, String>, String> {
    let items = items(&shell::read(&header_path())?);
    let ledger = shell::read(&ledger_path())?;
    let since = |name: &str| {
        let line = ledger.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("an unreleased version").to_owned()
    };
    let mut pages = BTreeMap::new();
    for (kind, page, title) in [(Kind::Type, "types.md", "Types"), (Kind::Constant, "constants.md", "Constants")] {
        let mut text = format!("{NOTICE}# {title}\n");
        for item in items.iter().filter(|item| item.kind == kind) {
            let _ = write!(text, "\n## {}\n\n{}", item.name, body(item, &since(&item.name)));
        }
        pages.insert(page.to_owned(), text);
    }
    for item in items.iter().filter(|item| item.kind == Kind::Function) {
        let text = format!("{NOTICE}# {}\n\n{}", item.name, body(item, &since(&item.name)));
        pages.insert(format!("{}.md", item.name), text);
    }
    Ok(pages)
}

/// Declaration, description, parameters, results, age.
fn body(item: &Item, since: &str) -> String {
    let mut text = format!("```c\n{}\n```\n\n", item.declaration);
    let mut in_list = false;
    for line in &item.documentation {
        if let Some(parameter) = line.strip_prefix("@param ") {
            let (name, meaning) = parameter.trim().split_once(' ').unwrap_or((parameter, ""));
            let _ = write!(text, "{}* `{name}`: {}", if in_list { "\n" } else { "" }, meaning.trim());
            in_list = true;
        } else if let Some(results) = line.strip_prefix("@return ") {
            let _ = write!(text, "{}**Returns** {}", if in_list { "\n\n" } else { "" }, results.trim());
            in_list = true;
        } else if in_list {
            let _ = write!(text, " {}", line.trim());
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    let end = if in_list { "\n\n" } else { "\n" };
    let _ = writeln!(text, "{end}Since {since}.");
    text
}

/// Every documented declaration, in the header's order.
fn items(header: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut lines = header.lines();
    while let Some(line) = lines.next() {
        let mut documentation = Vec::new();
        if let Some(single) = line.strip_prefix("/** ").and_then(|rest| rest.strip_suffix(" */")) {
            documentation.push(single.to_owned());
        } else if line == "/**" {
            for line in lines.by_ref().take_while(|line| line.trim() != "*/") {
                documentation
                    .push(line.trim_start().trim_start_matches('*').strip_prefix(' ').unwrap_or("").to_owned());
            }
        } else {
            continue;
        }
        let Some(first) = lines.next() else { break };
        let mut declaration = first.to_owned();
        let is_whole = |declaration: &str| match declaration.contains('{') {
            true => declaration.lines().last().is_some_and(|last| last.starts_with('}')),
            false => declaration.starts_with('#') || declaration.ends_with(';'),
        };
        while !is_whole(&declaration) {
            let Some(line) = lines.next() else { break };
            let _ = write!(declaration, "\n{line}");
        }
        if let Some((kind, name)) = kind_and_name(&declaration) {
            items.push(Item { name, kind, documentation, declaration });
        }
    }
    items
}

fn kind_and_name(declaration: &str) -> Option<(Kind, String)> {
    let word = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    if let Some(rest) = declaration.strip_prefix("#define ") {
        return Some((Kind::Constant, word(rest)));
    }
    if declaration.starts_with("CAMAGENT_API") {
        let before = declaration.split('(').next()?;
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
        return Some((Kind::Function, name.to_owned()));
    }
    let rest = declaration.strip_prefix("typedef ")?;
    let name = match rest.split_once("(*") {
        Some((_, function)) => word(function),
        None => rest.trim_end_matches(';').rsplit([' ', '*']).next()?.to_owned(),
    };
    Some((Kind::Type, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\
/** The version. */
#define CAMAGENT_VERSION_MAJOR 0
/**
 * Done.
 */
#define CAMAGENT_OK 0

/**
 * A thing.
 */
typedef struct camagent_thing_t {
    /**
     * Its size.
     */
    uint32_t struct_size;
} camagent_thing_t;

/**
 * Hears.
 */
typedef void (*camagent_hear_fn)(void *user);

/**
 * Does it.
 *
 * @param agent  the agent,
 *               running
 * @return CAMAGENT_OK
 */
CAMAGENT_API
camagent_result camagent_do(camagent_t *agent,
                            uint32_t times);
";

    #[test]
    fn every_kind_of_declaration_is_found() {
        let found: Vec<_> = items(HEADER).into_iter().map(|item| (item.kind, item.name)).collect();
        let wanted = [
            (Kind::Constant, "CAMAGENT_VERSION_MAJOR"),
            (Kind::Constant, "CAMAGENT_OK"),
            (Kind::Type, "camagent_thing_t"),
            (Kind::Type, "camagent_hear_fn"),
            (Kind::Function, "camagent_do"),
        ];
        assert_eq!(found, wanted.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[test]
    fn a_page_has_parameters_results_and_age() {
        let items = items(HEADER);
        let page = body(&items[4], "0.1.0");
        assert!(page.contains("* `agent`: the agent, running\n"), "{page}");
        assert!(page.contains("\n\n**Returns** CAMAGENT_OK\n\nSince 0.1.0.\n"), "{page}");
        assert!(page.starts_with("```c\nCAMAGENT_API\ncamagent_result camagent_do("), "{page}");
    }
}
