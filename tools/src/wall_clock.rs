//! Dates of reports and audit files: UTC, as HP-UX and as RFC 3339 write them.

use core::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A second of the civil calendar, UTC. `Display` is that of audit files: `Sat Nov 21 02:54:19 2026`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    weekday: usize,
    second_of_day: u64,
}

impl Date {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// The date of a time; times before 1970 are taken for its first second.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        Self::since_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn since_epoch(elapsed: Duration) -> Self {
        const PER_DAY: u64 = 86_400;
        let (days, second_of_day) = (elapsed.as_secs() / PER_DAY, elapsed.as_secs() % PER_DAY);
        // Counted from 0000-03-01, so that a leap day is the last day of its year, and every 400
        // years are alike: 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March: five of them have 153 days.
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12;
        let year = 400 * era + year_of_era + u64::from(month < 2);
        // 1970-01-01 was a Thursday.
        Self { year, month: month as usize, day, weekday: ((days + 4) % 7) as usize, second_of_day }
    }

    fn clock(&self) -> (u64, u64, u64) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }

    /// `2026-11-21T02:54:19Z`.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        let (h, m, s) = self.clock();
        format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", self.year, self.month + 1, self.day)
    }

    /// For names of files, in the order of time: `2026-11-21-025419`.
    #[must_use]
    pub fn file_name(&self) -> String {
        let (h, m, s) = self.clock();
        format!("{:04}-{:02}-{:02}-{h:02}{m:02}{s:02}", self.year, self.month + 1, self.day)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = self.clock();
        let (weekday, month) = (DAYS[self.weekday], MONTHS[self.month]);
        write!(f, "{weekday} {month} {:2} {h:02}:{m:02}:{s:02} {}", self.day, self.year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> Date {
        Date::since_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn known_dates() {
        // As `date -u -d @N` prints them.
        assert_eq!(date(0).to_string(), "Thu Jan  1 00:00:00 1970");
        assert_eq!(date(951_782_400).to_string(), "Tue Feb 29 00:00:00 2000");
        assert_eq!(date(951_868_799).rfc3339(), "2000-02-29T23:59:59Z");
        assert_eq!(date(951_868_800).rfc3339(), "2000-03-01T00:00:00Z");
        assert_eq!(date(1_795_229_659).to_string(), "Sat Nov 21 02:54:19 2026");
        assert_eq!(date(4_107_542_399).rfc3339(), "2100-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400).rfc3339(), "2100-03-01T00:00:00Z");
        assert_eq!(date(1_795_229_659).file_name(), "2026-11-21-025419");
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = date(0);
        for day in 1..200_000 {
            let now = date(day * 86_400);
            let next_day = (now.year, now.month, now.day) == (before.year, before.month, before.day + 1);
            let first = now.day == 1 && before.day >= 28 && now.month == (before.month + 1) % 12;
            assert!(next_day || first, "{before:?} then {now:?}");
            assert_eq!(now.weekday, (before.weekday + 1) % 7);
            before = now;
        }
    }
}
