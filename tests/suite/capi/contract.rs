//! The rules of the header, kept: by programs that use everything, misuse everything, fork, and share between threads.

use std::path::Path;

use crate::capi::programs::{Host, Language, Link, compile, ended_well, manifest, source};
use crate::support::World;
use crate::support::oracle::check_idle;
use crate::support::proxy::{Fault, Rule};

const PROGRAMS: [(&str, &[&str]); 4] =
    [("everything.c", &[]), ("misuse.c", &["1", "3000"]), ("fork.c", &[]), ("threads.c", &[])];

/// Runs a program in another one, on a tree of three files, and looks at what it published.
fn run(name: &str, link: Link, flags: &[&str], wrapper: &[&str], arguments: &[&str]) {
    let host = Host::new(World::new());
    let program = compile(&source(name), Language::C11, link, flags, host.folder.path());
    ended_well(&host.wrapped(wrapper, &program).args(arguments).output().unwrap());
    assert_eq!(host.world.keys(), ["index.html", "maps/a.pak", "maps/b.pak"]);
    check_idle(&host.world, &host.world.orchestrator());
}

#[test]
fn everything_works_from_c_with_both_libraries() {
    run("everything.c", Link::Archive, &[], &[], &[]);
    run("everything.c", Link::Shared, &[], &[], &[]);
}

/// Every function with NULL for each pointer, closed handles, double close, any order of freeing, numbers that are none, and random
/// sequences of all that.
#[test]
fn misuse_is_an_error_and_nothing_else() {
    for seed in ["1", "2", "3"] {
        run("misuse.c", Link::Archive, &[], &[], &[seed, "3000"]);
    }
}

#[test]
fn a_forked_process_is_told_at_once_and_reads_the_catalog() {
    run("fork.c", Link::Shared, &[], &[], &[]);
}

/// A child waited for ever for a report's JSON that a thread of its parent had begun to make. Now neither waits for the other.
#[test]
fn a_process_that_is_forked_during_calls_waits_for_no_thread_of_its_parent() {
    let host = Host::new(World::new());
    for number in 0..2000 {
        host.world.write(&format!("many/{number}"), "1");
    }
    let program = compile(&source("fork_busy.c"), Language::C11, Link::Archive, &[], host.folder.path());
    ended_well(&host.command(&program).output().unwrap());
}

/// The check compared process IDs, which may be equal in two namespaces.
#[test]
fn a_forked_process_with_the_same_id_is_told_too() {
    let alone = std::process::Command::new("unshare").args(["-pf", "true"]).output();
    if !alone.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: unshare -pf does not work here");
        return;
    }
    let host = Host::new(World::new());
    let program = compile(&source("fork_busy.c"), Language::C11, Link::Archive, &[], host.folder.path());
    ended_well(&host.wrapped(&["unshare", "-pf"], &program).output().unwrap());
}

/// The host's environment is not used (a proxy from it would refuse every request), its signals come to its own threads, a site that
/// cannot be opened leaves no thread, and a progress callback cancels its own call only.
#[test]
fn a_guest_leaves_environment_signals_and_threads_alone() {
    run("guest.c", Link::Archive, &[], &[], &[]);
}

#[test]
fn many_threads_share_a_site_and_a_catalog() {
    run("threads.c", Link::Archive, &[], &[], &[]);
}

/// One publisher with its state in the bucket, and a machine without a tree.
#[test]
fn a_machine_without_a_tree_pulls_what_another_published() {
    let host = Host::new(World::new());
    let file = |name: &str| std::fs::read_to_string(host.path(name)).unwrap();
    let settings = file("brigade.toml");
    let (root, reader_cache) =
        (format!("root = \"{}\"\n", host.world.root().display()), host.path("reader.cache"));
    let own_cache = host.world.cache_path().display().to_string();
    let reads = settings.replace(&root, "").replace(&own_cache, &reader_cache.display().to_string());
    std::fs::write(host.path("reader.toml"), reads + "state = \"bucket\"\n").unwrap();
    host.configure("state = \"bucket\"\norder = 7\npublisher = \"the publisher\"");
    let program = compile(&source("pull.c"), Language::C11, Link::Archive, &[], host.folder.path());
    let mut command = std::process::Command::new(program);
    command.env_clear().arg(host.path("brigade.toml"));
    command.arg(bucket_brigade::Catalog::path_for(&reader_cache)).arg(host.path("reader.toml"));
    ended_well(&command.output().unwrap());
}

/// A host that leaves SIGPIPE as it is would be killed by a write to a connection that the store has closed, if it were a
/// plain `write`.
#[test]
fn a_store_that_closes_connections_kills_no_host() {
    for world in [World::new(), World::over_tls(10)] {
        let host = Host::new(world);
        host.world.write_random("large.bin", 3_000_000, 1);
        for cut in [Fault::ResetInBody(100_000), Fault::ResetInBody(1), Fault::ResetBefore, Fault::CloseIdle]
        {
            host.world.proxy.add(Rule::new(cut).method("PUT").times(2));
        }
        let program = compile(&source("sigpipe.c"), Language::C11, Link::Archive, &[], host.folder.path());
        let mut command = host.command(&program);
        ended_well(&command.output().unwrap());
    }
}

/// The C side under the compiler's own checks. The library itself is compiled without them.
#[test]
fn sanitizers_find_nothing_on_the_side_of_c() {
    for (name, arguments) in PROGRAMS {
        run(name, Link::Archive, &["-fsanitize=address,undefined"], &[], arguments);
    }
    // Of the library's own code it sees the calls of the C library only, and takes those for races.
    let options = ["env", "TSAN_OPTIONS=ignore_noninstrumented_modules=1 halt_on_error=1"];
    run("threads.c", Link::Shared, &["-fsanitize=thread"], &options, &[]);
}

/// No invalid access, no use of what was not written, no leak, in the C side and the library. Without valgrind it is skipped.
#[test]
fn valgrind_finds_nothing() {
    if !["/usr/bin/valgrind", "/usr/local/bin/valgrind"].iter().any(|path| Path::new(path).exists()) {
        eprintln!("skipped: there is no valgrind here");
        return;
    }
    let suppressions =
        format!("--suppressions={}", manifest().join("tests/suite/capi/valgrind.supp").display());
    let memcheck = [
        "valgrind",
        "--quiet",
        &suppressions,
        "--errors-for-leak-kinds=definite,indirect,possible",
        "--error-exitcode=99",
        "--fair-sched=yes",
    ];
    for (name, arguments) in PROGRAMS {
        let arguments = if name == "misuse.c" { &["1", "300"] } else { arguments };
        // A forked process leaves the memory of its parent's site as it is.
        let leaks = if name == "fork.c" { "--leak-check=no" } else { "--leak-check=full" };
        run(name, Link::Archive, &[], &[memcheck.as_slice(), &[leaks]].concat(), arguments);
    }
}
