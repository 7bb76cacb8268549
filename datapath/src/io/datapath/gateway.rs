//! The workers of a gateway.

use super::{Datapath, DatapathConfig, Outbox, StartError};
use crate::io::ring::Fanout;
use crate::io::worker::gateway::inside::InsideWorker;
use crate::io::worker::gateway::outside::OutsideWorker;
use crate::io::worker::gateway::{Door, Setting, Side};
use crate::io::worker::{Clock, Events, Waker, spawn};
use crossbeam::channel::unbounded;
use policy::config::Gateway;
use std::sync::Arc;

/// The interfaces of a gateway, those inside first.
pub(super) fn doors(gateway: Option<&Gateway>) -> Result<Vec<Door>, StartError> {
    let Some(gateway) = gateway else { return Ok(Vec::new()) };
    let find = |name: &String, side| {
        Door::find(name, side).map_err(|source| StartError::Gateway { name: name.clone(), source })
    };
    let inside = gateway.inside.iter().map(|name| find(name, Side::Inside));
    inside.chain(gateway.outside.iter().map(|name| find(name, Side::Outside))).collect()
}

impl Datapath {
    /// Starts the workers of a gateway: so many for each interface.
    pub(super) fn start_gateway(
        &mut self,
        config: &DatapathConfig,
        gateway: &Gateway,
        doors: &[Door],
        events: &Events,
    ) -> Result<(), StartError> {
        let names = gateway.inside.iter().chain(&gateway.outside);
        // After those of the TUN interface and the sockets; where there are more workers than blocks of counters, some share.
        let mut number = self.queues.readers.len() + self.queues.writers.len();
        for (door, name) in doors.iter().zip(names) {
            for _ in 0..gateway.workers {
                // Interfaces have different indices, and a group is of one interface.
                let fanout = (gateway.workers > 1).then_some(Fanout { group: door.interface as u16 });
                let setting = Setting {
                    door: *door,
                    doors: doors.to_vec(),
                    fanout,
                    shared: Arc::clone(&self.shared),
                    clock: Clock { origin: config.origin },
                    mark: config.mark,
                    offload: config.offload,
                    number,
                };
                number += 1;
                let gate = setting.open().map_err(|source| StartError::Gateway { name: name.clone(), source })?;
                self.start_gate(gate, door.side, events)?;
            }
        }
        Ok(())
    }

    fn start_gate(
        &mut self,
        gate: crate::io::worker::gateway::Gate,
        side: Side,
        events: &Events,
    ) -> Result<(), StartError> {
        let (waker, events) = (Waker::new()?, events.clone());
        let sender = events.clone();
        self.threads.push(match side {
            Side::Inside => {
                let (outbox, commands) = unbounded();
                self.outbound.push(Outbox { commands: outbox, waker: waker.clone() });
                // The sockets are also those of a worker of the TUN interface: they send for one at a time.
                let ports = Arc::clone(&self.ports[self.outbound.len() % self.ports.len()]);
                let worker = InsideWorker { gate, ports, commands, waker, events };
                spawn("inside", sender, move || worker.run())?
            }
            Side::Outside => {
                self.inbound_wakers.push(waker.clone());
                let worker = OutsideWorker { gate, stop: Arc::clone(&self.stop), waker, events };
                spawn("outside", sender, move || worker.run())?
            }
        });
        Ok(())
    }
}
