//! Writes the seeds that come from real code: a publisher with its state in the bucket, and a store. The others were
//! written by hand.
//!
//! ```sh
//! BRIGADE_WRITE_SEEDS=1 cargo test --all-features --lib fuzz_targets::write_seeds
//! ```

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use super::{END_OF_PART, http, seeds};
use crate::inside::support::memory_store::MemoryStore;
use crate::inside::support::proxy::{Fault, Rule};
use crate::inside::support::server::S3Server;
use crate::inside::support::{BUCKET, PREFIX, World, s3_config_at};
use crate::state::records::encode;
use crate::state::remote::head::codec::Expected;
use crate::state::remote::head::{Head, Segment, Target};
use crate::state::remote::name::SegmentKind;
use crate::state::remote::segment::Bounds;
use crate::{Catalog, Engine, RemoteState, RescanConfig, RetryPolicy, S3Backend};

const CHECKSUM_BYTES: usize = 8;

#[test]
fn seeds_of_real_code_are_written() {
    if std::env::var_os("BRIGADE_WRITE_SEEDS").is_none() {
        return;
    }
    write_state();
    write_answers();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = seeds::folder().join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("real-{name}")), bytes).unwrap();
}

/// Publishes a tree, changes it, and fails in the middle.
fn write_state() {
    let world = World::new();
    for number in 0..12 {
        world.write(&format!("assets/app-{number:02}.js"), format!("content {number}"));
    }
    world.write("index.html", "<html>");
    world.write("ü/ 1+1 %?", "odd");
    world.let_files_settle();
    let config = || RescanConfig::new().state(RemoteState::new().publisher("a runner"));
    world.orchestrator_with(config()).rescan().unwrap();
    write_catalog("catalog", &world.cache_path());
    write_head("published", &world);
    world.write("index.html", "<html><body>");
    world.write("new", "new");
    world.remove("assets/app-00.js");
    let refused = Fault::Answer(500, Vec::new(), b"<Error><Code>InternalError</Code></Error>".to_vec());
    world.proxy.add(Rule::new(refused).method("PUT").path_contains("index.html"));
    world.orchestrator_with(config()).rescan().unwrap();
    write_catalog("catalog-pending", &world.cache_path());
    write_head("partial", &world);
    write_records(&world);
}

fn write_catalog(name: &str, cache: &Path) {
    let catalog = fs::read(Catalog::path_for(cache)).unwrap();
    write("catalog", name, &[&[1], catalog.as_slice()].concat());
    write("catalog", &format!("{name}-as-it-is"), &[&[0], catalog.as_slice()].concat());
}

/// Writes the head, its inline segments, and those that are objects.
fn write_head(name: &str, world: &World) {
    let objects = world.objects();
    let bytes = &objects[".brigade/head"];
    write("head", name, bytes);
    let target = Target { bucket: BUCKET.to_owned(), prefix: PREFIX.to_owned() };
    let head = Head::decode(bytes, &Expected { target: &target, tree: None, publishes: true }).unwrap();
    for (number, (kind, segment)) in head.segments().enumerate() {
        let bytes = match segment {
            Segment::Inline(inline) => inline.bytes.clone(),
            Segment::Stored(stored) => objects[&format!(".brigade/{}", stored.name)].clone(),
        };
        let kind = match kind {
            SegmentKind::Snapshot => 0,
            SegmentKind::Delta => 1,
            SegmentKind::Intent => 2,
        };
        let Bounds { rows, unpacked } = Bounds::from(segment);
        let (rows, unpacked) = (u16::try_from(rows).unwrap(), u16::try_from(unpacked).unwrap());
        let declared = [&[kind][..], &rows.to_le_bytes(), &unpacked.to_le_bytes()].concat();
        write("segment", &format!("{name}-{number}"), &[declared, bytes].concat());
    }
}

fn write_records(world: &World) {
    let cache = world.cache();
    for (number, row) in cache.rows().enumerate() {
        let row = row.unwrap();
        let write_record = |kind: u8, name: &str, mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() - CHECKSUM_BYTES);
            write("records", &format!("{name}-{number:02}"), &[&[kind], bytes.as_slice()].concat());
        };
        if let Some(published) = row.published.filter(|_| number % 6 == 0) {
            write_record(0, "published", encode(&row.key, &published).unwrap());
        }
        if let Some(pending) = row.pending {
            write_record(1, "pending", encode(&row.key, &pending).unwrap());
        }
    }
}

/// Records what a store answers to each operation.
fn write_answers() {
    let store = MemoryStore::with_bucket(BUCKET);
    let server = S3Server::start(store.service());
    let engine = Engine::new().unwrap();
    let relay = Relay::start(server.addr());
    let config = s3_config_at(&relay.endpoint()).retry(RetryPolicy::default().with_attempts(1));
    let s3 = S3Backend::new(&engine, config).unwrap();
    // Before there is an object, and afterwards.
    for round in ["empty", "filled"] {
        for operation in 0..32 {
            let _ = http::run(operation, &s3);
            let answers = relay.take();
            let answers = answers.join(&END_OF_PART);
            write(
                "http",
                &format!("{round}-{operation:02}"),
                &[&[operation, 0], answers.as_slice()].concat(),
            );
            let body =
                answers.windows(4).position(|window| window == b"\r\n\r\n").map(|at| &answers[at + 4..]);
            if let Some(body) = body.filter(|body| body.starts_with(b"<")) {
                write("xml", &format!("{round}-{operation:02}"), body);
            }
        }
    }
}

/// Passes bytes on, and keeps the answers.
struct Relay {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    answers: Vec<Vec<u8>>,
    /// Bytes of a request came last: the next answer is another one.
    is_asked: bool,
}

impl Relay {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, log) = (listener.local_addr().unwrap(), Arc::<Mutex<Log>>::default());
        let shared = log.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let (requests, answers) = (shared.clone(), shared.clone());
                let (from_client, to_client) = (client.try_clone().unwrap(), client);
                let (from_server, to_server) = (server.try_clone().unwrap(), server);
                thread::spawn(move || {
                    copy(from_client, to_server, |_| requests.lock().unwrap().is_asked = true);
                });
                thread::spawn(move || {
                    copy(from_server, to_client, |bytes| answers.lock().unwrap().add(bytes));
                });
            }
        });
        Self { address, log }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.log.lock().unwrap().answers)
    }
}

impl Log {
    fn add(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.is_asked) || self.answers.is_empty() {
            self.answers.push(Vec::new());
        }
        self.answers.last_mut().unwrap().extend_from_slice(bytes);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // Before it is passed on, so that whoever has it can ask for the record.
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
