//! Every corpus file runs through its target in each `cargo test`: what was found once stays found.

use std::collections::BTreeSet;
use std::path::PathBuf;

use camagent_fuzz::TARGETS;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders: BTreeSet<String> = std::fs::read_dir(corpus())
        .expect("tests/fuzz/corpus exists")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("names are ASCII"))
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, targets);
}

#[test]
fn every_corpus_file_passes_its_target() {
    for target in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus().join(target.name)).expect("the target has a corpus") {
            let path = entry.expect("it can be listed").path();
            let data = std::fs::read(&path).expect("it can be read");
            let body = target.body;
            assert!(std::panic::catch_unwind(|| body(&data)).is_ok(), "{} fails on {}", target.name, path.display());
            files += 1;
        }
        assert!(files > 0, "the corpus of {} is empty", target.name);
    }
}
