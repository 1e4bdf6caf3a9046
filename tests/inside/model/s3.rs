//! The real S3 backend, a proxy that injects the faults, and the store in memory behind both.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::steps::{KEYS, Key, Mode, Op, Run};
use crate::inside::support::memory_store::MemoryStore;
use crate::inside::support::proxy::{Fault, FaultProxy, Rule};
use crate::inside::support::server::S3Server;
use crate::inside::support::{BUCKET, HEAD, PREFIX, s3_config_at};
use crate::{Engine, S3Backend};

#[derive(Clone)]
pub(super) struct Behind(Arc<Parts>);

struct Parts {
    store: MemoryStore,
    _server: S3Server,
    proxy: FaultProxy,
}

impl Behind {
    pub(super) fn new() -> Self {
        let store = MemoryStore::with_bucket(BUCKET);
        let server = S3Server::start(store.service());
        let proxy = FaultProxy::start(server.addr());
        Self(Arc::new(Parts { store, _server: server, proxy }))
    }

    pub(super) fn backend(&self, engine: &Engine) -> S3Backend {
        S3Backend::new(engine, s3_config_at(&self.0.proxy.endpoint())).unwrap()
    }

    pub(super) fn put_raw(&self, key: Key, bytes: Vec<u8>) {
        self.0.store.put_raw(&format!("{PREFIX}{key}"), bytes);
    }

    /// The bytes of each object, and whether it has a proof of origin.
    pub(super) fn objects(&self) -> BTreeMap<String, (Vec<u8>, bool)> {
        let store = &self.0.store;
        let shown = |(key, bytes): (String, Vec<u8>)| {
            let ours = store.has_metadata(&key, "brigade");
            (key[PREFIX.len()..].to_owned(), (bytes, ours))
        };
        store.objects().into_iter().map(shown).collect()
    }

    /// Makes all requests fail from now on.
    pub(super) fn switch(&self) -> impl Fn(Mode) + Send + Sync + use<> {
        let parts = self.0.clone();
        move |mode| {
            parts.proxy.clear_rules();
            parts.proxy.add(Rule::new(fault_of(mode)));
        }
    }

    pub(super) fn begin_run(&self, run: &Run) {
        for fault in run.faults.iter().flatten() {
            for rule in rules_of(fault.op, fault.key, fault.mode) {
                self.0.proxy.add(if fault.once { rule.times(1) } else { rule });
            }
        }
    }

    pub(super) fn end_run(&self) {
        self.0.proxy.clear_rules();
    }
}

/// Returns true if a fault of this operation and key meets no other request of S3.
pub(super) fn can_fail(op: Op, key: Key) -> bool {
    let is_alone = KEYS.iter().all(|other| *other == key || !other.starts_with(key));
    match op {
        Op::First | Op::List | Op::Delete => true,
        Op::Put | Op::Head => is_alone,
        // Files are too small for multipart uploads.
        Op::Begin | Op::Part | Op::Finish | Op::Reconcile | Op::Abort => false,
    }
}

fn rules_of(op: Op, key: Key, mode: Mode) -> Vec<Rule> {
    let rule = || Rule::new(fault_of(mode));
    let path = format!("/{PREFIX}{key}");
    match op {
        Op::First => vec![rule().path_contains(HEAD)],
        Op::List => vec![rule().path_contains("list-type")],
        Op::Head => vec![rule().method("HEAD").path_contains(&path)],
        Op::Put => vec![rule().method("PUT").path_contains(&path)],
        Op::Delete => vec![rule().method("DELETE"), rule().method("POST").path_contains("delete")],
        _ => Vec::new(),
    }
}

fn fault_of(mode: Mode) -> Fault {
    let answer = |status, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
        Fault::Answer(status, Vec::new(), body.into_bytes())
    };
    match mode {
        Mode::Unreachable | Mode::Broken => Fault::ResetBefore,
        Mode::Lost => Fault::DropAnswer,
        Mode::Server => answer(500, "InternalError"),
        Mode::Throttled => answer(503, "SlowDown"),
        Mode::Refused => answer(400, "InvalidRequest"),
        Mode::Denied => answer(403, "AccessDenied"),
        Mode::Credentials => answer(403, "ExpiredToken"),
    }
}
