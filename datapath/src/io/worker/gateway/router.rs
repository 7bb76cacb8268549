//! Where a packet goes next: the kernel's routes and neighbours, remembered as long as they hold.

use super::netlink::{Known, Link, Mac, Netlink, News, Way};
use core::time::Duration;
use policy::time::Timestamp;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Destinations and neighbours that are remembered; at more, all are forgotten and asked for again.
const MOST: usize = 8192;
/// How long a way is believed: the kernel tells of other routes, not of a path that has become narrower.
const WAY_HOLDS: Duration = Duration::from_secs(5);
/// How often the kernel is told that a neighbour is in use of whom it has not heard of late.
const USE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a neighbour that does not answer is not asked for again.
const FAILED_HOLDS: Duration = Duration::from_secs(1);

/// What of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// Packets go to this address.
    To(Mac),
    /// The kernel has been asked to find it.
    Wait,
    /// It is not there.
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    known: Known,
    /// When it became known so, or the kernel was last told of its use.
    at: Timestamp,
}

/// The kernel's routes and neighbours for one worker.
#[derive(Debug)]
pub(super) struct Router {
    netlink: Netlink,
    mark: u32,
    ways: HashMap<IpAddr, (Way, Timestamp)>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    links: HashMap<u32, Link>,
}

impl Router {
    /// For packets with this firewall mark.
    pub(super) fn open(mark: u32) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            mark,
            ways: HashMap::new(),
            neighbours: HashMap::new(),
            links: HashMap::new(),
        })
    }

    /// Readable when [`Self::take_news`] has something to do.
    pub(super) fn news_fd(&self) -> BorrowedFd<'_> {
        self.netlink.news_fd()
    }

    /// Takes what has changed; says whether anything that packets may wait for.
    pub(super) fn take_news(&mut self, now: Timestamp) -> io::Result<bool> {
        let mut any = false;
        let Self { netlink, ways, neighbours, links, .. } = self;
        netlink.take_news(&mut |news| {
            any = true;
            match news {
                News::Neighbour { interface, address, known } => {
                    // Only those in use: there may be many others.
                    if let Some(neighbour) = neighbours.get_mut(&(interface, address)) {
                        *neighbour = Neighbour { known, at: now };
                    }
                }
                News::Everything => {
                    ways.clear();
                    neighbours.clear();
                    links.clear();
                }
            }
        })?;
        Ok(any)
    }

    /// The way to a destination.
    pub(super) fn way(&mut self, destination: IpAddr, now: Timestamp) -> io::Result<Way> {
        match self.ways.get(&destination) {
            Some((way, since)) if now.since(*since) < WAY_HOLDS => return Ok(*way),
            _ => {}
        }
        let way = self.netlink.way(destination, self.mark)?;
        if self.ways.len() >= MOST {
            self.ways.clear();
        }
        self.ways.insert(destination, (way, now));
        Ok(way)
    }

    /// An interface.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Link> {
        if let Some(link) = self.links.get(&index) {
            return Ok(*link);
        }
        let link = self.netlink.link(index)?;
        self.links.insert(index, link);
        Ok(link)
    }

    /// A neighbour's address.
    pub(super) fn hop(&mut self, interface: u32, address: IpAddr, now: Timestamp) -> io::Result<Hop> {
        let key = (interface, address);
        let Some(Neighbour { known, at }) = self.neighbours.get(&key).copied() else {
            let known = self.netlink.neighbour(interface, address)?;
            return self.learn(key, known, now);
        };
        match known {
            Known::Fresh(mac) => Ok(Hop::To(mac)),
            Known::Stale(mac) => {
                if now.since(at) >= USE_INTERVAL {
                    self.netlink.use_neighbour(interface, address)?;
                    self.neighbours.insert(key, Neighbour { known, at: now });
                }
                Ok(Hop::To(mac))
            }
            // Within which the kernel gives up too, and says so.
            Known::Asked if now.since(at) < USE_INTERVAL => Ok(Hop::Wait),
            Known::Failed if now.since(at) < FAILED_HOLDS => Ok(Hop::Failed),
            Known::Asked | Known::Failed => {
                let known = self.netlink.neighbour(interface, address)?;
                self.learn(key, known, now)
            }
        }
    }

    fn learn(&mut self, key: (u32, IpAddr), known: Known, now: Timestamp) -> io::Result<Hop> {
        if self.neighbours.len() >= MOST {
            self.neighbours.clear();
        }
        if let Known::Stale(_) = known {
            self.netlink.use_neighbour(key.0, key.1)?;
        }
        self.neighbours.insert(key, Neighbour { known, at: now });
        Ok(match known {
            Known::Fresh(mac) | Known::Stale(mac) => Hop::To(mac),
            Known::Asked => Hop::Wait,
            Known::Failed => Hop::Failed,
        })
    }
}
