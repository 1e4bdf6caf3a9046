//! The explorations.

use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _};

use super::{Broken, Publishers};

fn two() -> Publishers {
    Publishers {
        trees: vec![vec![[2, 2]], vec![[0, 3], [1, 0]]],
        broken: Broken::Nothing,
        crashes: 1,
        lost: 1,
        short: 2,
        long: 1,
    }
}

fn explore(model: Publishers) {
    let start = Instant::now();
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{} states, {} of them different, depth {}, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    checker.assert_properties();
}

#[test]
fn r2_r3_r5_r8_hold_for_two_publishers() {
    explore(two());
}
