//! Commands that wait for the outcome of a negotiation.

use crate::control::server::Responder;
use crate::control::{Refusal, RefusalKind};
use std::collections::HashMap;
use std::sync::Arc;

/// Commands that wait for the outcome of a negotiation, by tunnel.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<Arc<str>, Vec<Responder>>);

impl Waiting {
    pub(super) fn add(&mut self, tunnel: Arc<str>, responder: Responder) {
        self.0.entry(tunnel).or_default().push(responder);
    }

    pub(super) fn up(&mut self, tunnel: &str, inbound_spi: u32, outbound_spi: u32) {
        for responder in self.0.remove(tunnel).unwrap_or_default() {
            responder.done(format!(
                "tunnel {tunnel}: new SAs, SPI {inbound_spi:#010x} inbound, {outbound_spi:#010x} outbound"
            ));
        }
    }

    pub(super) fn failed(&mut self, tunnel: &str, reason: &str) {
        for responder in self.0.remove(tunnel).unwrap_or_default() {
            let text = format!("tunnel {tunnel} was not negotiated: {reason}");
            responder.refuse(
                Refusal::new(RefusalKind::Failed, text)
                    .next("`ipsec_report -tunnel` and the audit log tell more; the peer's log may too."),
            );
        }
    }
}
