//! Whether the system gives the SPD cache pages of 2 MB, without which look-ups in a large table take longer.

use crate::report::PageKind;
use std::fs;

/// What the system is set to.
pub(super) fn setting() -> PageKind {
    match fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled") {
        Ok(setting) if setting.contains("[always]") || setting.contains("[madvise]") => PageKind::Huge,
        _ => PageKind::Ordinary,
    }
}

/// Octets of this process that are in such pages where they were asked for, which only the cache does;
/// `None` if the kernel does not tell.
pub(super) fn octets() -> Option<u64> {
    fs::read_to_string("/proc/self/smaps").ok().map(|text| octets_in(&text))
}

/// From `/proc/PID/smaps` (proc_pid_smaps(5)): of each mapping `AnonHugePages` and, last, its flags, with `hg`
/// where `madvise` asked for huge pages.
fn octets_in(smaps: &str) -> u64 {
    let (mut octets, mut of_mapping) = (0, 0);
    for line in smaps.lines() {
        if let Some(kilobytes) = line.strip_prefix("AnonHugePages:") {
            let number = kilobytes.trim().split(' ').next();
            of_mapping = number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_whitespace().any(|flag| flag == "hg") {
                octets += of_mapping;
            }
            of_mapping = 0;
        }
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::octets_in;

    #[test]
    fn only_mappings_that_asked_for_them_count() {
        let smaps = "\
7f0000000000-7f0000800000 rw-p 00000000 00:00 0
Rss:                8192 kB
AnonHugePages:      6144 kB
VmFlags: rd wr mr mw me ac nr sd hg
7f1000000000-7f1000400000 rw-p 00000000 00:00 0 [heap]
AnonHugePages:      4096 kB
VmFlags: rd wr mr mw me ac sd
7f2000000000-7f2000400000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me nr hg
";
        assert_eq!(octets_in(smaps), 8 << 20);
        assert_eq!(octets_in("AnonHugePages: x\nVmFlags: hg\n"), 0);
    }
}
