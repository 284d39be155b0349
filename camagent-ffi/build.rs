//! Gives the shared library its SONAME: the number of the binary interface, which changes only when that breaks.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcamagent.so.0");
    }
}
