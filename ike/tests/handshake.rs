//! Whole negotiations between two engines.

mod support;

use support::{Side, World, a, b};

fn both(change: impl Fn(&mut Side)) -> World {
    let (mut a, mut b) = (a(), b());
    change(&mut a);
    change(&mut b);
    World::new(&a, &b)
}

#[test]
fn main_mode_and_quick_mode() {
    let mut w = both(|_| {});
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    assert_eq!(w.sent.len(), 9, "six messages of main mode, three of quick mode");
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
}
