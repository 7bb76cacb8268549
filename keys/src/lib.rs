//! Secrets and trust.
