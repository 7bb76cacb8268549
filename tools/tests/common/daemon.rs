//! A control server whose requests a closure answers, and the commands run against it.
#![allow(dead_code, reason = "each test uses its own part")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tools::control::Request;
use tools::control::server::{Responder, Server};

/// Serves until dropped.
pub(crate) struct Daemon {
    dir: Option<TempDir>,
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(mut handler: impl FnMut(Request, Responder) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().to_path_buf();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let (end, mut ended) = oneshot::channel::<()>();
        let (up, is_up) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(&run_dir).unwrap();
                up.send(()).unwrap();
                let (requests, mut incoming) = mpsc::channel(4);
                let mut serving = Box::pin(server.run(requests));
                loop {
                    tokio::select! {
                        () = &mut serving => break,
                        _ = &mut ended => break,
                        Some((request, responder)) = incoming.recv() => {
                            record.lock().unwrap().push(request.clone());
                            handler(request, responder);
                        }
                    }
                }
            });
        });
        is_up.recv().unwrap();
        Self { dir: Some(dir), asked, end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.dir.as_ref().expect("taken only by `stop`").path()
    }

    /// Ends it, and leaves its run directory to be looked at.
    pub(crate) fn stop(mut self) -> TempDir {
        self.dir.take().expect("taken only here")
    }

    pub(crate) fn last_request(&self) -> Option<Request> {
        self.asked.lock().unwrap().last().cloned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs a command with a run directory.
pub(crate) fn run(program: &str, run_dir: &Path, args: &[&str]) -> Output {
    Command::new(program).env("CAPONIER_RUN_DIR", run_dir).args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
