//! The rate of bodies, counted on a clock that jumps.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bucket_brigade::{
    Bandwidth, CancelToken, Engine, EngineConfig, ErrorKind, NetworkConfig, RescanConfig, RescanOutcome, Run,
    S3Backend, StopReason, StorageBackend, Verify,
};

use crate::support::World;
use crate::support::jumping_clock::JumpingClock;
use crate::support::oracle::check;

const MIB: usize = 1 << 20;

/// A world, and an engine on a clock that jumps.
struct Paced {
    world: World,
    clock: Arc<JumpingClock>,
    engine: Engine,
}

impl Paced {
    fn new() -> Self {
        let (world, clock) = (World::new(), Arc::new(JumpingClock::default()));
        let engine = EngineConfig::new().workers(10).clock(clock.clone()).build().unwrap();
        Self { world, clock, engine }
    }

    fn backend(&self, bandwidth: &Bandwidth) -> Arc<S3Backend> {
        let network = NetworkConfig::new().bandwidth(bandwidth.clone());
        Arc::new(S3Backend::new(&self.engine, self.world.s3_config().network(network)).unwrap())
    }

    /// Uploads as many bytes in ten streams at once, through these backends in turn.
    fn send(&self, backends: &[Arc<S3Backend>], bytes: usize) {
        thread::scope(|scope| {
            for stream in 0..10 {
                let key = format!("f{stream}");
                let size = bytes / 10 + usize::from(stream < bytes % 10);
                self.world.write_random(&key, size, stream as u64);
                let backend = &backends[stream % backends.len()];
                let path = self.world.path(&key);
                scope.spawn(move || backend.upload_file(&path, &key).unwrap());
            }
        });
        assert_eq!(self.world.objects().values().map(Vec::len).sum::<usize>(), bytes);
    }
}

#[test]
fn ten_streams_share_the_rate_to_the_byte() {
    let paced = Paced::new();
    let backend = paced.backend(&Bandwidth::per_second(MIB as u64));
    paced.send(&[backend], 4 * MIB);
    assert_eq!(paced.clock.elapsed(), Duration::from_secs(4));
}

#[test]
fn backends_that_share_a_handle_share_the_rate() {
    let paced = Paced::new();
    let bandwidth = Bandwidth::per_second(MIB as u64);
    let began = std::time::Instant::now();
    let backends = [paced.backend(&bandwidth), paced.backend(&bandwidth)];
    // The clock stood still meanwhile, but the bucket's time did not.
    let between = began.elapsed().as_secs_f64();
    paced.send(&backends, 2 * MIB);
    assert!((paced.clock.seconds() - 2.0).abs() <= between, "{}", paced.clock.seconds());
}

#[test]
fn change_through_the_handle_holds_for_streams_under_way() {
    let paced = Paced::new();
    let bandwidth = Bandwidth::per_second(MIB as u64);
    let backend = paced.backend(&bandwidth);
    paced.clock.at(Duration::from_secs(2), move || bandwidth.set(Some(2 * MIB as u64)));
    paced.send(&[backend], 4 * MIB);
    // Two seconds for the first half, one for the second; the change is seen up to 250 ms later.
    assert!((2.9..=3.3).contains(&paced.clock.seconds()), "{}", paced.clock.seconds());
}

#[test]
fn removed_limit_lets_everybody_go() {
    let paced = Paced::new();
    let bandwidth = Bandwidth::per_second(16 * 1024);
    let backend = paced.backend(&bandwidth);
    paced.clock.at(Duration::from_secs(5), move || bandwidth.set(None));
    paced.send(&[backend], 4 * MIB);
    assert!((5.0..7.0).contains(&paced.clock.seconds()), "{}", paced.clock.seconds());
}

#[test]
fn unlimited_handle_waits_for_nothing() {
    let paced = Paced::new();
    paced.send(&[paced.backend(&Bandwidth::unlimited())], 4 * MIB);
    assert_eq!(paced.clock.elapsed(), Duration::from_secs(0));
}

/// The time limit of a body of 15 MiB is 37 minutes. The slowest rate takes 16 for it alone, and four share it.
#[test]
fn waiting_for_the_rate_counts_for_no_time_limit() {
    let paced = Paced::new();
    let backend = paced.backend(&Bandwidth::per_second(16 * 1024));
    thread::scope(|scope| {
        for stream in 0..4 {
            let (key, backend) = (format!("f{stream}"), &backend);
            paced.world.write_random(&key, 15 * MIB, stream);
            let path = paced.world.path(&key);
            scope.spawn(move || backend.upload_file(&path, &key).unwrap());
        }
    });
    assert_eq!(paced.clock.elapsed(), Duration::from_secs(60 * 64));
}

/// Sent and received bytes are counted together: each file goes out, and comes back to be verified.
#[test]
fn run_keeps_to_the_rate_in_both_directions() {
    let paced = Paced::new();
    for n in 0..8 {
        paced.world.write_random(&format!("f{n}"), MIB / 4, n);
    }
    let (root, cache) = (paced.world.root(), paced.world.cache());
    let backend = paced.backend(&Bandwidth::per_second(MIB as u64));
    let site = bucket_brigade::RescanOrchestrator::with_config(
        &paced.engine,
        root,
        backend,
        cache,
        RescanConfig::new(),
    )
    .unwrap();
    let report = site.rescan().unwrap();
    check(&paced.world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::Published);
    let sent = paced.clock.seconds();
    assert!((1.9..2.5).contains(&sent), "{sent}");
    site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    let received = paced.clock.seconds() - sent;
    assert!((1.6..2.5).contains(&received), "{received}");
}

#[test]
fn cancel_and_deadline_end_a_wait() {
    let paced = Paced::new();
    for n in 0..4 {
        paced.world.write_random(&format!("f{n}"), MIB, n);
    }
    let backend = paced.backend(&Bandwidth::per_second(16 * 1024));
    let site = |cache: &str| {
        let cache =
            bucket_brigade::CacheManager::open(paced.world.cache_path().with_file_name(cache)).unwrap();
        let root = paced.world.root();
        bucket_brigade::RescanOrchestrator::new(&paced.engine, root, backend.clone(), cache).unwrap()
    };
    let cancel = CancelToken::new();
    let token = cancel.clone();
    paced.clock.at(Duration::from_secs(10), move || token.cancel());
    let report = site("one").rescan_with(&Run::new().cancel(cancel)).unwrap();
    assert_eq!(report.stop_reason, Some(StopReason::Cancelled), "{report:?}");
    assert!((10.0..11.0).contains(&paced.clock.seconds()), "{}", paced.clock.seconds());
    let report = site("two").rescan_with(&Run::new().deadline(Duration::from_secs(10))).unwrap();
    assert_eq!(report.stop_reason, Some(StopReason::Deadline), "{report:?}");
    assert!((20.0..22.0).contains(&paced.clock.seconds()), "{}", paced.clock.seconds());
    assert!(paced.world.keys().is_empty());
}

#[test]
fn too_slow_a_rate_is_refused_when_a_backend_is_made() {
    let world = World::new();
    let network = NetworkConfig::new().bandwidth(Bandwidth::per_second(16_383));
    let error = S3Backend::new(&world.engine, world.s3_config().network(network)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().starts_with("bandwidth: "), "{error}");
}
