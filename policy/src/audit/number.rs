//! HP-UX message numbers, by entity: the same number means different things
//! from different entities.

/// The event has no number in HP-UX.
pub const NONE: u32 = 0;

/// Numbers of the policy engine and the packet path.
pub mod secpolicyd {
    /// The SPD cache reached its soft limit, or a further 1000 entries.
    pub const CACHE_SOFT_LIMIT: u32 = 20;
    /// The SPD cache is at its hard limit.
    pub const CACHE_HARD_LIMIT: u32 = 55;
    /// A protected packet arrived for which there is no SA.
    pub const NO_SPI: u32 = 67;
    /// An SA could not be added: its SPI exists.
    pub const DUPLICATE_SPI: u32 = 178;
    /// The configuration is not valid.
    pub const CONFIGURATION_INVALID: u32 = 413;
}

/// Numbers of the IKE daemon.
pub mod ikmpd {
    /// Main mode failed.
    pub const MAIN_MODE_FAILED: u32 = 31;
    /// No proposal chosen.
    pub const NO_PROPOSAL_CHOSEN: u32 = 123;
    /// A peer began a negotiation and we respond.
    pub const RESPOND_PHASE_1: u32 = 125;
    /// An IKE SA changed its state.
    pub const STATE_CHANGE: u32 = 221;
    /// A request was not answered after all its retransmissions.
    pub const RETRANSMISSIONS_EXCEEDED: u32 = 240;
    /// Main mode was not answered in time.
    pub const MAIN_MODE_TIMEOUT: u32 = 413;
    /// The peer asks for a selector that no tunnel policy has.
    pub const NO_MATCHING_SELECTOR: u32 = 443;
    /// The host selector that a negotiation is for.
    pub const FOUND_HOST_SELECTOR: u32 = 450;
    /// A proposal of the peer was rejected for one of its attributes.
    pub const REJECTED_ATTRIBUTE: u32 = 1131;
    /// The IKE policy that a negotiation uses.
    pub const FOUND_IKE_POLICY: u32 = 1258;
}
