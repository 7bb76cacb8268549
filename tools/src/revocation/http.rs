//! One HTTP GET, bounded in time and size.

use std::time::Duration;
use ureq::Agent;

/// For everything: names, connections, redirects, the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 3;
/// Octets of the longest CRL.
const LONGEST: u64 = 10 << 20;

/// Whether it can be fetched.
pub(super) fn is_http(url: &str) -> bool {
    url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
}

/// Fetches a CRL: DER, as RFC 5280 4.2.1.13 asks for, or PEM, as some serve it.
pub(super) fn get(url: &str) -> Result<Vec<u8>, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(MOST_REDIRECTS)
        // What the environment says is for people's programs.
        .proxy(None)
        .user_agent(concat!("caponier/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|e| e.to_string())?;
    let body = response.body_mut().with_config().limit(LONGEST).read_to_vec();
    let octets = body.map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(_) => format!("the answer has more than {LONGEST} octets"),
        other => other.to_string(),
    })?;
    if octets.first() == Some(&0x30) {
        return Ok(octets);
    }
    let mut crls = keys::encoding::read(&octets, None).map_err(|what| format!("of what came, it {what}"))?.crls;
    if crls.len() == 1 { Ok(crls.swap_remove(0)) } else { Err(format!("what came holds {} CRLs", crls.len())) }
}
