//! The C library as a vendor has it, and C programs linked with it.
//!
//! What `cargo xtask lib` left in target/sdk is used; when nothing is there, it is made. `CAMAGENT_SDK` names another folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What the archive needs of the system.
const SYSTEM: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

/// The laid-out library.
#[derive(Clone, Debug)]
pub struct Sdk {
    folder: PathBuf,
}

impl Sdk {
    /// Finds the library, or makes it once.
    pub fn find() -> &'static Self {
        static SDK: OnceLock<Sdk> = OnceLock::new();
        SDK.get_or_init(|| {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
            let named = std::env::var_os("CAMAGENT_SDK").map(PathBuf::from);
            let sdk = Sdk { folder: named.unwrap_or_else(|| target.join("sdk")) };
            if !sdk.archive().is_file() {
                let made =
                    Command::new(env!("CARGO")).current_dir(root()).args(["xtask", "lib", "--profile", "dev"]).output();
                let made = made.expect("cargo runs");
                assert!(made.status.success(), "cargo xtask lib: {}", String::from_utf8_lossy(&made.stderr));
            }
            sdk
        })
    }

    /// Where `camagent.h` is.
    pub fn include(&self) -> PathBuf {
        self.folder.join("include")
    }

    /// `libcamagent.a`.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("lib/libcamagent.a")
    }

    /// `libcamagent.so.0`.
    pub fn shared_object(&self) -> PathBuf {
        self.folder.join("lib/libcamagent.so.0")
    }

    /// Compiles a program of one C file, warnings being errors, and links it with the archive.
    pub fn compile(&self, source: &Path, flags: &[&str], program: &Path) {
        let mut command = Command::new("cc");
        command.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1"]).args(flags);
        command.arg("-I").arg(self.include()).arg("-o").arg(program).arg(source).arg(self.archive()).args(SYSTEM);
        let done = command.output().expect("a C compiler is there");
        assert!(done.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&done.stderr));
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the kit lies two folders below the root")
}

/// What a program said, and that it ended well.
pub fn succeeded(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    format!("{out}{err}")
}
