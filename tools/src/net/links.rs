//! Interfaces and their addresses.

use super::{Net, NetError, failed, is};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags};
use rtnetlink::{LinkUnspec, LinkVeth};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Number in the kernel.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Largest packet, in octets.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Whether it may be used as a source: it is not tentative, deprecated or a duplicate.
    pub usable: bool,
}

impl Net {
    /// All interfaces with their addresses, by index.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetError> {
        let mut found = BTreeMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(failed(|| "cannot list interfaces".to_owned()))? {
            let (mut name, mut mtu) = (String::new(), 0);
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(n) => name = n,
                    LinkAttribute::Mtu(m) => mtu = m,
                    _ => {}
                }
            }
            let flags = link.header.flags;
            let (up, loopback) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::Loopback));
            let index = link.header.index;
            found.insert(index, Interface { index, name, mtu, up, loopback, addresses: Vec::new() });
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(failed(|| "cannot list addresses".to_owned()))? {
            let (mut address, mut local, mut flags) = (None, None, AddressFlags::empty());
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(a) => address = Some(*a),
                    AddressAttribute::Local(a) => local = Some(*a),
                    AddressAttribute::Flags(f) => flags = *f,
                    _ => {}
                }
            }
            // On a point-to-point interface IFA_ADDRESS is the other end, IFA_LOCAL this one.
            let (Some(interface), Some(address)) = (found.get_mut(&message.header.index), local.or(address)) else {
                continue;
            };
            let unusable = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
            let usable = !flags.intersects(unusable);
            interface.addresses.push(InterfaceAddress { address, prefix: message.header.prefix_len, usable });
        }
        Ok(found.into_values().collect())
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn interface_index(&self, name: &str) -> Result<u32, NetError> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = links.try_next().await.map_err(failed(|| format!("cannot find the interface {name}")))?;
        link.map(|l| l.header.index).ok_or_else(|| NetError {
            action: format!("cannot find the interface {name}"),
            source: Errno::NODEV.into(),
        })
    }

    /// Makes two interfaces that are the ends of one cable.
    ///
    /// # Errors
    /// When a name is taken or the kernel has no veth.
    pub async fn add_veth(&self, a: &str, b: &str) -> Result<(), NetError> {
        let request = self.handle.link().add(LinkVeth::new(a, b).build());
        request.execute().await.map_err(failed(|| format!("cannot make the veth pair {a}, {b}")))
    }

    /// Moves an interface to another network namespace.
    ///
    /// # Errors
    /// When it is not there, or may not be moved.
    pub async fn move_interface(&self, name: &str, namespace: impl AsFd) -> Result<(), NetError> {
        let index = self.interface_index(name).await?;
        let message = LinkUnspec::new_with_index(index).setns_by_fd(namespace.as_fd().as_raw_fd()).build();
        let request = self.handle.link().change(message).execute();
        request.await.map_err(failed(|| format!("cannot move {name} to another network namespace")))
    }

    /// Gives an interface, which must be off, another name.
    ///
    /// # Errors
    /// When it is not there, is on, or the name is taken.
    pub async fn rename_interface(&self, from: &str, to: &str) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(self.interface_index(from).await?).name(to).build();
        let request = self.handle.link().change(message).execute();
        request.await.map_err(failed(|| format!("cannot rename {from} to {to}")))
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn set_up(&self, name: &str) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(self.interface_index(name).await?).up().build();
        let request = self.handle.link().change(message).execute();
        request.await.map_err(failed(|| format!("cannot switch {name} on")))
    }

    /// Sets the largest packet an interface takes, in octets.
    ///
    /// # Errors
    /// When it is not there, or the size is impossible for it.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(self.interface_index(name).await?).mtu(mtu).build();
        let request = self.handle.link().change(message).execute();
        request.await.map_err(failed(|| format!("cannot set the MTU of {name} to {mtu}")))
    }

    /// Switches the TUN interface on, with an MTU and without addresses of its own.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn start_tun(&self, name: &str, mtu: u32) -> Result<(), NetError> {
        let index = self.interface_index(name).await?;
        self.set_mtu(name, mtu).await?;
        // No link-local address: the kernel would talk to neighbours that a tunnel does not have.
        let no_address = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![no_address]))
            .build();
        match self.handle.link().change(message).execute().await {
            // IPv6 is switched off altogether.
            Err(e) if is(&e, Errno::AFNOSUPPORT) || is(&e, Errno::OPNOTSUPP) => {}
            other => other.map_err(failed(|| format!("cannot keep {name} without IPv6 addresses")))?,
        }
        self.set_up(name).await
    }

    /// Removes an interface, and the other end if it is a veth.
    ///
    /// # Errors
    /// When it is not there, or is not one that can be removed.
    pub async fn delete_interface(&self, name: &str) -> Result<(), NetError> {
        let index = self.interface_index(name).await?;
        self.handle.link().del(index).execute().await.map_err(failed(|| format!("cannot remove {name}")))
    }

    /// Gives an interface an address, usable at once: IPv6 without duplicate
    /// address detection. Not an error if it has it already.
    ///
    /// # Errors
    /// When the interface is not there or the prefix is too long.
    pub async fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<(), NetError> {
        let index = self.interface_index(name).await?;
        let mut request = self.handle.address().add(index, address, prefix).replace();
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(failed(|| format!("cannot give {name} the address {address}/{prefix}")))
    }

    /// Takes an address from an interface. Not an error if it has it not.
    ///
    /// # Errors
    /// When the interface is not there.
    pub async fn delete_address(&self, name: &str, address: IpAddr) -> Result<(), NetError> {
        let index = self.interface_index(name).await?;
        let action = || format!("cannot take the address {address} from {name}");
        let mut found = self.handle.address().get().set_link_index_filter(index).execute();
        let mut those = Vec::new();
        while let Some(message) = found.try_next().await.map_err(failed(action))? {
            let is = |a: &AddressAttribute| matches!(a, AddressAttribute::Address(a) | AddressAttribute::Local(a) if *a == address);
            if message.attributes.iter().any(is) {
                those.push(message);
            }
        }
        for message in those {
            self.handle.address().del(message).execute().await.map_err(failed(action))?;
        }
        Ok(())
    }
}

/// The interfaces on which the kernel drops what would not go back the way it
/// came (`rp_filter` 1, RFC 3704 strict): a peer that is itself a protected
/// destination is not heard there. `root` is `/proc/sys` but in tests.
#[must_use]
pub fn strict_reverse_path(root: &std::path::Path, interfaces: &[Interface]) -> Vec<String> {
    let setting = |name: &str| -> u8 {
        let file = root.join("net/ipv4/conf").join(name).join("rp_filter");
        std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    // The kernel takes the larger of the two; 2 is loose.
    let all = setting("all");
    let names = interfaces.iter().filter(|i| !i.loopback).map(|i| i.name.clone());
    names.filter(|name| setting(name).max(all) == 1).collect()
}
