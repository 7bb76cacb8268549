//! The name somebody probably meant.

/// ``did you mean `x`?`` for the candidate nearest to `word`, if one is near.
pub(super) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    crypto::suite::nearest(word, candidates).map(|c| format!("did you mean `{c}`?"))
}
