//! The probe of a store: finds out whether it keeps the conditions of writes and deletes. Some stores ignore them and
//! answer as if they did not, so nothing is believed.

use std::thread;

use crate::backend::condition::{Condition, WRITES_RACED};
use crate::backend::state_objects::{Fetched, ProbeResult, PutSmall, STATE_FOLDER, SmallObject};
use crate::backend::transfers::{Transfers, new_token};
use crate::engine::gate::Gate;
use crate::engine::thread_named;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;

/// The creates of one key that race.
const RACERS: usize = 8;
/// The races: the first one finds cold connections.
const ROUNDS: usize = 3;
/// The races that may be run again because one was not decided.
const UNDECIDED_ROUNDS: usize = 3;
/// More bytes than the contents of the probe have.
const LIMIT: u64 = 1024;
/// An `ETag` that no object of the probe has. By its form it is the MD5 of some content.
const STALE: &str = "0123456789abcdef0123456789abcdef";

/// Finds out which conditions a store keeps.
pub(crate) fn probe(
    store: &dyn Transfers,
    context: &RequestContext<'_>,
) -> Result<ProbeResult, StorageError> {
    // The racers must be in flight together, however few requests a run may send at once.
    let gate = Gate::new(RACERS);
    let probe = Probe { store, context: &RequestContext { gate: &gate, ..*context }, token: new_token() };
    probe.then_remove(&Probe::names(), || probe.full())
}

/// Finds out whether a store looks at the conditions of writes. Returns the reason if it does not.
pub(crate) fn probe_cheaply(
    store: &dyn Transfers,
    context: &RequestContext<'_>,
) -> Result<Option<String>, StorageError> {
    let probe = Probe { store, context, token: new_token() };
    probe.then_remove(&["cheap".to_owned()], || probe.cheap())
}

/// A probe under way.
struct Probe<'a> {
    store: &'a dyn Transfers,
    context: &'a RequestContext<'a>,
    /// Part of its keys.
    token: String,
}

/// The end of one check: the reason if the store does not keep the condition.
type Checked = Result<Option<String>, StorageError>;

impl Probe<'_> {
    fn full(&self) -> Result<ProbeResult, StorageError> {
        let create = self.check_create()?;
        let replace = self.check_replace()?;
        let delete = self.check_delete()?;
        let (creates, replaces, deletes) = (create.is_none(), replace.is_none(), delete.is_none());
        let why = create.or(replace).or(delete);
        Ok(ProbeResult { create: creates, replace: replaces, delete: deletes, why })
    }

    fn cheap(&self) -> Checked {
        let first = self.put("cheap", "first", &Condition::Absent)?;
        if !matches!(first, Put::Stored(_)) {
            return Ok(Some(not_done("create", &first)));
        }
        if let Some(why) = self.check_refused("cheap", &Condition::Absent)? {
            return Ok(Some(why));
        }
        self.check_refused("cheap", &Condition::Matches(STALE.to_owned()))
    }

    /// Races creates of one key: one must win, and the object must be what it sent.
    fn check_create(&self) -> Checked {
        let (mut rounds, mut lost) = (0, 0);
        while rounds < ROUNDS {
            let name = format!("race-{}", rounds + lost);
            let Race { winners, refusal, undecided } = self.race(&name)?;
            if winners.len() > 1 {
                return Ok(Some(format!(
                    "{} of {RACERS} PUTs with If-None-Match: * stored the same key at the same time",
                    winners.len()
                )));
            }
            if let Some(why) = refusal {
                return Ok(Some(why));
            }
            // Nobody can say whether a try without an answer won as well.
            if undecided && lost < UNDECIDED_ROUNDS {
                lost += 1;
                continue;
            }
            let Some(winner) = winners.first() else {
                return Ok(Some(format!("none of {RACERS} PUTs with If-None-Match: * stored a new key")));
            };
            if self.content(&name)?.as_deref() != Some(winner) {
                return Ok(Some("a PUT with If-None-Match: * that was refused stored its object".to_owned()));
            }
            rounds += 1;
        }
        Ok(None)
    }

    fn race(&self, name: &str) -> Result<Race, StorageError> {
        let (start, started) = crossbeam_channel::bounded::<()>(0);
        let race = |racer: usize| {
            let content = format!("racer {racer}");
            // Until the sender is dropped: also if one of the threads cannot be started.
            let _ = started.recv();
            self.put(name, &content, &Condition::Absent).map(|put| (content, put))
        };
        let ended: Vec<_> = thread::scope(|scope| {
            let race = &race;
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| thread_named("brigade-probe").spawn_scoped(scope, move || race(racer)))
                .collect();
            drop(start);
            let ended = |racer: std::io::Result<thread::ScopedJoinHandle<'_, _>>| match racer {
                Ok(racer) => racer.join().unwrap_or_else(|_| Err(racer_panicked())),
                Err(error) => Err(racer_not_started(error)),
            };
            racers.into_iter().map(ended).collect()
        });
        let mut found = Race::default();
        for ended in ended {
            let (content, put) = match ended {
                // It used up its tries in the race. It did not win, but the race is not decided either.
                Err(error) if error.code() == Some(WRITES_RACED) => {
                    found.undecided = true;
                    continue;
                }
                ended => ended?,
            };
            match put {
                Put::Stored(_) => found.winners.push(content),
                Put::Refused { unanswered } => found.undecided |= unanswered,
                Put::Unsupported(_) => found.refusal = Some(not_done("create", &put)),
            }
        }
        Ok(found)
    }

    /// Replaces an object by its `ETag`, then tries that with the `ETag` that it had before.
    fn check_replace(&self) -> Checked {
        let first = self.put("replace", "first", &Condition::None)?;
        let Put::Stored(first) = first else {
            return Ok(Some(not_done("PUT", &first)));
        };
        let first = Condition::Matches(first);
        let second = self.put("replace", "second", &first)?;
        if !matches!(second, Put::Stored(_)) {
            return Ok(Some(not_done("PUT with If-Match", &second)));
        }
        if let Some(why) = self.check_refused("replace", &first)? {
            return Ok(Some(why));
        }
        let kept = self.content("replace")?.as_deref() == Some("second");
        Ok((!kept).then(|| "a PUT with a stale If-Match was refused, and stored".to_owned()))
    }

    /// Tries a PUT whose condition does not hold.
    fn check_refused(&self, name: &str, condition: &Condition) -> Checked {
        let what = match condition {
            Condition::Matches(_) => "a PUT with a stale If-Match",
            Condition::None | Condition::Absent => "a PUT with If-None-Match: * of a key that exists",
        };
        Ok(match self.put(name, "not to be stored", condition)? {
            Put::Stored(_) => Some(format!("{what} was stored")),
            Put::Refused { .. } => None,
            unsupported @ Put::Unsupported(_) => Some(not_done(what, &unsupported)),
        })
    }

    /// Tries deletes of stale `ETag`s, then of the right ones: two keys together, and one alone.
    fn check_delete(&self) -> Checked {
        for names in [&["delete-1", "delete-2"][..], &["delete-3"]] {
            let mut right = Vec::new();
            for name in names {
                let put = self.put(name, name, &Condition::None)?;
                let Put::Stored(etag) = put else {
                    return Ok(Some(not_done("PUT", &put)));
                };
                right.push((self.key(name)?, Condition::Matches(etag)));
            }
            let stale =
                |(key, _): &(RemoteKey, Condition)| (key.clone(), Condition::Matches(STALE.to_owned()));
            let stale: Vec<_> = right.iter().map(stale).collect();
            let form = if names.len() > 1 { "DeleteObjects with an ETag" } else { "DELETE with If-Match" };
            if let Some(why) = self.check_stale_delete(form, &stale)? {
                return Ok(Some(why));
            }
            for (_, result) in self.store.delete_many(self.context, &right)? {
                match result {
                    Err(error) if tells_about_conditions(&error) => {
                        return Ok(Some(format!("{form} did not delete the object that has it: {error}")));
                    }
                    other => other?,
                }
            }
        }
        Ok(None)
    }

    fn check_stale_delete(&self, form: &str, stale: &[(RemoteKey, Condition)]) -> Checked {
        let deleted = match self.store.delete_many(self.context, stale) {
            Err(error) if tells_about_conditions(&error) => return Ok(Some(format!("{form}: {error}"))),
            other => other?,
        };
        for (_, result) in deleted {
            match result {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) if tells_about_conditions(&error) => return Ok(Some(format!("{form}: {error}"))),
                Ok(()) => return Ok(Some(format!("{form} deleted an object that had another one"))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn key(&self, name: &str) -> Result<RemoteKey, StorageError> {
        RemoteKey::new(format!("{}-{name}", self.folder()))
    }

    /// What all its keys begin with.
    fn folder(&self) -> String {
        format!("{STATE_FOLDER}probe-{}", self.token)
    }

    fn put(&self, name: &str, content: &str, condition: &Condition) -> Result<Put, StorageError> {
        let key = self.key(name)?;
        let (bytes, content_type) = (content.as_bytes(), "text/plain");
        let object = SmallObject { key: &key, bytes, content_type, condition };
        match self.store.state_objects().put_small(self.context, &object) {
            Ok(PutSmall::Stored { etag, .. }) => Ok(Put::Stored(etag)),
            // An earlier try may have stored it. The contents of one key differ.
            Ok(PutSmall::Refused { unanswered: true }) => match self.fetch(&key)? {
                Some((found, etag)) if found == content => Ok(Put::Stored(etag)),
                _ => Ok(Put::Refused { unanswered: true }),
            },
            Ok(PutSmall::Refused { unanswered }) => Ok(Put::Refused { unanswered }),
            Err(error) if *condition != Condition::None && tells_about_conditions(&error) => {
                Ok(Put::Unsupported(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    fn content(&self, name: &str) -> Result<Option<String>, StorageError> {
        Ok(self.fetch(&self.key(name)?)?.map(|(content, _)| content))
    }

    /// Returns the content of an object and its `ETag`.
    fn fetch(&self, key: &RemoteKey) -> Result<Option<(String, String)>, StorageError> {
        match self.store.state_objects().get_small(self.context, key, LIMIT, None)? {
            Fetched::Found { bytes, etag, .. } => {
                Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), etag)))
            }
            Fetched::Missing | Fetched::NotModified => Ok(None),
        }
    }

    /// Returns the names of all objects of the full probe.
    fn names() -> Vec<String> {
        let others = ["replace", "delete-1", "delete-2", "delete-3"].map(str::to_owned);
        (0..ROUNDS + UNDECIDED_ROUNDS).map(|round| format!("race-{round}")).chain(others).collect()
    }

    /// Runs the checks, then removes what they stored under these names, however they ended.
    fn then_remove<T>(
        &self,
        names: &[String],
        checks: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let result = checks();
        if let Err(error) = self.remove(names) {
            let what = "not all objects of the probe could be deleted; those whose keys begin so may be";
            self.context.trace.warn(what, &[("key", &self.folder()), ("error", &error)]);
        }
        result
    }

    fn remove(&self, names: &[String]) -> Result<(), StorageError> {
        let keys = names.iter().map(|name| Ok((self.key(name)?, Condition::None)));
        let keys = keys.collect::<Result<Vec<_>, StorageError>>()?;
        self.store.delete_many(self.context, &keys)?.into_iter().try_for_each(|(_, result)| result)
    }
}

/// The end of one PUT.
enum Put {
    /// It was stored, with this `ETag`.
    Stored(String),
    Refused {
        unanswered: bool,
    },
    /// The store does not know the condition: the text of its error.
    Unsupported(String),
}

/// The end of a race.
#[derive(Default)]
struct Race {
    /// The contents of the creates that were stored.
    winners: Vec<String>,
    /// Why the store refuses the condition as such.
    refusal: Option<String>,
    /// A try had no answer, or was never decided.
    undecided: bool,
}

/// Returns whether an error may be due to a condition that the store does not know.
fn tells_about_conditions(error: &StorageError) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Rejected | ErrorKind::Conflict)
}

/// Returns the reason for a request that should have been executed.
fn not_done(what: &str, put: &Put) -> String {
    match put {
        Put::Unsupported(error) => format!("the store does not support a {what}: {error}"),
        Put::Stored(_) | Put::Refused { .. } => format!("a {what} whose condition held was refused"),
    }
}

fn racer_not_started(error: std::io::Error) -> StorageError {
    StorageError::new(ErrorKind::Other, Operation::Upload, "cannot start the threads of the probe")
        .with_source(error)
}

fn racer_panicked() -> StorageError {
    StorageError::new(ErrorKind::Panicked, Operation::Upload, "a thread of the probe panicked")
}
