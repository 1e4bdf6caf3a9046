//! Recognises files that are rarely meant to be public, by their names.

use std::ffi::OsStr;
use std::path::Path;

/// The names that OpenSSH gives to private keys.
const SSH_KEYS: [&str; 4] = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];
/// Suffixes of `.env.` files that are meant to be shared.
const EXAMPLES: [&str; 4] = ["example", "sample", "template", "dist"];

/// Returns the pattern that would exclude a file, if its name suggests that it is private: a repository's history, a
/// program's environment variables, a private key.
pub(crate) fn private_pattern(key: &str) -> Option<&str> {
    if key.split('/').any(|name| name == ".git") {
        return Some(".git");
    }
    // It names buckets, and where their keys are.
    if key == "brigade.toml" || key.ends_with("/brigade.toml") {
        return Some("brigade.toml");
    }
    // The last name in the path is the file's own.
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
    use crate::tree::private::private_pattern;

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
            ("a/brigade.toml", Some("brigade.toml")),
            (".github/workflows/ci.yml", None),
            ("git/env.html", None),
        ] {
            let pattern = private_pattern(key);
            assert_eq!(pattern, expected, "{key}");
            if let Some(pattern) = pattern {
                let filter = Filter::new(&[], &[pattern.to_owned()]).unwrap();
                assert!(!filter.admits(key), "{pattern} {key}");
            }
        }
    }
}
