//! What was measured, as a table, and its place in `sdk-docs/benchmarks.md`: one section for each measurement, between
//! two comments with its name, replaced whole; with the machine and the versions, because numbers alone say nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The rows of one measurement.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What was measured and how.
    pub(crate) text: String,
    /// Keys of the rows that the table shows, with their headings.
    pub(crate) columns: Vec<(&'static str, &'static str)>,
    /// What was found, an object each.
    pub(crate) rows: Vec<Value>,
    /// The rows of the table, where they are not those above.
    pub(crate) shown: Option<Vec<Value>>,
}

const BEGINNING: &str = "\
# Benchmarks

Measured with `cargo xtask bench NAME`, which writes its section anew. Absolute numbers belong to the machine they name.
";

impl Measured {
    /// A Markdown table.
    pub(crate) fn table(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let mut lines = vec![
            line(self.columns.iter().map(|(_, heading)| (*heading).to_owned()).collect()),
            line(self.columns.iter().map(|_| "--:".to_owned()).collect()),
        ];
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rows = self.shown.as_ref().unwrap_or(&self.rows);
        lines.extend(rows.iter().map(|row| line(self.columns.iter().map(|(key, _)| cell(&row[key])).collect())));
        lines.join("\n")
    }

    /// Writes the section into the page; the page's path.
    pub(crate) fn keep(&self) -> Result<PathBuf, String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../sdk-docs/benchmarks.md");
        let page = fs::read_to_string(&path).unwrap_or_else(|_| BEGINNING.to_owned());
        let (begin, end) = (format!("<!-- {} -->", self.name), format!("<!-- end of {} -->", self.name));
        let section =
            format!("{begin}\n## {}\n\n{}\n\n{}\n\n{}\n{end}\n", self.title, self.text, self.table(), machine());
        let page = match (page.find(&begin), page.find(&format!("{end}\n"))) {
            (Some(from), Some(to)) => format!("{}{section}{}", &page[..from], &page[to + end.len() + 1..]),
            _ => format!("{page}\n{section}"),
        };
        fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// Where and with what it was measured, in one line.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = said("rustc", &["--version"]).unwrap_or_default();
    let date = said("date", &["--utc", "+%Y-%m-%d"]).unwrap_or_default();
    let (model, kernel) = (model.unwrap_or("a processor without name"), kernel.trim());
    format!("{date}, {model}, {cores} cores, Linux {kernel}, {version}, camagent {}.", env!("CARGO_PKG_VERSION"))
}
