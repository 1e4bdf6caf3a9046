//! Names of files that are rarely meant for everybody.

use std::ffi::OsStr;
use std::path::Path;

/// Private keys as OpenSSH names them.
const SSH_KEYS: [&str; 4] = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];
/// Kinds of `.env.` that are made to be shown.
const EXAMPLES: [&str; 4] = ["example", "sample", "template", "dist"];

/// The pattern that would exclude a file, if its name says that it is private: the history of a repository, the
/// variables of a program, a private key.
pub(crate) fn pattern_of(key: &str) -> Option<&str> {
    if key.split('/').any(|name| name == ".git") {
        return Some(".git");
    }
    let name = key.rsplit('/').next().unwrap_or(key);
    let is_env = name == ".env" || name.strip_prefix(".env.").is_some_and(|kind| !EXAMPLES.contains(&kind));
    if is_env || SSH_KEYS.contains(&name) {
        return Some(name);
    }
    let is_pem = Path::new(name).extension() == Some(OsStr::new("pem"));
    is_pem.then_some("*.pem")
}

#[cfg(test)]
mod tests {
    use crate::tree::filter::Filter;
    use crate::tree::private::pattern_of;

    #[test]
    fn private_files_are_known_by_their_names_and_the_pattern_excludes_them() {
        for (key, expected) in [
            (".git/config", Some(".git")),
            ("a/.git/HEAD", Some(".git")),
            ("a/.env", Some(".env")),
            (".env.production", Some(".env.production")),
            (".env.example", None),
            ("keys/id_rsa", Some("id_rsa")),
            ("id_ed25519", Some("id_ed25519")),
            ("id_rsa.pub", None),
            ("tls/server.pem", Some("*.pem")),
            (".pem", None),
            (".gitignore", None),
            (".github/workflows/ci.yml", None),
            ("git/env.html", None),
        ] {
            let pattern = pattern_of(key);
            assert_eq!(pattern, expected, "{key}");
            if let Some(pattern) = pattern {
                let filter = Filter::new(&[], &[pattern.to_owned()]).unwrap();
                assert!(!filter.admits(key), "{pattern} {key}");
            }
        }
    }
}
