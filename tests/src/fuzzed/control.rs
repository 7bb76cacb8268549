//! Frames of the control socket, as the daemon and the commands read them.

use super::Reached;
use tools::control::frame::{self, Error};
use tools::control::{MAX_REPLY, MAX_REQUEST, Reply, Request};

pub(super) const PLACES: &[&str] =
    &["request", "reply", "several", "too long", "truncated", "another version", "malformed"];

/// Messages of one stream that are read.
const MOST: usize = 16;

/// The first octet says who reads the stream that the others are.
pub(super) fn run(input: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let Some((&who, stream)) = input.split_first() else { return reached };
    if who % 2 == 0 {
        read::<Request>(stream, MAX_REQUEST, "request", &mut reached);
    } else {
        read::<Reply>(stream, MAX_REPLY, "reply", &mut reached);
    }
    reached
}

fn read<T>(mut stream: &[u8], limit: usize, what: &'static str, reached: &mut Reached)
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + core::fmt::Debug,
{
    for nth in 0..MOST {
        match frame::read::<T>(&mut stream, limit) {
            Ok(None) => return,
            Ok(Some(message)) => {
                reached.note(if nth == 0 { what } else { "several" });
                // What is written is read again, as long as it fits: numbers may take more room than they came in.
                if let Ok(octets) = frame::encode(&message, limit) {
                    let again = frame::read::<T>(&mut &octets[..], limit).expect("our own message");
                    assert_eq!(again.as_ref(), Some(&message));
                }
            }
            Err(error) => {
                reached.note(match &error {
                    Error::TooLong { .. } => "too long",
                    Error::Truncated => "truncated",
                    Error::Version { .. } => "another version",
                    Error::Malformed(_) => "malformed",
                    Error::Io(e) => panic!("no stream in memory fails: {e}"),
                });
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}
