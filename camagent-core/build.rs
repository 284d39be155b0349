//! Stamps the build's date into the library: no certificate is judged by a clock that stands before it.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = given.or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|now| now.as_secs()));
    println!("cargo::rustc-env=CAMAGENT_BUILD_EPOCH={}", seconds.unwrap_or(0));
}
