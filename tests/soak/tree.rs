//! A tree that changes at random. Each content appears at once, by a rename. Some come back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::support::random_bytes;

/// Two parts.
const LARGE: usize = 8 * 1024 * 1024 + 1;

/// The digests of all contents that the files of a site ever had, by key. Machines that share a prefix share it.
pub type Versions = Arc<Mutex<BTreeMap<String, HashSet<[u8; 32]>>>>;

pub struct Tree {
    root: PathBuf,
    /// On the same file system, outside the tree.
    scratch: PathBuf,
    names: Vec<String>,
    /// The key of the file that is sent in parts.
    large: &'static str,
    present: BTreeSet<String>,
    versions: Versions,
    /// The content that a file had before, if it is small.
    before: HashMap<String, Vec<u8>>,
    random: fastrand::Rng,
    pub edits: u64,
}

impl Tree {
    /// A tree with most of the names, and the large file.
    pub fn new(
        folder: &Path,
        files: usize,
        large: &'static str,
        versions: &Versions,
        random: fastrand::Rng,
    ) -> Self {
        let (root, scratch) = (folder.join("tree"), folder.join("scratch"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&scratch).unwrap();
        let names = (0..files).map(|n| format!("d{}/file {n}.txt", n % 7)).collect();
        let mut tree = Self {
            root,
            scratch,
            names,
            large,
            present: BTreeSet::new(),
            versions: versions.clone(),
            before: HashMap::new(),
            random,
            edits: 0,
        };
        for name in tree.names.clone() {
            tree.write(&name, 64);
        }
        tree.write_large();
        tree
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its files, by key.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        crate::support::files_below(&self.root)
    }

    /// Changes something: a file is written, rolled back, removed, renamed, touched, or becomes a folder and back.
    pub fn edit(&mut self) {
        self.edits += 1;
        let name = self.random.choice(&self.names).unwrap().clone();
        match self.random.u8(0..100) {
            0..=4 => self.write_large(),
            5..=14 => self.roll_back(&name),
            15..=54 => {
                let size = 1 << self.random.u8(0..14);
                self.write(&name, size);
            }
            55..=74 => self.remove(&name),
            75..=84 => self.rename(&name),
            85..=92 => self.touch(&name),
            _ => self.turn(&name),
        }
    }

    /// A new content that was never there before.
    fn write(&mut self, key: &str, size: usize) {
        let bytes = random_bytes(size + 16, self.random.u64(..));
        self.put(key, &bytes);
    }

    fn write_large(&mut self) {
        let bytes = random_bytes(LARGE + self.random.usize(0..1000), self.random.u64(..));
        self.put(self.large, &bytes);
    }

    fn put(&mut self, key: &str, bytes: &[u8]) {
        let path = self.root.join(key);
        if path.is_dir() {
            self.clear_folder(key);
        } else if key != self.large
            && let Ok(before) = fs::read(&path)
        {
            self.before.insert(key.to_owned(), before);
        }
        self.note(key, Sha256::digest(bytes).into());
        let scratch = self.scratch.join("new");
        fs::write(&scratch, bytes).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::rename(scratch, path).unwrap();
        self.present.insert(key.to_owned());
    }

    fn roll_back(&mut self, key: &str) {
        if let Some(before) = self.before.remove(key) {
            self.put(key, &before);
        }
    }

    fn note(&self, key: &str, digest: [u8; 32]) {
        self.versions.lock().unwrap().entry(key.to_owned()).or_default().insert(digest);
    }

    /// At least half of the files stay, so that the rule about trees that shrink does not apply.
    fn remove(&mut self, key: &str) {
        if self.present.len() > self.names.len() * 2 / 3 && self.present.remove(key) {
            fs::remove_file(self.root.join(key)).unwrap();
        }
    }

    /// Gives a file the name of another one.
    fn rename(&mut self, key: &str) {
        let target = self.random.choice(&self.names).unwrap().clone();
        if target == key || !self.present.contains(key) || self.root.join(&target).is_dir() {
            return;
        }
        let digest = Sha256::digest(fs::read(self.root.join(key)).unwrap());
        self.note(&target, digest.into());
        fs::rename(self.root.join(key), self.root.join(&target)).unwrap();
        self.present.remove(key);
        self.present.insert(target);
    }

    fn touch(&self, key: &str) {
        if self.present.contains(key) {
            let file = fs::File::options().append(true).open(self.root.join(key)).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
        }
    }

    /// Makes a folder of a file, with a file in it.
    fn turn(&mut self, key: &str) {
        if self.root.join(key).is_dir() {
            self.clear_folder(key);
        } else if self.present.remove(key) {
            fs::remove_file(self.root.join(key)).unwrap();
            self.write(&format!("{key}/inside"), 10);
        }
    }

    fn clear_folder(&mut self, key: &str) {
        fs::remove_dir_all(self.root.join(key)).unwrap();
        self.present.remove(&format!("{key}/inside"));
    }
}
