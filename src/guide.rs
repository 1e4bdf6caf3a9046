//! The manual.
//!
//! | Chapter | |
//! |---|---|
//! | [`command`] | the subcommands of `brigade`, exit codes, JSON, events |
//! | [`settings`] | every setting, for files, flags and programs |
//! | [`operations`] | cron, systemd, CI, permissions, lifecycle rule, stores |
//! | [`embedding`] | the library in a program: settings, results, threads, fork, catalog, servers |
//! | [`reliability`] | the promises, what happens when something goes wrong, the proofs, the limits |
//! | [`security`] | what is trusted, how secrets are held, what attackers can and cannot do, with the tests |
//! | [`benchmarks`] | figures, comparisons, how to repeat them |
//! | [`architecture`] | the rooms, the life of a file, where to add what |
//! | [`contributing`] | one test, one benchmark, a failing sweep, lints, CI |
//! | [`changelog`] | what changed |
//!
//! The same chapters can be read as files in `src/guide/`.

#![allow(clippy::doc_markdown, reason = "the chapters are prose that is read as files, too")]

/// Includes chapters. The links before each text lead to modules here; those at the end of a file lead to files.
macro_rules! chapters {
    ($($name:ident),*) => {$(
        #[doc = "[architecture]: crate::guide::architecture"]
        #[doc = "[benchmarks]: crate::guide::benchmarks"]
        #[doc = "[command]: crate::guide::command"]
        #[doc = "[contributing]: crate::guide::contributing"]
        #[doc = "[embedding]: crate::guide::embedding"]
        #[doc = "[operations]: crate::guide::operations"]
        #[doc = "[reliability]: crate::guide::reliability"]
        #[doc = "[security]: crate::guide::security"]
        #[doc = "[settings]: crate::guide::settings"]
        #[doc = ""]
        #[doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
        pub mod $name {}
    )*};
}

chapters!(
    command,
    settings,
    operations,
    embedding,
    reliability,
    security,
    benchmarks,
    architecture,
    contributing,
    changelog
);

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
