//! A wrong call from C is an error code with words, whatever is wrong: no crash, no leak, nothing that a memory checker minds.

use std::process::Command;

use camagent_testkit::{
    c_library::{Sdk, root, succeeded},
    program::is_installed,
};

#[test]
fn every_wrong_call_is_an_error_code() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("misuse");
    Sdk::find().compile(&root().join("tests/c/misuse.c"), &[], &program);
    let said = succeeded("misuse", &Command::new(&program).output().unwrap());
    assert_eq!(said, "0 failures\n", "the library itself writes nothing");
    if is_installed("valgrind", "valgrind") {
        let checked = Command::new("valgrind")
            .args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=all"])
            .arg(&program)
            .arg("no-fork")
            .output();
        succeeded("misuse under valgrind", &checked.unwrap());
    }
}

#[test]
fn every_wrong_call_passes_the_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("misuse");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    Sdk::find().compile(&root().join("tests/c/misuse.c"), &flags, &program);
    succeeded("misuse with sanitizers", &Command::new(&program).output().unwrap());
}
