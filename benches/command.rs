//! Measures what the comparison of tools (`benches/peers/run.sh`) does not show of the command `brigade`: the size of
//! the binary, and the time from its start to its first request.
//!
//! ```text
//! cargo bench --features cli --bench command
//! ```

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

mod common;
#[path = "../tests/support/server.rs"]
mod server;
use common::{BUCKET, Result, path_arg, wait_out_racy_window};
use server::{ACCESS_KEY, S3Server, SECRET_KEY};

const BRIGADE: &str = env!("CARGO_BIN_EXE_brigade");
const RUNS: usize = 5;

fn main() -> Result<()> {
    println!("brigade: {:.2} MiB", fs::metadata(BRIGADE)?.len() as f64 / 1_048_576.0);
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    for n in 0..10_000_usize {
        let folder = tree.join(format!("d{:02}", n % 100));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("f{n:05}")), vec![b'x'; 1024 + n % 15_000])?;
    }
    let server = S3Server::start(server::fs(&scratch.path().join("objects"), BUCKET));
    let endpoint = server.endpoint();
    wait_out_racy_window();
    let cache = scratch.path().join("cache");
    if !sync(&tree, &cache, &endpoint)?.status()?.success() {
        return Err("the tree cannot be published".into());
    }
    // A bare listener takes the server's port: the first connection is all that is measured.
    let port = server.port();
    server.stop();
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("start to first request, 10,000 files, ms of {RUNS} runs:");
    println!(
        "  nothing published yet: {}",
        first_requests(&listener, |run| {
            sync(&tree, &scratch.path().join(format!("cache-{run}")), &endpoint)
        })?
    );
    fs::write(tree.join("d00/new"), "1")?;
    println!(
        "  one file of them is new: {}",
        first_requests(&listener, |run| {
            let copy = scratch.path().join(format!("copy-{run}"));
            fs::copy(&cache, &copy)?;
            sync(&tree, &copy, &endpoint)
        })?
    );
    Ok(())
}

fn sync(tree: &Path, cache: &Path, endpoint: &str) -> Result<Command> {
    let mut command = Command::new(BRIGADE);
    command
        .args(["sync", path_arg(tree)?, &format!("s3://{BUCKET}"), "--quiet", "--cache", path_arg(cache)?])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_ENDPOINT_URL", endpoint)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

/// Measures the milliseconds from the start of a process to the connection of its first request, sorted.
fn first_requests(listener: &TcpListener, command: impl Fn(usize) -> Result<Command>) -> Result<String> {
    let mut times = Vec::new();
    for run in 0..RUNS {
        let mut command = command(run)?;
        let began = Instant::now();
        let mut child = command.spawn()?;
        let (connection, _) = listener.accept()?;
        times.push(began.elapsed().as_millis());
        child.kill()?;
        child.wait()?;
        drop(connection);
    }
    times.sort_unstable();
    Ok(times.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}
