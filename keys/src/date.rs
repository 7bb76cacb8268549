//! Dates as messages show them.

use x509_parser::time::ASN1Time;

/// Seconds since 1970 as `Tue, 21 Nov 2023 02:51:00 +0000`.
pub(crate) fn date(seconds: i64) -> String {
    let text = ASN1Time::from_timestamp(seconds).ok().and_then(|time| time.to_rfc2822().ok());
    text.unwrap_or_else(|| format!("second {seconds} of 1970"))
}
