//! The archive and the shared object show `camagent_*` and nothing else, and the shared object has its SONAME: two libraries written in Rust
//! live in one program.

use std::{collections::BTreeSet, path::Path, process::Command};

use camagent_testkit::c_library::{Sdk, root, succeeded};

#[test]
fn archive_and_shared_object_export_exactly_what_the_header_declares() {
    let sdk = Sdk::find();
    let declared = declared();
    assert!(declared.len() > 10 && declared.contains("camagent_push_frame"), "{declared:?}");
    let archive = exported(&["-g", "--defined-only"], &sdk.archive());
    assert_eq!(archive, declared, "libcamagent.a");
    let shared = exported(&["-D", "--defined-only"], &sdk.shared_object());
    assert_eq!(shared, declared, "libcamagent.so");
    let dynamic = Command::new("readelf").arg("-d").arg(sdk.shared_object()).output().unwrap();
    let dynamic = succeeded("readelf", &dynamic);
    assert!(dynamic.contains("SONAME") && dynamic.contains("[libcamagent.so.0]"), "{dynamic}");
}

/// The functions of the header: what stands before a parenthesis on a line that begins with the export macro.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/camagent.h")).unwrap();
    let functions = header.split("\nCAMAGENT_API").skip(1).map(|rest| {
        let before = rest.split('(').next().unwrap_or_default();
        before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    });
    functions.filter(|name| name.starts_with("camagent_")).collect()
}

fn exported(flags: &[&str], file: &Path) -> BTreeSet<String> {
    let names = Command::new("nm").args(flags).arg(file).output().unwrap();
    let names = succeeded("nm", &names);
    let symbols = names.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().rev();
        let (name, kind) = (fields.next()?, fields.next()?);
        (kind.len() == 1).then(|| name.to_owned())
    });
    symbols.collect()
}
