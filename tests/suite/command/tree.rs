//! A real tree, verified by a client that is not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{DEST, Shell, all_is_well, text};
use crate::support::World;
use crate::support::server::{ACCESS_KEY, SECRET_KEY};

/// Names a Python that has boto3; `.ci/run` sets it. Without it everything runs but that client.
const PYTHON: &str = "BRIGADE_TEST_BOTO3";
const FILES: usize = 3000;

/// The folders of crates' sources that this build was made of.
fn registries() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let src = home.unwrap().join("registry/src");
    fs::read_dir(src).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Copies regular files into the world's tree until it has enough.
fn copy_sources(world: &World, folder: &Path, top: &Path, count: &mut usize) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let kind = fs::symlink_metadata(&path).unwrap();
        if *count == FILES {
            return;
        } else if kind.is_dir() {
            copy_sources(world, &path, top, count);
        } else if kind.is_file() && kind.len() < 1 << 20 {
            world.write(path.strip_prefix(top).unwrap().to_str().unwrap(), fs::read(&path).unwrap());
            *count += 1;
        }
    }
}

/// Lists and reads the bucket with boto3, and compares it with the tree.
fn compare_with_boto3(world: &World, python: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/compare_tree.py");
    let output = Command::new(python)
        .args([script, &world.server.as_ref().unwrap().endpoint(), "bucket", "site/", &text(world.root())])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("equal"), "{out}{err}");
}

#[test]
fn real_tree_is_published_edited_and_verified_by_another_client() {
    let world = World::new();
    let mut count = 0;
    for top in registries() {
        copy_sources(&world, &top, &top, &mut count);
    }
    assert!(count >= 1000, "{count} files of sources");
    let shell = Shell::of(&world);
    shell.sync(&world, &[]).code(0).shows(" connections, 0 retries");
    let keys = world.keys();
    for key in keys.iter().step_by(50) {
        world.write(key, format!("edited {key}"));
    }
    for key in keys.iter().skip(1).step_by(70) {
        world.remove(key);
    }
    world.write("added/by hand.txt", "1");
    let plan = shell.plan(&world, &["--json"]).code(0).json();
    let edited = shell.sync(&world, &["--json"]).code(0).json();
    assert_eq!((&plan["uploaded"], &plan["deleted"]), (&edited["uploaded"], &edited["deleted"]));
    shell.ask(&world, "verify", &["--content"]).code(0);
    if let Ok(python) = std::env::var(PYTHON) {
        compare_with_boto3(&world, &python);
    }
    shell.run(&["status", DEST, "--cache", &text(world.cache_path())]).code(0);
    all_is_well(&world);
}
