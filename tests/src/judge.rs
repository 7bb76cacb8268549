//! Independent judges of captured ESP and IKE: tshark and scapy, with the keys
//! that Caponier exports for Wireshark.

use crate::endpoint::fixture;
use crate::need;
use crate::process;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What tshark made of a capture.
#[derive(Debug, Default)]
pub struct Verdict {
    /// ESP packets whose ICV tshark computed itself and found right.
    pub icv_good: usize,
    /// ESP packets whose ICV it found wrong, or could not check.
    pub icv_bad: usize,
    /// Echo requests and replies it found inside ESP.
    pub icmp: usize,
    /// Encrypted IKE messages it decrypted to well-formed payloads.
    pub ike_decrypted: usize,
    /// Those it did not.
    pub ike_opaque: usize,
}

/// Lets tshark authenticate and decrypt a capture. `keys` is a directory with
/// `esp_sa` and `ikev1_decryption_table`.
#[track_caller]
pub fn tshark(capture: &Path, keys: &Path) -> Verdict {
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", keys).arg("-r").arg(capture);
    command.args(["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let text = process::run(&mut command, 60).ok("tshark");
    let mut verdict = Verdict::default();
    for line in text.lines() {
        let values: BTreeMap<_, _> = FIELDS.into_iter().zip(line.split('|')).collect();
        let value = |field| values.get(field).copied().unwrap_or_default();
        if !value("esp.spi").is_empty() {
            match value("esp.icv_good") {
                "1" | "True" => verdict.icv_good += 1,
                _ => verdict.icv_bad += 1,
            }
            verdict.icmp += usize::from(!value("icmp.type").is_empty());
        }
        let encrypted = u8::from_str_radix(value("isakmp.flags").trim_start_matches("0x"), 16).unwrap_or(0) & 1 != 0;
        if encrypted {
            // Hash, identification, delete, notification: seen only in a decrypted message.
            let payloads: Vec<_> = value("isakmp.typepayload").split(',').collect();
            match payloads.iter().any(|p| matches!(*p, "5" | "8" | "11" | "12")) {
                true => verdict.ike_decrypted += 1,
                false => verdict.ike_opaque += 1,
            }
        }
    }
    verdict
}

const FIELDS: [&str; 5] = ["esp.spi", "esp.icv_good", "icmp.type", "isakmp.flags", "isakmp.typepayload"];

/// Lets scapy authenticate and decrypt every ESP packet of a capture, and
/// returns how many there were for each SPI.
///
/// # Panics
/// If it finds a fault.
#[track_caller]
pub fn scapy(capture: &Path, keys: &Path) -> BTreeMap<String, u64> {
    let mut command = Command::new(need::python());
    command.arg(fixture("esp_judge.py")).arg(capture).arg(keys.join("esp_sa"));
    let text = process::run(&mut command, 120).ok("esp_judge.py");
    let verdict: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let good = verdict["good"].as_object().expect("a count per SPI");
    good.iter().map(|(spi, n)| (spi.clone(), n.as_u64().unwrap_or(0))).collect()
}
