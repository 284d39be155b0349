//! `cargo xtask lib`: the C library as a vendor links it.
//!
//! A Rust static archive carries the whole standard library with global names, so that two of them do not link into one
//! program. The post-link step here makes one relocated object of it, drops what nothing reaches and leaves only
//! `camagent_*` global. `--force-group-allocation` dissolves the COMDAT groups: otherwise the linker would throw away one
//! archive's `DW.ref.rust_eh_personality` in favour of another's that it can no longer see.

use std::path::{Path, PathBuf};

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask lib [--profile firmware|dev]

Builds camagent-ffi and lays out, in target/sdk:
  include/camagent.h                 the header
  lib/libcamagent.a                  one object, only camagent_* global, so that it links beside other Rust archives
  lib/libcamagent.so.0, .so          the shared object, SONAME libcamagent.so.0
  lib/pkgconfig/camagent.pc          flags for pkg-config; --static adds the system libraries of the archive
Profile firmware (the default) is what to ship: small, one unit, panics still caught. Needs ar, ld, nm and objcopy, which
come with every C compiler (Debian: binutils); AR, LD, NM and OBJCOPY name others.
";

/// How the library is built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Profile {
    Firmware,
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Firmware => "firmware",
            Profile::Dev => "dev",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Profile::Firmware => "firmware",
            Profile::Dev => "debug",
        }
    }
}

/// What a C compiler needs to link the library.
pub(crate) struct Sdk {
    pub(crate) include: PathBuf,
    pub(crate) archive: PathBuf,
    /// `-lgcc_s -lpthread …`
    pub(crate) system_libraries: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let profile = match shell::take_value(&mut arguments, "--profile")?.as_deref() {
        None | Some("firmware") => Profile::Firmware,
        Some("dev") => Profile::Dev,
        Some(other) => return Err(format!("there is no profile `{other}`: firmware or dev")),
    };
    shell::nothing_left(&arguments)?;
    build(profile, &shell::target().join("sdk")).map(|_| ())
}

/// Builds the library and lays it out in `sdk`.
pub(crate) fn build(profile: Profile, sdk: &Path) -> Result<Sdk, String> {
    let system_libraries = compile(profile)?;
    let built = shell::target().join(profile.folder());
    let library = sdk.join("lib");
    let include = sdk.join("include");
    shell::make_folder(&library.join("pkgconfig"))?;
    shell::make_folder(&include)?;
    copy(&shell::root().join("include/camagent.h"), &include.join("camagent.h"))?;

    let raw = built.join("libcamagent.a");
    if profile == Profile::Firmware {
        was_optimized_as_one(&raw)?;
    }
    let archive = library.join("libcamagent.a");
    relocate(&raw, &archive)?;
    only_ours_is_global(&archive, &["-g", "--defined-only"])?;

    let shared = library.join("libcamagent.so.0");
    copy(&built.join("libcamagent.so"), &shared)?;
    only_ours_is_global(&shared, &["-D", "--defined-only"])?;
    let link = library.join("libcamagent.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("libcamagent.so.0", &link).map_err(|error| format!("{}: {error}", link.display()))?;

    let pc = library.join("pkgconfig/camagent.pc");
    std::fs::write(&pc, pkg_config(&system_libraries)).map_err(|error| format!("{}: {error}", pc.display()))?;

    println!("  {} ({} KiB), {} ({} KiB)", archive.display(), kib(&archive), shared.display(), kib(&shared));
    println!("  link with: -I{} {} {}", include.display(), archive.display(), system_libraries.join(" "));
    Ok(Sdk { include, archive, system_libraries })
}

/// Compiles both kinds of library and returns the system libraries that the archive needs.
fn compile(profile: Profile) -> Result<Vec<String>, String> {
    let mut cargo = shell::cargo();
    cargo.args(["rustc", "-p", "camagent-ffi", "--profile", profile.name(), "--quiet"]);
    cargo.args(["--", "--print", "native-static-libs"]);
    println!("  $ cargo rustc -p camagent-ffi --profile {} -- --print native-static-libs", profile.name());
    // The libraries come as a note of the compiler, which cargo repeats even when nothing is built anew.
    let output = cargo.output().map_err(|error| format!("cargo cannot be started: {error}"))?;
    let notes = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("camagent-ffi does not build\n{}", notes.trim_end()));
    }
    const NOTE: &str = "native-static-libs: ";
    let line = notes.lines().find_map(|line| line.find(NOTE).map(|at| &line[at + NOTE.len()..]));
    let line = line.ok_or("rustc did not name the system libraries of the archive (--print native-static-libs)")?;
    let mut libraries: Vec<String> = Vec::new();
    for library in line.split_whitespace() {
        if !libraries.iter().any(|known| known == library) {
            libraries.push(library.to_owned());
        }
    }
    Ok(libraries)
}

/// One relocated object out of a Rust archive, in an archive of its own.
fn relocate(raw: &Path, archive: &Path) -> Outcome {
    let advice = "the post-link step needs GNU binutils (Debian: binutils) that know the target; LD, OBJCOPY, AR and NM name others";
    let roots = exported(raw, &["-g", "--defined-only"])?.into_iter().filter(|name| name.starts_with("camagent_"));
    let roots: Vec<String> = roots.collect();
    if roots.is_empty() {
        return Err(format!("{} exports no camagent_* function", raw.display()));
    }
    let object = archive.with_extension("o");
    let mut link = shell::program(tool("LD", "ld"));
    link.args(["-r", "--gc-sections", "--force-group-allocation"]);
    for root in &roots {
        link.args(["-u", root]);
    }
    shell::output(link.arg("-o").arg(&object).arg(raw), advice)?;
    let mut hide = shell::program(tool("OBJCOPY", "objcopy"));
    hide.args(["--strip-debug", "--wildcard", "--keep-global-symbol=camagent_*"]);
    // std's objects carry LLVM bitcode; joined by `ld` it is no bitcode any more, and tools with an LLVM plugin choke on it.
    hide.args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    shell::output(hide.arg(&object), advice)?;
    let _ = std::fs::remove_file(archive);
    shell::output(shell::program(tool("AR", "ar")).arg("rcsD").arg(archive).arg(&object), advice)?;
    std::fs::remove_file(&object).map_err(|error| format!("{}: {error}", object.display()))
}

/// With link-time optimization on, our crates and the standard library are one unit; without, there are dozens. Cargo
/// switches it off without a word when the crate gets another type beside staticlib and cdylib.
fn was_optimized_as_one(raw: &Path) -> Outcome {
    let members = shell::output(shell::program(tool("AR", "ar")).arg("t").arg(raw), "needs ar (Debian: binutils)")?;
    let units: Vec<&str> =
        members.lines().filter(|member| member.ends_with(".rcgu.o")).filter(|member| !is_runtime(member)).collect();
    if units.len() == 1 {
        return Ok(());
    }
    Err(format!(
        "{} holds {} code units instead of 1, so link-time optimization was off: camagent-ffi must stay \
         crate-type = [\"staticlib\", \"cdylib\"], and the profile firmware lto = \"fat\" with codegen-units = 1",
        raw.display(),
        units.len()
    ))
}

/// compiler_builtins is never part of link-time optimization, and std's units lie beside ours until `ld` drops them.
fn is_runtime(member: &str) -> bool {
    !member.starts_with("camagent")
        && ["compiler_builtins", "std", "core", "alloc"]
            .iter()
            .any(|crate_name| member.strip_prefix(crate_name).is_some_and(|rest| rest.starts_with(['-', '.'])))
}

fn only_ours_is_global(file: &Path, options: &[&str]) -> Outcome {
    let foreign: Vec<String> =
        exported(file, options)?.into_iter().filter(|name| !name.starts_with("camagent_")).take(5).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(format!("{} exports more than camagent_*: {} …", file.display(), foreign.join(", ")))
}

/// The names that `nm` prints.
fn exported(file: &Path, options: &[&str]) -> Result<Vec<String>, String> {
    let text = shell::output(
        shell::program(tool("NM", "nm")).args(options).args(["--format=posix", "--quiet"]).arg(file),
        "needs nm (Debian: binutils)",
    )?;
    // NAME LETTER [VALUE [SIZE]]; other lines name the member of the archive.
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        words.next().filter(|letter| letter.len() == 1)?;
        Some(name.to_owned())
    };
    Ok(text.lines().filter_map(symbol).collect())
}

fn pkg_config(system_libraries: &[String]) -> String {
    format!(
        "prefix=${{pcfiledir}}/../..\nincludedir=${{prefix}}/include\nlibdir=${{prefix}}/lib\n\n\
         Name: camagent\nDescription: A camera's frames, events and commands through one outgoing connection\nVersion: {}\n\
         Cflags: -I${{includedir}}\nLibs: -L${{libdir}} -lcamagent\nLibs.private: {}\n",
        env!("CARGO_PKG_VERSION"),
        system_libraries.join(" ")
    )
}

fn tool(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(|_| ()).map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

fn kib(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |data| data.len() / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_description_moves_with_its_folder_and_names_the_private_libraries() {
        let text = pkg_config(&["-lpthread".to_owned(), "-lm".to_owned()]);
        assert!(text.contains("prefix=${pcfiledir}/../..\n"), "{text}");
        assert!(text.contains("Libs.private: -lpthread -lm\n"), "{text}");
    }

    #[test]
    fn only_the_runtimes_own_units_are_excused() {
        assert!(is_runtime("compiler_builtins-08db.compiler_builtins.123-cgu.0.rcgu.o"));
        assert!(is_runtime("std-7f3a.std.9a-cgu.0.rcgu.o"));
        assert!(!is_runtime("camagent.camagent.6da8-cgu.0.rcgu.o"));
        assert!(!is_runtime("tokio-12.tokio.88-cgu.3.rcgu.o"));
    }
}
