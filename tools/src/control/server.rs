//! The daemon's side of the control protocol.
//!
//! [`Server::bind`] takes the socket, [`Server::run`] serves it: each connection is a task that
//! reads one request, hands it with a [`Responder`] to the daemon's main loop, and writes what
//! comes back. A client that is slow, silent or gone costs its own task and nothing else: the main
//! loop's [`Responder::answer`] never waits, and a [`RecordStream`] is told when nobody reads on.

use super::{Answer, MAX_BATCH, MAX_REPLY, MAX_REQUEST, Refusal, RefusalKind, Reply, Request, frame, socket_path};
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Clients served at the same time; more are told to try again.
pub const MAX_CLIENTS: usize = 32;
/// How long a client may take to send its request, or to take one message of a short answer.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take for one message of a long answer: somebody may be reading it, page by page.
pub const READER_PATIENCE: Duration = Duration::from_secs(300);
/// How long the daemon may take for the next part of an answer: longer than a failing negotiation.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(55);

const LOCK_NAME: &str = "ipsecd.lock";

/// Why the daemon cannot take its control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon has it.
    #[error("another ipsecd already uses run directory {}\nStop it with `ipsec_admin -stop --run-dir {}`, or choose another directory with --run-dir.", .0.display(), .0.display())]
    InUse(PathBuf),
    /// Others could replace the socket.
    #[error("run directory {} belongs to user {owner} with mode {mode:o}: anybody but root and ipsecd's user could replace the control socket\nChange it with `chown` and `chmod 700`, or choose another directory with --run-dir.", dir.display())]
    Unsafe {
        /// The run directory.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot {what} {}: {reason}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// The control socket, held until dropped: the last thing a daemon that ends does, since
/// `ipsec_admin -stop` takes it for the end.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    inode: u64,
    /// Released by the kernel even if the daemon is killed.
    _lock: File,
}

impl Server {
    /// Takes the control socket of a run directory, which is made if need be. The socket of a
    /// daemon that is no more is replaced; that of one that runs is not. Call within a tokio runtime.
    pub fn bind(run_dir: &Path) -> Result<Self, BindError> {
        make_run_dir(run_dir)?;
        let lock = lock(run_dir)?;
        let socket = socket_path(run_dir);
        // Made under another name and renamed, so that it is never there with other permissions.
        let fresh = run_dir.join(format!(".ipsecd.{}", std::process::id()));
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |reason| BindError::Io { what, path, reason }
        };
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &fresh)(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("make control socket", &fresh))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed("protect", &fresh))?;
        let inode = fs::symlink_metadata(&fresh).map_err(failed("look at", &fresh))?.ino();
        fs::rename(&fresh, &socket).map_err(failed("place control socket", &socket))?;
        Ok(Self { listener, socket, inode, _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves clients until the future is dropped. Once nobody receives `requests` any more, clients
    /// are told that the daemon is ending, which is not over while there is a socket.
    pub async fn run(self, requests: mpsc::Sender<(Request, Responder)>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let requests = requests.clone();
                        tokio::spawn(async move {
                            serve(stream, requests).await;
                            drop(place);
                        });
                    }
                    Err(_) => turn_away(stream),
                },
                Err(e) => {
                    // Out of descriptors or memory: clients wait in the backlog, the daemon goes on.
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only our own: if somebody else placed one there, it is theirs.
        if fs::symlink_metadata(&self.socket).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn make_run_dir(dir: &Path) -> Result<(), BindError> {
    let io = |what| move |reason| BindError::Io { what, path: dir.to_path_buf(), reason };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make run directory"))?;
    let meta = fs::metadata(dir).map_err(io("look at run directory"))?;
    let mode = meta.mode() & 0o7777;
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    if ours && mode & 0o022 == 0 {
        Ok(())
    } else {
        Err(BindError::Unsafe { dir: dir.to_path_buf(), owner: meta.uid(), mode })
    }
}

fn lock(run_dir: &Path) -> Result<File, BindError> {
    let path = run_dir.join(LOCK_NAME);
    let io = |what| {
        let path = path.clone();
        move |reason| BindError::Io { what, path, reason }
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open lock file"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BindError::InUse(run_dir.to_path_buf())),
        Err(e) => Err(io("lock")(e.into())),
    }
}

/// One client: a request in, an answer out.
async fn serve(mut stream: UnixStream, requests: mpsc::Sender<(Request, Responder)>) {
    let (to_client, mut parts) = mpsc::channel(8);
    match receive(&mut stream).await {
        Ok(request) => {
            if requests.send_timeout((request, Responder { to_client }), CLIENT_PATIENCE).await.is_err() {
                let busy = Refusal::new(RefusalKind::Busy, "ipsecd is too busy to take the request, or is ending")
                    .next("Try again in a moment.");
                let _ = send(&mut stream, &Reply::Refused(busy)).await;
                return;
            }
        }
        Err(Some(refusal)) => {
            let _ = send(&mut stream, &Reply::Refused(refusal)).await;
            return;
        }
        Err(None) => return,
    }
    let mut patience = CLIENT_PATIENCE;
    // Dropping `parts`, on any way out, is how the daemon learns that nobody reads on.
    loop {
        let part = match timeout(ANSWER_PATIENCE, parts.recv()).await {
            Ok(Some(part)) => part,
            Ok(None) => Part::Refused(Refusal::new(
                RefusalKind::Failed,
                "ipsecd gave up on the request; its standard error or audit file may say why",
            )),
            Err(_) => Part::Refused(Refusal::new(
                RefusalKind::Busy,
                format!("ipsecd did not answer within {} seconds", ANSWER_PATIENCE.as_secs()),
            )),
        };
        let sent = match part {
            Part::Records(records) => {
                patience = READER_PATIENCE;
                send_records(&mut stream, records, patience).await
            }
            Part::Last(records) => match send_records(&mut stream, records, patience).await {
                Ok(()) => return drop(send_within(patience, &mut stream, &Reply::End).await),
                Err(e) => Err(e),
            },
            Part::Refused(refusal) => return drop(send(&mut stream, &Reply::Refused(refusal)).await),
        };
        if let Err(e) = sent {
            tracing::debug!("control client: {e}");
            return;
        }
    }
}

/// Reads the request; `Err(None)` if there is nobody to tell what is wrong.
async fn receive(stream: &mut UnixStream) -> Result<Request, Option<Refusal>> {
    let us = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == us || peer.uid() == 0 => {}
        _ => {
            let text = format!("only root and the user that runs ipsecd ({us}) may use its control socket");
            return Err(Some(Refusal::new(RefusalKind::Forbidden, text)));
        }
    }
    let read = async {
        let mut prefix = [0; frame::PREFIX];
        stream.read_exact(&mut prefix).await?;
        let mut body = vec![0; frame::length(prefix, MAX_REQUEST)?];
        stream.read_exact(&mut body).await?;
        frame::decode(&body)
    };
    let error = match timeout(CLIENT_PATIENCE, read).await {
        Ok(Ok(request)) => return Ok(request),
        Ok(Err(error)) => error,
        Err(_) => {
            let text = format!("no whole request came within {} seconds", CLIENT_PATIENCE.as_secs());
            return Err(Some(Refusal::new(RefusalKind::Malformed, text)));
        }
    };
    Err(match error {
        frame::Error::Io(_) | frame::Error::Truncated => None,
        frame::Error::Version { theirs } => Some(
            Refusal::new(
                RefusalKind::Version,
                format!(
                    "the command speaks version {theirs} of the control protocol, ipsecd version {}",
                    super::VERSION
                ),
            )
            .next("Use the commands that were installed with the running daemon, or restart it."),
        ),
        frame::Error::TooLong { .. } | frame::Error::Malformed(_) => {
            Some(Refusal::new(RefusalKind::Malformed, format!("ipsecd does not understand the request: {error}")))
        }
    })
}

async fn send_records(stream: &mut UnixStream, records: Vec<Answer>, patience: Duration) -> Result<(), frame::Error> {
    let mut records = records.into_iter();
    loop {
        let batch: Vec<Answer> = records.by_ref().take(MAX_BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        send_within(patience, stream, &Reply::Records(batch)).await?;
    }
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> Result<(), frame::Error> {
    send_within(CLIENT_PATIENCE, stream, reply).await
}

async fn send_within(patience: Duration, stream: &mut UnixStream, reply: &Reply) -> Result<(), frame::Error> {
    let message = frame::encode(reply, MAX_REPLY)?;
    match timeout(patience, stream.write_all(&message)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(frame::Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

/// Tells a client too many to come back; what does not fit in the socket's buffer is not sent.
fn turn_away(stream: UnixStream) {
    let busy = Refusal::new(RefusalKind::Busy, format!("ipsecd already serves {MAX_CLIENTS} commands"))
        .next("Try again in a moment.");
    if let Ok(message) = frame::encode(&Reply::Refused(busy), MAX_REPLY) {
        let _ = stream.try_write(&message);
    }
}

#[derive(Debug)]
enum Part {
    Records(Vec<Answer>),
    Last(Vec<Answer>),
    Refused(Refusal),
}

/// Where the answer to one request goes. Dropped without an answer, it tells the client that the
/// daemon gave up.
#[derive(Debug)]
pub struct Responder {
    to_client: mpsc::Sender<Part>,
}

impl Responder {
    /// The whole answer. Never waits; a client that is gone is no error.
    pub fn answer(self, records: Vec<Answer>) {
        // The channel is empty: nothing was sent before.
        let _ = self.to_client.try_send(Part::Last(records));
    }

    /// An answer in words.
    pub fn done(self, text: impl Into<String>) {
        self.answer(vec![Answer::Done(text.into())]);
    }

    /// An answer in words that is with the client, or as lost as the client is, when this returns:
    /// for a daemon that is about to end. Waits for [`CLIENT_PATIENCE`] at most.
    pub async fn done_at_last(self, text: impl Into<String>) {
        let connection = self.to_client.clone();
        self.done(text);
        connection.closed().await;
    }

    /// No answer. Never waits.
    pub fn refuse(self, refusal: Refusal) {
        let _ = self.to_client.try_send(Part::Refused(refusal));
    }

    /// An answer that is made piece by piece, as fast as the client takes it.
    #[must_use]
    pub fn stream(self) -> RecordStream {
        RecordStream { to_client: self.to_client, batch: Vec::new() }
    }
}

/// The client has hung up, or is too slow: there is no point in going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// A long answer. Either a task of its own sends ([`RecordStream::send`]), or a thread does
/// ([`RecordStream::blocking_send`], never on the runtime's thread).
#[derive(Debug)]
pub struct RecordStream {
    to_client: mpsc::Sender<Part>,
    batch: Vec<Answer>,
}

impl RecordStream {
    /// Adds to the answer, waiting while the client is slower.
    pub async fn send(&mut self, answer: impl Into<Answer>) -> Result<(), Gone> {
        match self.push(answer.into()) {
            Some(full) => self.to_client.send(Part::Records(full)).await.map_err(|_| Gone),
            None => Ok(()),
        }
    }

    /// Adds to the answer, blocking the thread while the client is slower.
    pub fn blocking_send(&mut self, answer: impl Into<Answer>) -> Result<(), Gone> {
        match self.push(answer.into()) {
            Some(full) => self.to_client.blocking_send(Part::Records(full)).map_err(|_| Gone),
            None => Ok(()),
        }
    }

    /// Ends the answer. A stream that is dropped instead tells the client that it was cut off.
    pub async fn finish(self) -> Result<(), Gone> {
        self.to_client.send(Part::Last(self.batch)).await.map_err(|_| Gone)
    }

    /// Ends the answer, blocking the thread while the client is slower.
    pub fn blocking_finish(self) -> Result<(), Gone> {
        self.to_client.blocking_send(Part::Last(self.batch)).map_err(|_| Gone)
    }

    fn push(&mut self, answer: Answer) -> Option<Vec<Answer>> {
        self.batch.push(answer);
        (self.batch.len() >= MAX_BATCH).then(|| core::mem::take(&mut self.batch))
    }
}
