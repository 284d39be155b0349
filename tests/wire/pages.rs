//! The pages of `sdk-docs/protocol/`: tables behind a marker, and fenced examples.

use std::path::PathBuf;

/// The text of a page.
pub(crate) fn page(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk-docs/protocol").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table behind `<!-- MARKER -->`, without its head. Cells are plain text: no code marks, no links.
pub(crate) fn table(name: &str, marker: &str) -> Vec<Vec<String>> {
    let page = page(name);
    let (_, behind) =
        page.split_once(&format!("<!-- {marker} -->\n")).unwrap_or_else(|| panic!("{name} has no table {marker:?}"));
    let lines = behind.lines().take_while(|line| line.starts_with('|')).skip(2);
    let rows: Vec<Vec<String>> =
        lines.map(|line| line.trim_matches('|').split('|').map(|cell| plain(cell.trim())).collect()).collect();
    assert!(!rows.is_empty(), "{name}: the table {marker:?} is empty");
    rows
}

/// The fenced examples of a language, one text each.
pub(crate) fn fences(name: &str, language: &str) -> Vec<String> {
    let page = page(name);
    page.split(&format!("```{language}\n"))
        .skip(1)
        .map(|behind| behind.split_once("```").expect("a fence has an end").0.to_owned())
        .collect()
}

fn plain(cell: &str) -> String {
    let mut text = cell.replace('`', "");
    while let Some(open) = text.find('[')
        && let Some(middle) = text[open..].find("](").map(|at| open + at)
        && let Some(close) = text[middle..].find(')').map(|at| middle + at)
    {
        text = format!("{}{}{}", &text[..open], &text[open + 1..middle], &text[close + 1..]);
    }
    text
}
