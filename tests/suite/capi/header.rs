//! The committed header against the functions.

use std::path::PathBuf;

use crate::capi::programs::manifest;

/// The files of the C ABI, in the order of the header.
const FILES: [&str; 13] = [
    "status",
    "error",
    "callbacks",
    "config",
    "site",
    "run",
    "report",
    "state",
    "record",
    "objects",
    "resolved",
    "catalog",
    "../capi",
];

fn folder() -> PathBuf {
    manifest().join("src/capi")
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(manifest().join("tests/suite/capi/cbindgen.toml")).unwrap();
    let builder = FILES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, file| {
        builder.with_src(folder().join(format!("{file}.rs")))
    });
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

/// The header is made from the functions. `BRIGADE_WRITE_HEADER=1` writes it.
#[test]
fn header_is_that_of_the_functions() {
    let (path, header) = (folder().join("bucket_brigade.h"), generate());
    if std::env::var_os("BRIGADE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &header).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == header,
        "make it again: BRIGADE_WRITE_HEADER=1 cargo test --all-features capi::header"
    );
}
