//! The rules of the design, as properties of every state.

use stateright::{Model as _, Property};

use super::super::head::Outcome;
use super::publisher::{self, Run};
use super::{
    Action, Broken, FIRST_RUN, FIRST_TREE, LONG, Publishers, Tree, World, claimed, doubted, published, token,
};

/// The tree that a further run publishes, to see whether it recovers.
const NEXT_TREE: Tree = [1, 4];
const NEXT_RUNS: std::ops::Range<u8> = 100..102;

/// Returns the properties.
pub(super) fn properties() -> Vec<Property<Publishers>> {
    vec![
        // R2: no object is stored or deleted without a live claim and a stored intent. R8: a writer whose claim was
        // taken over begins nothing, and what it had sent alters only keys in doubt. Looked at when data is sent and
        // when it lands.
        Property::always("R2 R8 only what was claimed and named is sent or changed", |_, world: &World| {
            world.broken.is_none()
        }),
        // R3: the rows of the head are what the store holds, for every key but those that a live claim may be changing
        // and those in doubt.
        Property::always("R3 rows are true, or in doubt", |_, world: &World| has_true_rows(world)),
        // R5, first half: at most one run begins data writes at any time.
        Property::always("R5 one run writes", |_, world: &World| {
            let runs = world.publishers.iter().filter_map(|publisher| publisher.run.as_ref());
            runs.filter(|run| Run::may_write(run, world.clock)).count() <= 1
        }),
        // R5, second half: once doubt is settled and nobody publishes, the bucket is the tree of the last publish, if
        // that was complete.
        Property::always("R5 the bucket is the last complete tree", |model: &Publishers, world: &World| {
            last_tree(model, world).is_none_or(|tree| world.contents() == tree)
        }),
        // R5, as it is to become true: whatever happened, two more undisturbed runs leave their tree and no doubt.
        Property::always("R5 further runs recover", |model: &Publishers, world: &World| {
            recovers(model, world)
        }),
        // The rules are not true for want of cases.
        Property::sometimes("a request lands after its claim was taken over", |_, world: &World| {
            world.landed_late
        }),
        Property::sometimes("doubt about a dead claim is settled by a complete run", |_, world: &World| {
            world.head().is_some_and(|head| {
                let outcomes: Vec<_> = head.history.iter().map(|past| past.outcome).collect();
                head.doubt.is_empty() && outcomes.ends_with(&[Outcome::Taken, Outcome::Complete])
                    || head.doubt.is_empty()
                        && outcomes.ends_with(&[Outcome::Taken, Outcome::Complete, Outcome::Complete])
            })
        }),
        Property::sometimes("every publisher ends its runs", |model: &Publishers, world: &World| {
            let ended = |(number, trees): (usize, &Vec<Tree>)| {
                usize::from(world.publishers[number].begun) == trees.len()
            };
            model.trees.iter().enumerate().all(ended)
                && world.head().is_some_and(|head| head.claim.is_none() && head.doubt.is_empty())
        }),
    ]
}

fn has_true_rows(world: &World) -> bool {
    let (rows, open) = match world.head() {
        None if world.removed.is_some() => return true,
        None => (Tree::default(), 0),
        Some(head) => (published(head), claimed(head) | doubted(head)),
    };
    let there = world.contents();
    (0..there.len()).all(|key| open & 1 << key != 0 || rows[key] == there[key])
}

/// The tree of the last run, if it was complete, nobody publishes and nothing is in doubt.
fn last_tree(model: &Publishers, world: &World) -> Option<Tree> {
    let head = world.head().filter(|head| head.claim.is_none() && head.doubt.is_empty())?;
    let last = head.history.last().filter(|past| past.outcome == Outcome::Complete)?;
    if last.token == token(FIRST_RUN) {
        return Some(FIRST_TREE);
    }
    model.trees.iter().enumerate().find_map(|(number, trees)| {
        let runs = 0..u8::try_from(trees.len()).unwrap();
        let run = runs.into_iter().find(|run| token(super::run_id(number, *run)) == last.token)?;
        Some(trees[usize::from(run)])
    })
}

/// Returns true if two further runs, one after the other and 31 minutes apart, publish their tree and settle all
/// doubt. Looked at where nobody is running; what is in flight may have landed or not.
fn recovers(model: &Publishers, world: &World) -> bool {
    let is_quiet = world.publishers.iter().all(|publisher| publisher.run.is_none());
    if !is_quiet || model.broken != Broken::Nothing {
        return true;
    }
    let mut world = world.clone();
    for id in NEXT_RUNS {
        world.advance(LONG + 60);
        if !run_alone(model, &mut world, id) {
            return false;
        }
    }
    let head = world.head().unwrap();
    head.doubt.is_empty()
        && head.claim.is_none()
        && world.contents() == NEXT_TREE
        && published(head) == NEXT_TREE
}

/// Runs one publisher to its end, with nobody else; returns false if it does not end.
fn run_alone(model: &Publishers, world: &mut World, id: u8) -> bool {
    (world.publishers[0].begun, world.publishers[0].run) = (id, None);
    for _ in 0..60 {
        let Some(run) = &world.publishers[0].run else {
            publisher::step(world, 0, NEXT_TREE, model.broken);
            if world.publishers[0].run.is_none() {
                return true;
            }
            continue;
        };
        if run.is_waiting() {
            let at = world.flying.iter().position(|request| request.awaited).unwrap();
            *world = model.next_state(world, Action::Land(at)).unwrap();
        } else {
            let before = world.clone();
            publisher::step(world, 0, NEXT_TREE, model.broken);
            // It waits for the lease of a claim that was lost with the head.
            if *world == before {
                world.advance(60);
            }
        }
        if world.publishers[0].begun != id {
            return true;
        }
    }
    false
}
