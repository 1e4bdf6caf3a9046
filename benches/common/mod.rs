//! Shared by the benchmarks. Server and client are separate processes, so that CPU time and peak memory are those of
//! the client alone.
#![allow(dead_code, reason = "each benchmark uses a part")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) const BUCKET: &str = "bench";

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A command that runs this benchmark as another process.
pub(crate) fn this_benchmark() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// A server process that ends when its handle is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
}

impl Server {
    /// Starts this benchmark with these arguments. The process prints its endpoint, and ends when its input ends.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut child =
            this_benchmark()?.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut endpoint)?;
        Ok(Self { child, endpoint: endpoint.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input ends the process.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Makes a tree of files with random bytes, the same in each run; returns its path.
pub(crate) fn make_tree(
    scratch: &Path,
    folders: usize,
    each: usize,
    sizes: RangeInclusive<usize>,
) -> Result<String> {
    let root = scratch.join("tree");
    let mut random = fastrand::Rng::with_seed(42);
    for folder in 0..folders {
        let path = root.join(format!("d{folder:03}"));
        fs::create_dir_all(&path)?;
        for file in 0..each {
            let mut bytes = vec![0; random.usize(sizes.clone())];
            random.fill(&mut bytes);
            fs::write(path.join(format!("f{file:03}.dat")), bytes)?;
        }
    }
    Ok(root.to_string_lossy().into_owned())
}

pub(crate) struct Measured {
    pub(crate) cpu: f64,
    pub(crate) peak_mib: f64,
    pub(crate) wall: f64,
    pub(crate) text: String,
}

/// Runs this benchmark with these arguments as a client, and reads the figures that it prints at its end with
/// [`print_figures`].
pub(crate) fn measure(arguments: &[&str]) -> Result<Measured> {
    let output = this_benchmark()?.args(arguments).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("the client failed: {text}").into());
    }
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().ok_or("no figure")?.map_err(Box::<dyn Error>::from);
    let (cpu, peak_mib, wall) = (next()?, next()?, next()?);
    Ok(Measured { cpu, peak_mib, wall, text: text.lines().skip(1).collect() })
}

pub(crate) fn show(title: &str, measured: &Measured) {
    let Measured { cpu, peak_mib, wall, text } = measured;
    println!("  {title:6} CPU {cpu:.3} s, peak {peak_mib:.1} MiB, wall {wall:.2} s; {text}");
}

/// Prints the client's figures: CPU seconds, peak memory, wall-clock seconds of its work, and a text.
pub(crate) fn print_figures(wall: f64, text: &str) {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!("{cpu} {} {wall}", peak_mib());
    println!("{text}");
}

/// The peak resident memory of this process in MiB, as Linux counts it; 0 elsewhere.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Waits until no stat is racy: a rescan hashes files younger than 2 s again the next time.
pub(crate) fn wait_out_racy_window() {
    std::thread::sleep(std::time::Duration::from_millis(2500));
}

/// A path as an argument of a command.
pub(crate) fn path_arg(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the path is not UTF-8".into())
}
