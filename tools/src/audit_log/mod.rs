//! Audit events, written to standard error and to files in the layout of HP-UX.
//!
//! [`AuditLog::record`] never waits: each destination has a thread of its own behind a bounded
//! queue. What does not fit in the queue, or cannot be written, is counted, and the file says so
//! as soon as it can be written again.

mod file;
pub mod reader;

use crate::wall_clock::Date;
use crossbeam::channel::{self, Receiver, Sender};
use file::AuditFile;
use policy::audit::{AuditEvent, Entity, Level};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Events that wait for one destination.
const QUEUE: usize = 1024;
/// How long [`AuditLog`]'s drop waits for what is in the queues.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// Least urgent level that is recorded.
    pub level: Level,
    /// Directory of audit files; `None`: standard error only.
    pub dir: Option<PathBuf>,
    /// A file of this size is closed and another begun, in kilobytes of 1024 octets.
    pub max_kbytes: u32,
}

/// The audit directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write audit files in {}: {reason}\nChange startup.auditdir, or make the directory writable for ipsecd.", dir.display())]
pub struct StartError {
    /// The directory.
    pub dir: PathBuf,
    /// What the system said.
    pub reason: io::Error,
}

/// Writes audit events. Shared by reference; its drop writes what is left, for at most a second.
#[derive(Debug)]
pub struct AuditLog {
    level: AtomicU8,
    lost: Arc<AtomicU64>,
    sinks: Vec<Sink>,
}

impl AuditLog {
    /// Begins to write; fails if the directory cannot be made or written to.
    pub fn start(options: &AuditOptions) -> Result<Self, StartError> {
        let mut destinations: Vec<Box<dyn Destination>> = vec![Box::new(StandardError)];
        if let Some(dir) = &options.dir {
            let file = AuditFile::open(dir, u64::from(options.max_kbytes) * 1024)
                .map_err(|reason| StartError { dir: dir.clone(), reason })?;
            destinations.push(Box::new(file));
        }
        Ok(Self::to(destinations, options.level))
    }

    fn to(destinations: Vec<Box<dyn Destination>>, level: Level) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let sinks = destinations.into_iter().map(|d| Sink::start(d, Arc::clone(&lost))).collect();
        Self { level: AtomicU8::new(level as u8), lost, sinks }
    }

    /// Records an event, if its level is one of those recorded.
    pub fn record(&self, event: &AuditEvent) {
        if !self.level().includes(event.level) {
            return;
        }
        let entry: Arc<str> = format!("{}\n", event.render(Date::now())).into();
        for sink in &self.sinks {
            sink.offer(&entry, &self.lost);
        }
    }

    /// Least urgent level that is recorded.
    #[must_use]
    pub fn level(&self) -> Level {
        let stored = self.level.load(Relaxed);
        Level::ALL.into_iter().find(|l| *l as u8 == stored).unwrap_or(Level::Debug)
    }

    /// Changes it, from the next event on.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Relaxed);
    }

    /// Entries that some destination has not got: its queue was full, or the system refused.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Something entries are written to.
trait Destination: Send {
    /// Writes whole entries; on failure, none of them.
    fn write(&mut self, entries: &str) -> io::Result<()>;
}

struct StandardError;

impl Destination for StandardError {
    fn write(&mut self, entries: &str) -> io::Result<()> {
        io::stderr().lock().write_all(entries.as_bytes())
    }
}

/// A destination behind its queue.
#[derive(Debug)]
struct Sink {
    queue: Option<Sender<Arc<str>>>,
    /// Closed when the thread has written everything.
    ended: Receiver<()>,
}

impl Sink {
    fn start(destination: Box<dyn Destination>, lost: Arc<AtomicU64>) -> Self {
        let (queue, entries) = channel::bounded(QUEUE);
        let (end, ended) = channel::bounded(0);
        // Should there be no thread, the queue is closed and every event counts as lost.
        let _ = thread::Builder::new().name("audit".into()).spawn(move || {
            write_all(destination, &entries, &lost);
            drop(end);
        });
        Self { queue: Some(queue), ended }
    }

    fn offer(&self, entry: &Arc<str>, lost: &AtomicU64) {
        if let Some(queue) = &self.queue
            && queue.try_send(Arc::clone(entry)).is_err()
        {
            lost.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.queue = None;
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

fn write_all(mut destination: Box<dyn Destination>, entries: &Receiver<Arc<str>>, lost: &AtomicU64) {
    let mut missing = 0u64;
    let mut why = None;
    for entry in entries {
        let with_confession = match &why {
            Some(reason) => format!("{}\n{entry}", confession(missing, reason).render(Date::now())),
            None => entry.to_string(),
        };
        match destination.write(&with_confession) {
            Ok(()) => (missing, why) = (0, None),
            Err(reason) => {
                lost.fetch_add(1, Relaxed);
                missing += 1;
                why = Some(reason);
            }
        }
    }
}

fn confession(missing: u64, reason: &io::Error) -> AuditEvent {
    AuditEvent {
        number: policy::audit::number::NONE,
        entity: Entity::Secauditd,
        level: Level::Error,
        text: format!("{missing} audit entries before this one could not be written: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn event(level: Level, text: &str) -> AuditEvent {
        AuditEvent { number: 7, entity: Entity::Ikmpd, level, text: text.into() }
    }

    #[derive(Clone, Default)]
    struct Memory {
        written: Arc<Mutex<String>>,
        full: Arc<Mutex<bool>>,
        tried: Arc<AtomicU64>,
    }

    impl Destination for Memory {
        fn write(&mut self, entries: &str) -> io::Result<()> {
            let full = *self.full.lock().unwrap();
            if !full {
                self.written.lock().unwrap().push_str(entries);
            }
            self.tried.fetch_add(1, Relaxed);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl Memory {
        fn wait_for(&self, tries: u64) {
            while self.tried.load(Relaxed) < tries {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn levels_filter_and_can_be_changed() {
        let memory = Memory::default();
        let log = AuditLog::to(vec![Box::new(memory.clone())], Level::Error);
        log.record(&event(Level::Warning, "one"));
        log.record(&event(Level::Error, "two"));
        log.set_level(Level::Alert);
        log.record(&event(Level::Error, "three"));
        log.set_level(Level::Debug);
        log.record(&event(Level::Debug, "four"));
        drop(log);
        let written = memory.written.lock().unwrap();
        let texts: Vec<_> = written.lines().filter_map(|l| l.strip_prefix("Event: ")).collect();
        assert_eq!(texts, ["two", "four"]);
    }

    #[test]
    fn what_a_full_disk_swallows_is_counted_and_confessed() {
        let memory = Memory::default();
        let log = AuditLog::to(vec![Box::new(memory.clone())], Level::Debug);
        *memory.full.lock().unwrap() = true;
        log.record(&event(Level::Error, "one"));
        log.record(&event(Level::Error, "two"));
        memory.wait_for(2);
        assert_eq!(log.lost(), 2);
        *memory.full.lock().unwrap() = false;
        log.record(&event(Level::Error, "three"));
        log.record(&event(Level::Error, "four"));
        drop(log);
        let written = memory.written.lock().unwrap();
        let texts: Vec<_> = written.lines().filter_map(|l| l.strip_prefix("Event: ")).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("2 audit entries before this one could not be written"), "{texts:?}");
        assert_eq!(texts[1..], ["three", "four"]);
    }

    #[test]
    fn a_stuck_destination_neither_blocks_nor_grows() {
        struct Stuck(Receiver<()>);
        impl Destination for Stuck {
            fn write(&mut self, _: &str) -> io::Result<()> {
                let _ = self.0.recv();
                Ok(())
            }
        }
        let (release, stuck) = channel::bounded(0);
        let log = AuditLog::to(vec![Box::new(Stuck(stuck))], Level::Debug);
        for _ in 0..QUEUE * 3 {
            log.record(&event(Level::Error, "x"));
        }
        // One may be in the thread's hands.
        assert!(log.lost() >= QUEUE as u64 * 2 - 1);
        drop(release);
    }
}
