//! `camagent.h` alone, twice included, is C89, C11 and C++98, without a warning, for every compiler that a vendor may bring.

use std::{io::Write, path::Path, process::Command};

use camagent_testkit::{c_library::root, program::is_installed};

#[test]
fn the_header_alone_is_c89_c99_c11_c17_and_cxx98_to_20() {
    let folder = tempfile::tempdir().unwrap();
    let compilers: [(&str, &str, &[&str]); 4] = [
        ("gcc", "gcc", &["c89", "c90", "c99", "c11", "c17"]),
        ("clang", "clang", &["c89", "c99", "c11", "c2x"]),
        ("g++", "g++", &["c++98", "c++11", "c++20"]),
        ("clang++", "clang", &["c++98", "c++20"]),
    ];
    for (compiler, package, standards) in compilers {
        if !is_installed(compiler, package) {
            continue;
        }
        let suffix = if compiler.ends_with("++") { "cpp" } else { "c" };
        let source = folder.path().join(format!("alone.{suffix}"));
        let mut file = std::fs::File::create(&source).unwrap();
        file.write_all(b"#include <camagent.h>\n#include <camagent.h>\nint camagent_unused;\n").unwrap();
        for standard in standards {
            compile(compiler, standard, &source);
        }
    }
}

fn compile(compiler: &str, standard: &str, source: &Path) {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror", "-fsyntax-only"]);
    if source.extension().is_some_and(|suffix| suffix == "c") {
        command.arg("-Wstrict-prototypes");
    }
    let done =
        command.arg(format!("-std={standard}")).arg("-I").arg(root().join("include")).arg(source).output().unwrap();
    assert!(done.status.success(), "{compiler} -std={standard}: {}", String::from_utf8_lossy(&done.stderr));
}
