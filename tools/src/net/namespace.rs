//! Network namespaces.

use super::NetError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

/// Where `ip netns` looks for names.
const NAMED: &str = "/run/netns";

/// A network namespace: it lives as long as this value, its name or a process in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    name: Option<PathBuf>,
}

impl Namespace {
    /// Makes one without a name, empty but for a loopback interface.
    ///
    /// # Errors
    /// When this process may not.
    pub fn unnamed() -> Result<Self, NetError> {
        let made = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let action =
            || "cannot make a network namespace (this needs root, or a user namespace of one's own)".to_owned();
        Ok(Self { file: made.map_err(|source| NetError { action: action(), source })?, name: None })
    }

    /// Makes one that `ip netns exec NAME` finds. It is removed with this value,
    /// unless [`Self::keep`] is called.
    ///
    /// # Errors
    /// When this process may not, or the name is taken.
    pub fn named(name: &str) -> Result<Self, NetError> {
        let failed = |source| NetError { action: format!("cannot make the network namespace {name}"), source };
        let path = Path::new(NAMED).join(name);
        std::fs::create_dir_all(NAMED).map_err(failed)?;
        let mut namespace = Self::unnamed()?;
        File::create_new(&path).map_err(failed)?;
        let none: Option<&Path> = None;
        let source = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&namespace.file)));
        if let Err(e) = mount(Some(&source), &path, none, MsFlags::MS_BIND, none) {
            let _ = std::fs::remove_file(&path);
            return Err(failed(e.into()));
        }
        namespace.name = Some(path);
        Ok(namespace)
    }

    /// Leaves the name when this value goes.
    pub fn keep(&mut self) {
        self.name = None;
    }

    /// Removes a name, whoever made it. Not an error if there is none.
    ///
    /// # Errors
    /// When this process may not.
    pub fn remove_name(name: &str) -> Result<(), NetError> {
        remove(&Path::new(NAMED).join(name))
            .map_err(|source| NetError { action: format!("cannot remove the network namespace {name}"), source })
    }

    /// Another handle, which keeps the namespace but not its name.
    ///
    /// # Errors
    /// When this process has too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, name: None })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When this process may not.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` in a thread of its own inside the namespace. Sockets and child
    /// processes made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or as `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            self.enter()?;
            work()
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(path) = &self.name {
            let _ = remove(path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    // Not mounted is as good.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A thread ends with the namespace it has entered; the caller stays where it is.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
