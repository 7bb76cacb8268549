//! The commands' side of the control protocol: blocking, one request per connection.

use super::{Answer, MAX_REPLY, MAX_REQUEST, Refusal, Reply, Request, frame, socket_path};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may be silent before the client gives up: longer than a negotiation that
/// fails (31 s).
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error(
        "no ipsecd answers at {}: {reason}\nStart one with `ipsecd --config FILE{}`, or name its run directory with --run-dir DIR or CAPONIER_RUN_DIR.",
        socket.display(),
        run_dir_hint(socket)
    )]
    NoDaemon {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Somebody may listen, but not to us.
    #[error("not allowed to talk to ipsecd at {}: {reason}\nRun this command as the user that runs ipsecd, usually root.", socket.display())]
    Permission {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The daemon said no.
    #[error("{}{}", .0.text, .0.next.as_ref().map(|n| format!("\n{n}")).unwrap_or_default())]
    Refused(Refusal),
    /// The daemon is of another version.
    #[error(
        "ipsecd at {} speaks version {theirs} of the control protocol, this command version {}\nUse the commands that were installed with the running daemon, or restart it.",
        socket.display(), super::VERSION
    )]
    Version {
        /// The socket.
        socket: PathBuf,
        /// The daemon's version.
        theirs: u32,
    },
    /// The answer was cut off.
    #[error("ipsecd at {} hung up before its answer was complete; look at its standard error or audit file for why", socket.display())]
    CutOff {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon does not answer in time.
    #[error("ipsecd at {} has not answered for {} seconds; it may be stuck or overloaded", socket.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// Something else about the stream or the messages.
    #[error("talking to ipsecd at {}: {source}", socket.display())]
    Stream {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        source: frame::Error,
    },
}

fn run_dir_hint(socket: &Path) -> String {
    match socket.parent() {
        Some(dir) if dir != Path::new(super::DEFAULT_RUN_DIR) => format!(" --run-dir {}", dir.display()),
        _ => String::new(),
    }
}

/// An answer as it comes in: an iterator over its parts that ends after the first error.
#[derive(Debug)]
pub struct Answers {
    stream: UnixStream,
    socket: PathBuf,
    batch: std::vec::IntoIter<Answer>,
    finished: bool,
}

/// Sends a request to the daemon of a run directory.
pub fn ask(run_dir: &Path, request: &Request) -> Result<Answers, Error> {
    let socket = socket_path(run_dir);
    let mut stream = UnixStream::connect(&socket).map_err(|reason| match reason.kind() {
        io::ErrorKind::PermissionDenied => Error::Permission { socket: socket.clone(), reason },
        _ => Error::NoDaemon { socket: socket.clone(), reason },
    })?;
    let wrap = |source: frame::Error| Error::Stream { socket: socket.clone(), source };
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| wrap(e.into()))?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(|e| wrap(e.into()))?;
    let message = frame::encode(request, MAX_REQUEST).map_err(wrap)?;
    match stream.write_all(&message) {
        Ok(()) => {}
        // A daemon that refuses early may hang up before it has read everything: its answer says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        Err(e) => return Err(wrap(e.into())),
    }
    Ok(Answers { stream, socket, batch: Vec::new().into_iter(), finished: false })
}

/// Sends a request and collects the whole answer; for requests whose answer is short.
pub fn ask_once(run_dir: &Path, request: &Request) -> Result<Vec<Answer>, Error> {
    ask(run_dir, request)?.collect()
}

impl Answers {
    fn next_batch(&mut self) -> Result<Option<Vec<Answer>>, Error> {
        match frame::read::<Reply>(&mut self.stream, MAX_REPLY) {
            Ok(Some(Reply::Records(batch))) => Ok(Some(batch)),
            Ok(Some(Reply::End)) => Ok(None),
            Ok(Some(Reply::Refused(refusal))) => Err(Error::Refused(refusal)),
            Ok(None) | Err(frame::Error::Truncated) => Err(Error::CutOff { socket: self.socket.clone() }),
            Err(frame::Error::Version { theirs }) => Err(Error::Version { socket: self.socket.clone(), theirs }),
            Err(frame::Error::Io(e)) => Err(match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent { socket: self.socket.clone() },
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Error::CutOff { socket: self.socket.clone() }
                }
                _ => Error::Stream { socket: self.socket.clone(), source: e.into() },
            }),
            Err(source) => Err(Error::Stream { socket: self.socket.clone(), source }),
        }
    }
}

impl Iterator for Answers {
    type Item = Result<Answer, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(answer) = self.batch.next() {
                return Some(Ok(answer));
            }
            if self.finished {
                return None;
            }
            match self.next_batch() {
                Ok(Some(batch)) => self.batch = batch.into_iter(),
                Ok(None) => self.finished = true,
                Err(e) => {
                    self.finished = true;
                    return Some(Err(e));
                }
            }
        }
    }
}
