//! The control protocol over a real socket, with clients and daemons that misbehave.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;
#[path = "common/daemon.rs"]
mod daemon;

use daemon::Daemon;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tools::control::client::{self, Error};
use tools::control::server::{BindError, MAX_CLIENTS, Server};
use tools::control::{Answer, MAX_REPLY, Refusal, RefusalKind, Reply, Request, frame, socket_path};
use tools::report::{Filters, Record, Section};

fn everything() -> Request {
    Request::Report { sections: vec![Section::Cache], filters: Filters::default() }
}

fn exchange(run_dir: &Path, bytes: &[u8]) -> Option<Reply> {
    let mut stream = UnixStream::connect(socket_path(run_dir)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    frame::read(&mut stream, MAX_REPLY).unwrap()
}

fn refusal(reply: Option<Reply>) -> Refusal {
    match reply {
        Some(Reply::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_long_answer_streams_in_order() {
    const RECORDS: u64 = 20_000;
    let daemon = Daemon::start(|_, responder| {
        let mut stream = responder.stream();
        std::thread::spawn(move || {
            for number in 1..=RECORDS {
                stream.blocking_send(Record::Cache(Box::new(common::cache_record(number)))).unwrap();
            }
            stream.blocking_finish().unwrap();
        });
    });
    let mut expected = 1;
    for answer in client::ask(daemon.run_dir(), &everything()).unwrap() {
        assert_eq!(answer.unwrap(), Answer::Record(Record::Cache(Box::new(common::cache_record(expected)))));
        expected += 1;
    }
    assert_eq!(expected, RECORDS + 1);
}

#[test]
fn an_answer_at_once_is_split_into_messages() {
    let daemon = Daemon::start(|_, responder| {
        let records = (1..=1000).map(|n| Record::Cache(Box::new(common::cache_record(n))).into()).collect();
        responder.answer(records);
    });
    assert_eq!(client::ask_once(daemon.run_dir(), &everything()).unwrap().len(), 1000);
}

#[test]
fn a_refusal_arrives_whole() {
    let daemon = Daemon::start(|_, responder| {
        responder.refuse(Refusal::new(RefusalKind::NotFound, "no tunnel `x`").next("name one of: b"));
    });
    let error = client::ask_once(daemon.run_dir(), &Request::RekeySa { tunnel: "x".into() }).unwrap_err();
    assert!(matches!(&error, Error::Refused(r) if r.kind == RefusalKind::NotFound));
    assert_eq!(error.to_string(), "no tunnel `x`\nname one of: b");
}

#[test]
fn a_request_dropped_by_the_daemon_is_refused_and_a_cut_answer_is_told() {
    let daemon = Daemon::start(|request, responder| match request {
        Request::Status => drop(responder),
        _ => {
            let mut stream = responder.stream();
            std::thread::spawn(move || {
                for number in 1..=300 {
                    stream.blocking_send(Record::Cache(Box::new(common::cache_record(number)))).unwrap();
                }
                drop(stream);
            });
        }
    });
    let gave_up = |e: &Error| matches!(e, Error::Refused(r) if r.kind == RefusalKind::Failed);
    assert!(gave_up(&client::ask_once(daemon.run_dir(), &Request::Status).unwrap_err()));
    let answers: Vec<_> = client::ask(daemon.run_dir(), &everything()).unwrap().collect();
    assert!(answers.len() > 1 && gave_up(answers.last().unwrap().as_ref().unwrap_err()));
}

#[test]
fn what_is_no_request_is_refused_and_the_daemon_goes_on() {
    let daemon = Daemon::start(|_, responder| responder.done("well"));
    let version = br#"{"version":9,"message":{"request":"from the future"}}"#;
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let refused = refusal(exchange(daemon.run_dir(), &framed(version)));
    assert_eq!(refused.kind, RefusalKind::Version);
    assert!(refused.text.contains("version 9") && refused.text.contains("version 1"), "{}", refused.text);
    for body in [&b"not JSON"[..], b"{}", br#"{"version":1}"#, br#"{"version":1,"message":{"request":"sing"}}"#] {
        assert_eq!(refusal(exchange(daemon.run_dir(), &framed(body))).kind, RefusalKind::Malformed);
    }
    let oversized = refusal(exchange(daemon.run_dir(), &[0xff; 64]));
    assert!(oversized.text.contains("longer than"), "{}", oversized.text);
    // Cut off, empty: nobody is left to be told.
    assert_eq!(exchange(daemon.run_dir(), &framed(version)[..20]), None);
    assert_eq!(exchange(daemon.run_dir(), b""), None);
    assert!(daemon.asked.lock().unwrap().is_empty());
    assert_eq!(client::ask_once(daemon.run_dir(), &Request::Status).unwrap(), [Answer::Done("well".into())]);
}

#[test]
fn silent_clients_hold_up_nobody_until_there_are_too_many() {
    let daemon = Daemon::start(|_, responder| responder.done("well"));
    let connect = || UnixStream::connect(socket_path(daemon.run_dir())).unwrap();
    let mut silent: Vec<_> = (0..MAX_CLIENTS - 1).map(|_| connect()).collect();
    let start = Instant::now();
    assert!(client::ask_once(daemon.run_dir(), &Request::Status).is_ok());
    assert!(start.elapsed() < Duration::from_secs(5));
    silent.push(connect());
    let error = client::ask_once(daemon.run_dir(), &Request::Status).unwrap_err();
    assert!(matches!(&error, Error::Refused(r) if r.kind == RefusalKind::Busy), "{error}");
    silent.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    while client::ask_once(daemon.run_dir(), &Request::Status).is_err() {
        assert!(Instant::now() < deadline, "the places are not free again");
    }
}

#[test]
fn a_client_that_leaves_ends_the_stream() {
    let (told, gone) = std::sync::mpsc::channel();
    let daemon = Daemon::start(move |_, responder| {
        let (mut stream, told) = (responder.stream(), told.clone());
        std::thread::spawn(move || {
            let mut sent = 0u64;
            while stream.blocking_send(Record::Cache(Box::new(common::cache_record(sent)))).is_ok() {
                sent += 1;
            }
            told.send(sent).unwrap();
        });
    });
    let mut answers = client::ask(daemon.run_dir(), &everything()).unwrap();
    assert!(answers.next().unwrap().is_ok());
    drop(answers);
    gone.recv_timeout(Duration::from_secs(5)).expect("the stream is told that the client is gone");
}

#[test]
fn the_socket_is_private_and_goes_with_the_daemon() {
    let daemon = Daemon::start(|_, responder| responder.done("well"));
    let meta = std::fs::metadata(socket_path(daemon.run_dir())).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, rustix::process::geteuid().as_raw()));
    // Nothing else is left beside it but the lock.
    let mut names: Vec<_> = std::fs::read_dir(daemon.run_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["ipsecd.lock", "ipsecd.sock"]);
    let dir = daemon.stop();
    assert!(!socket_path(dir.path()).exists());
}

#[test]
fn last_words_arrive_and_the_socket_stays_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run_dir = dir.path().to_path_buf();
    let (up, is_up) = std::sync::mpsc::channel();
    let clients = std::thread::spawn(move || {
        is_up.recv().unwrap();
        let first = client::ask_once(&run_dir, &Request::Stop).unwrap();
        (first, client::ask_once(&run_dir, &Request::Status).unwrap_err())
    });
    runtime.block_on(async {
        let server = Server::bind(dir.path()).unwrap();
        let (requests, mut incoming) = tokio::sync::mpsc::channel(4);
        tokio::spawn(server.run(requests));
        up.send(()).unwrap();
        let (request, responder) = incoming.recv().await.unwrap();
        assert_eq!(request, Request::Stop);
        drop(incoming);
        responder.done_at_last("farewell").await;
        // The daemon is still cleaning up.
        while !clients.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(socket_path(dir.path()).exists());
    });
    drop(runtime);
    let (first, second) = clients.join().unwrap();
    assert_eq!(first, [Answer::Done("farewell".into())]);
    assert!(matches!(&second, Error::Refused(r) if r.kind == RefusalKind::Busy), "{second}");
    assert!(!socket_path(dir.path()).exists());
}

fn bind(dir: &Path) -> Result<(), BindError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Server::bind(dir).map(drop) })
}

#[test]
fn a_running_daemon_is_not_replaced_a_dead_one_is() {
    let daemon = Daemon::start(|_, responder| responder.done("well"));
    assert!(matches!(bind(daemon.run_dir()), Err(BindError::InUse(_))));
    assert!(client::ask_once(daemon.run_dir(), &Request::Status).is_ok());

    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(socket_path(dir.path())).unwrap());
    assert!(matches!(client::ask_once(dir.path(), &Request::Status), Err(Error::NoDaemon { .. })));
    bind(dir.path()).unwrap();
}

#[test]
fn a_run_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = bind(dir.path()).unwrap_err();
    assert!(matches!(error, BindError::Unsafe { mode: 0o777, .. }), "{error}");
    let made = dir.path().join("a/b");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    bind(&made).unwrap();
    assert_eq!(std::fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
}

/// A daemon that answers any request with these octets, once, and hangs up.
fn answer_with(bytes: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_path(dir.path())).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _: Option<Request> = frame::read(&mut stream, MAX_REPLY).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read(&mut [0]);
    });
    (dir, thread)
}

#[test]
fn the_client_tells_what_is_wrong_with_the_daemon() {
    let ask = |bytes: &[u8]| {
        let (dir, thread) = answer_with(bytes.to_vec());
        let error = client::ask_once(dir.path(), &Request::Status).unwrap_err();
        thread.join().unwrap();
        error
    };
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    assert!(matches!(ask(b""), Error::CutOff { .. }));
    assert!(matches!(ask(&[0, 0]), Error::CutOff { .. }));
    let records = frame::encode(&Reply::Records(vec![Answer::Done("half".into())]), MAX_REPLY).unwrap();
    assert!(matches!(ask(&records), Error::CutOff { .. }));
    assert!(matches!(ask(&framed(br#"{"version":2,"reply":"?"}"#)), Error::Version { theirs: 2, .. }));
    assert!(matches!(ask(&framed(b"{}")), Error::Stream { source: frame::Error::Malformed(_), .. }));
    assert!(matches!(ask(&[0x7f; 16]), Error::Stream { source: frame::Error::TooLong { .. }, .. }));
}

#[test]
fn without_a_daemon_the_error_names_the_socket_and_the_way_to_start_one() {
    let error = client::ask_once(Path::new("/nonexistent/run"), &Request::Status).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/run/ipsecd.sock"), "{error}");
    assert!(error.contains("`ipsecd --config FILE --run-dir /nonexistent/run`"), "{error}");
}
