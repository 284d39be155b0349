//! Where the repository is, and how another program is run: shown, timed, its failure told in words.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command's end. The text of an error says what failed and what to do about it.
pub(crate) type Outcome = Result<(), String>;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in a folder of the repository")
}

/// The build folder that cargo uses: `CARGO_TARGET_DIR`, else `target`.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo, as the one that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // `cargo run` tells its child about xtask's own package: build scripts of others must not take that for theirs.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == OsStr::new("CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Any other program, in the root of the repository.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Runs a command with its output on the terminal. `advice` says what to do when it fails.
pub(crate) fn run(command: &mut Command, advice: &str) -> Outcome {
    println!("  $ {}", show(command));
    run_silently(command, advice)
}

/// The same without showing the command: for what prints results that programs read.
pub(crate) fn run_silently(command: &mut Command, advice: &str) -> Outcome {
    let shown = show(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}\n  {advice}")),
        Err(error) => Err(format!("`{shown}` cannot be started: {error}\n  {advice}")),
    }
}

/// Runs a command and returns what it wrote on standard output; its errors stay on the terminal.
pub(crate) fn output(command: &mut Command, advice: &str) -> Result<String, String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("`{shown}` cannot be started: {error}\n  {advice}"))?;
    if !output.status.success() {
        return Err(format!("`{shown}` ended with {}\n  {advice}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{shown}` wrote something that is not UTF-8"))
}

/// Whether a program of this name is in PATH.
pub(crate) fn is_installed(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// Reads a text file, or says which one could not be read.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Outcome {
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The value after an option such as `--seconds`, and the arguments that are left.
pub(crate) fn take_value(arguments: &mut Vec<String>, option: &str) -> Result<Option<String>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == option) else { return Ok(None) };
    if at + 1 >= arguments.len() {
        return Err(format!("{option} needs a value"));
    }
    arguments.remove(at);
    Ok(Some(arguments.remove(at)))
}

/// The number after an option.
pub(crate) fn take_number(arguments: &mut Vec<String>, option: &str) -> Result<Option<u64>, String> {
    match take_value(arguments, option)? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| format!("{option} needs a number, not `{text}`")),
    }
}

/// Whether a switch such as `--check` was given; it is removed.
pub(crate) fn take_switch(arguments: &mut Vec<String>, switch: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != switch);
    arguments.len() != before
}

/// An error when arguments are left over.
pub(crate) fn nothing_left(arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(format!("does not know `{argument}` (--help lists the options)")),
    }
}

fn show(command: &Command) -> String {
    let mut text = Path::new(command.get_program())
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_taken_and_the_rest_is_refused() {
        let mut arguments = words("--seconds 5 --check surplus");
        assert_eq!(take_number(&mut arguments, "--seconds"), Ok(Some(5)));
        assert!(take_switch(&mut arguments, "--check"));
        assert!(!take_switch(&mut arguments, "--check"));
        assert!(nothing_left(&arguments).unwrap_err().contains("surplus"));
        assert!(take_number(&mut words("--seconds"), "--seconds").is_err());
        assert!(take_number(&mut words("--seconds x"), "--seconds").unwrap_err().contains('x'));
    }
}
