//! Internet Key Exchange.
