//! What SAs know of the MTU of their paths.

use super::super::path_mtu;
use crate::sa::OutboundSa;
use crate::shared::Shared;
use std::collections::BTreeMap;

/// Asks the kernel for the path MTU of those SAs that are `wanted`: each path
/// once, however many SAs take it. A path that cannot be asked, having no route
/// just now, keeps what was known of it. `mark` is as for [`path_mtu`].
pub(super) fn refresh(shared: &Shared, mark: u32, wanted: impl Fn(&OutboundSa) -> bool) {
    let mut paths = BTreeMap::new();
    for pair in shared.all_pairs().iter().filter(|p| wanted(&p.outbound)) {
        let (local, remote) = (pair.outbound.spec().local, pair.outbound.remote().ip());
        let mtu = paths.entry((local, remote)).or_insert_with(|| path_mtu(local, remote, mark).ok());
        if let Some(mtu) = mtu {
            pair.outbound.set_path_mtu(*mtu);
        }
    }
}
