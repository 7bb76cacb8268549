//! Which known name somebody may have meant: also for the other names of a configuration.

/// The name in `known` most like `typed`, unless none is much like it. Case
/// and underscores do not count.
#[must_use]
pub fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed = normal(typed);
    // A third of it may be wrong, or two letters of a short name.
    let limit = (typed.len() / 3).clamp(2, 6);
    known
        .into_iter()
        .map(|name| (distance(&typed, &normal(name)), name))
        .filter(|(distance, _)| *distance <= limit && *distance < typed.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Longer input is no typing error of any name, and would take long to compare.
const LONGEST: usize = 64;

fn normal(name: &str) -> Vec<char> {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).take(LONGEST).collect()
}

/// How many characters have to be inserted, deleted or replaced (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(from != to)).min(left + 1).min(*above + 1);
            diagonal = core::mem::replace(above, best);
            left = best;
        }
    }
    row.last().copied().unwrap_or(a.len())
}
