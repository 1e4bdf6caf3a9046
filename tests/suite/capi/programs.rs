//! C programs, compiled with this machine's compiler against the library that a C host links.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{SESSION_TOKEN, World};

/// What every C file must compile with.
pub(crate) const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What a program that links the static library needs besides it (`rustc --print native-static-libs`).
const SYSTEM: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

pub(crate) fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library as a C host gets it.
pub(crate) struct Library {
    pub(crate) archive: PathBuf,
    pub(crate) shared: PathBuf,
}

/// Builds both forms of the library, once. `BRIGADE_TEST_C_LIBRARY` names a folder that has them already, such as `target/release`.
pub(crate) fn library() -> &'static Library {
    static BUILT: OnceLock<Library> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(folder) = std::env::var_os("BRIGADE_TEST_C_LIBRARY") {
            let folder = std::fs::canonicalize(folder).expect("BRIGADE_TEST_C_LIBRARY exists");
            let file = |extension| folder.join("libbucket_brigade").with_extension(extension);
            return Library { archive: file("a"), shared: file(std::env::consts::DLL_EXTENSION) };
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(manifest()).args(["rustc", "--quiet", "--lib", "--features", "capi"]);
        cargo.args(["--crate-type", "staticlib,cdylib", "--message-format", "json-render-diagnostics"]);
        // What this test got from cargo about its own crate would have others built anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "NEXTEST_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                cargo.env_remove(name);
            }
        }
        let output = ended_well(&cargo.output().unwrap());
        let files: Vec<PathBuf> = output
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "bucket_brigade")
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|file| Some(file.as_str()?.into()))
            .collect();
        let find = |extension: &str| {
            files.iter().find(|file| file.extension().is_some_and(|end| end == extension)).unwrap().clone()
        };
        Library { archive: find("a"), shared: find(std::env::consts::DLL_EXTENSION) }
    })
}

/// How a program is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Language {
    C11,
    Cpp17,
}

/// How a program is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Archive,
    Shared,
}

impl Link {
    /// The end of the compiler's command line.
    pub(crate) fn arguments(self) -> Vec<OsString> {
        let library = library();
        let (file, more) = match self {
            Self::Archive => (&library.archive, None),
            Self::Shared => {
                let folder = library.shared.parent().unwrap().display();
                (&library.shared, Some(format!("-Wl,-rpath,{folder}").into()))
            }
        };
        [file.into()].into_iter().chain(more).chain(SYSTEM.map(OsString::from)).collect()
    }
}

/// Compiles a C file into a program.
pub(crate) fn compile(source: &Path, language: Language, link: Link, flags: &[&str], into: &Path) -> PathBuf {
    let name = source.file_stem().unwrap().to_str().unwrap();
    let program =
        into.join(format!("{name}-{language:?}-{link:?}{}", flags.concat().replace(['=', ','], "-")));
    let (compiler, standard) = match language {
        Language::C11 => ("cc", ["-std=c11", "-x", "c"]),
        Language::Cpp17 => ("c++", ["-std=c++17", "-x", "c++"]),
    };
    let mut command = Command::new(compiler);
    command.args(standard).args(WARNINGS).args(["-O1", "-g", "-I"]).arg(manifest().join("src/capi"));
    command.args(flags).arg(source).args(["-x", "none", "-o"]).arg(&program);
    command.args(link.arguments());
    ended_well(&command.output().unwrap());
    program
}

/// Returns what a command printed, if it ended well.
#[track_caller]
pub(crate) fn ended_well(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for secret in [SECRET_KEY, SESSION_TOKEN] {
        assert!(!out.contains(secret) && !err.contains(secret), "I7: {out}\n{err}");
    }
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A program of this folder.
pub(crate) fn source(name: &str) -> PathBuf {
    manifest().join("tests/suite/capi/programs").join(name)
}

/// What a program gets: a store, a tree of three files, and a configuration file that leads from one to the other.
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) folder: TempDir,
}

impl Host {
    pub(crate) fn new(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        world.write("index.html", "<a>");
        world.write("maps/a.pak", "aaaa");
        world.write("maps/b.pak", "bbbb");
        world.let_files_settle();
        std::fs::write(folder.path().join("extra.bin"), "extra").unwrap();
        let host = Self { world, folder };
        host.configure("");
        host
    }

    /// Writes the configuration file, with these lines in it.
    pub(crate) fn configure(&self, lines: &str) {
        let world = &self.world;
        let (root, cache) = (world.root(), world.cache_path());
        let (root, cache) = (root.display(), cache.display());
        std::fs::write(self.path("ca.pem"), world.ca_pem()).unwrap();
        let ca_file = if world.ca_pem().is_empty() { "" } else { "ca_file = \"ca.pem\"\n" };
        let file = format!(
            "[destination.live]\nroot = \"{root}\"\ncache = \"{cache}\"\nbucket = \"bucket\"\nlock_wait = \"0s\"\n{ca_file}prefix = \"site\"\n\
             endpoint_url = {:?}\naccess_key_id = {{ file = \"id\" }}\nsecret_access_key = {{ file = \"secret\" }}\n\
             session_token = {{ file = \"token\" }}\n{lines}\n",
            world.proxy.endpoint(),
        );
        std::fs::write(self.path("brigade.toml"), file).unwrap();
        for (name, secret) in [("id", ACCESS_KEY), ("secret", SECRET_KEY), ("token", SESSION_TOKEN)] {
            std::fs::write(self.path(name), secret).unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        bucket_brigade::Catalog::path_for(self.world.cache_path())
    }

    /// The command that runs a program with the configuration file, the catalog and a file to upload.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.wrapped(&[], program)
    }

    /// As [`command`](Self::command), run by another program.
    pub(crate) fn wrapped(&self, wrapper: &[&str], program: &Path) -> Command {
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg(self.path("brigade.toml")).arg(self.catalog()).arg(self.path("extra.bin"));
        command
    }
}
