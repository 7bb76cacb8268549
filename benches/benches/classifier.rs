//! First match over ordered rules, on one core.
//!
//! Group `classifier`: one iteration is one packet; `linear` tries the rules one
//! after the other. Group `classifier_build`: one iteration compiles all rules
//! (`caponier`), or replaces the policies under their readers (`replace`). The
//! parameter is the set, `<kind>_<rules>`; the octets a rule are printed. Rules in
//! ClassBench's format are measured too if `CLASSBENCH_DIR` names a directory of
//! them. Compare functions within one run: the machine's speed drifts between runs.

use benches::rule_sets::{KINDS, RuleSet};
use core::hint::black_box;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use policy::classifier::{Classifier, Rule};
use policy::config::{Config, DefaultAction, HostAction};
use policy::five_tuple::{Direction, FiveTuple};
use policy::spd::SharedSpd;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn sets() -> Vec<RuleSet> {
    let generated = SIZES.iter().flat_map(|n| KINDS.iter().map(|kind| RuleSet::generate(kind, *n)));
    let mut sets: Vec<RuleSet> = generated.collect();
    if let Some(directory) = std::env::var_os("CLASSBENCH_DIR") {
        sets.extend(RuleSet::read_all(&PathBuf::from(directory)).expect("CLASSBENCH_DIR has rule files only"));
    }
    sets
}

fn compile(set: &RuleSet) -> Classifier {
    Classifier::compile(set.selectors.iter().map(|s| [s]))
}

/// The time of so many packets of a trace, again and again from its beginning.
fn timed(trace: &[FiveTuple], packets: u64, decide: impl Fn(&FiveTuple) -> Option<u32>) -> Duration {
    let packets = trace.iter().cycle().take(usize::try_from(packets).unwrap_or(usize::MAX));
    let start = Instant::now();
    for packet in packets {
        black_box(decide(packet));
    }
    start.elapsed()
}

fn config(set: &RuleSet) -> Config {
    let mut config = Config::without_hosts(DefaultAction::Pass);
    for selector in &set.selectors {
        config.add_host(vec![selector.clone()], HostAction::Discard);
    }
    config
}

fn classifier(c: &mut Criterion) {
    let sets = sets();
    let mut group = c.benchmark_group("classifier");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600)).sample_size(20);
    for set in &sets {
        let compiled = compile(set);
        let rules = set.selectors.len();
        let (all, selectors) = (compiled.size() / rules, size_of::<Rule>());
        let line = format!("classifier {}: {all} octets a rule, {selectors} of them the rule itself", set.name);
        writeln!(std::io::stderr(), "{line}").expect("standard error is there");
        let compiled_one = |p: &FiveTuple| compiled.first_match(p, Direction::Outbound);
        let linear = |p: &FiveTuple| compiled.first_match_linear(p, Direction::Outbound);
        group.bench_function(BenchmarkId::new("caponier", &set.name), |b| {
            b.iter_custom(|n| timed(&set.trace, n, compiled_one));
        });
        group.bench_function(BenchmarkId::new("linear", &set.name), |b| {
            b.iter_custom(|n| timed(&set.trace, n, linear));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("classifier_build");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600)).sample_size(10);
    for set in &sets {
        group.bench_function(BenchmarkId::new("caponier", &set.name), |b| b.iter(|| compile(set)));
        let config = config(set);
        let shared = SharedSpd::new(&config);
        group.bench_function(BenchmarkId::new("replace", &set.name), |b| b.iter(|| shared.replace(&config)));
    }
    group.finish();
}

criterion_group!(benches, classifier);
criterion_main!(benches);
