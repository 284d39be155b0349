//! Keeps include/camagent.h in step with camagent-ffi. It writes only when the text differs, and it never fails a build
//! because a source does not parse: the compiler says that better. `cargo xtask check` compares the result with git.

const CRATE: &str = "camagent-ffi";
const HEADER: &str = "include/camagent.h";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed={CRATE}/src");
    println!("cargo::rerun-if-changed={CRATE}/cbindgen.toml");

    let mut config = match cbindgen::Config::from_file(format!("{CRATE}/cbindgen.toml")) {
        Ok(config) => config,
        Err(problem) => return println!("cargo::error={CRATE}/cbindgen.toml: {problem}"),
    };
    config.header = Some(INTRODUCTION.to_owned());
    config.after_includes = Some(opening());
    config.trailer = Some(CLOSING.to_owned());
    // One source leads to the others by its `mod` lines; `with_crate` would ask cargo for metadata, which needs the whole lock.
    let builder = cbindgen::Builder::new().with_config(config).with_src(format!("{CRATE}/src/lib.rs"));
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(problem) => return println!("cargo::warning={HEADER} was left as it is: {problem}"),
    };
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = tidy(&String::from_utf8_lossy(&text));
    if std::fs::read_to_string(HEADER).is_ok_and(|present| present == text) {
        return;
    }
    if let Err(problem) = std::fs::write(HEADER, text) {
        // A packaged or read-only tree keeps the header that it came with.
        println!("cargo::warning={HEADER} was left as it is: {problem}");
    }
}

const INTRODUCTION: &str = "\
/*
 * camagent: a camera's frames, events and commands through one outgoing connection.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 * Generated from camagent-ffi by the build: change the Rust sources, never this file.
 */
#ifndef CAMAGENT_H
#define CAMAGENT_H";

const CLOSING: &str = "\
#ifdef __cplusplus
}
#endif

#endif /* CAMAGENT_H */";

fn opening() -> String {
    let number = |name: &str| -> u32 {
        // Cargo itself has checked that these are numbers.
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let (major, minor, patch) =
        (number("CARGO_PKG_VERSION_MAJOR"), number("CARGO_PKG_VERSION_MINOR"), number("CARGO_PKG_VERSION_PATCH"));
    format!(
        "
/** The version of this header; camagent_version() tells that of the library. */
#define CAMAGENT_VERSION_MAJOR {major}
#define CAMAGENT_VERSION_MINOR {minor}
#define CAMAGENT_VERSION_PATCH {patch}
#define CAMAGENT_VERSION_STRING \"{major}.{minor}.{patch}\"
/** One number to compare: 0xMMmmpp. */
#define CAMAGENT_VERSION_NUMBER 0x{major:02x}{minor:02x}{patch:02x}

/** What stands before each function; define it yourself before the include to change it. */
#ifndef CAMAGENT_API
#if defined(__GNUC__)
#define CAMAGENT_API __attribute__((visibility(\"default\")))
#else
#define CAMAGENT_API
#endif
#endif

#ifdef __cplusplus
extern \"C\" {{
#endif"
    )
}

/// What cbindgen has no setting for: negative numbers get parentheses, line ends no blanks, and the sections that Rust wants for `unsafe`
/// functions are left out: for C they say nothing that the parameters do not.
fn tidy(header: &str) -> String {
    let mut text = String::with_capacity(header.len());
    let mut is_safety = false;
    for line in header.lines() {
        let line = line.trim_end();
        match line.trim_start() {
            "* # Safety" => is_safety = true,
            "*/" if is_safety => {
                is_safety = false;
                // The blank comment line before the section.
                let end = text.strip_suffix(" *\n").map_or(text.len(), str::len);
                text.truncate(end);
            }
            _ => {}
        }
        if is_safety {
            continue;
        }
        match line.strip_prefix("#define ").and_then(|rest| rest.split_once(' ')) {
            Some((name, value)) if value.starts_with('-') => text.push_str(&format!("#define {name} ({value})")),
            // A link of rustdoc is a plain name in C.
            _ if line.trim_start().starts_with('*') => text.push_str(&line.replace("[`", "`").replace("`]", "`")),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
