//! Messages on a stream: a length, then JSON.

use super::{VERSION, Versioned};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// Octets of the length before each message.
pub const PREFIX: usize = 4;

/// Why a message could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than this side sends or accepts.
    #[error("a message of {length} octets is longer than the {limit} allowed")]
    TooLong {
        /// Octets of the message.
        length: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// The stream ended inside a message.
    #[error("the other side hung up in the middle of a message")]
    Truncated,
    /// Written in another version of the protocol.
    #[error("the other side speaks version {theirs} of the control protocol, this one version {VERSION}")]
    Version {
        /// The other side's version.
        theirs: u32,
    },
    /// Not the JSON that was expected.
    #[error("a message is not understood: {0}")]
    Malformed(serde_json::Error),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A message as it goes on the stream.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; PREFIX];
    serde_json::to_writer(&mut out, &Versioned { version: VERSION, message }).map_err(Error::Malformed)?;
    let length = out.len() - PREFIX;
    match u32::try_from(length) {
        Ok(prefix) if length <= limit => {
            out[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
            Ok(out)
        }
        _ => Err(Error::TooLong { length, limit }),
    }
}

/// Length of the message that follows a prefix.
pub fn length(prefix: [u8; PREFIX], limit: usize) -> Result<usize, Error> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length <= limit { Ok(length) } else { Err(Error::TooLong { length, limit }) }
}

/// The message in `body`. Its version is looked at first, since the rest of another version need
/// not make sense.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let VersionOnly { version: theirs } = serde_json::from_slice(body).map_err(Error::Malformed)?;
    if theirs != VERSION {
        return Err(Error::Version { theirs });
    }
    serde_json::from_slice::<Versioned<T>>(body).map(|v| v.message).map_err(Error::Malformed)
}

/// Reads one message; `None` if the stream ends before it begins.
pub fn read<T: DeserializeOwned>(from: &mut impl io::Read, limit: usize) -> Result<Option<T>, Error> {
    let mut prefix = [0; PREFIX];
    let mut filled = 0;
    while filled < PREFIX {
        match from.read(&mut prefix[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(Error::Truncated),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut body = vec![0; length(prefix, limit)?];
    from.read_exact(&mut body).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated,
        _ => Error::Io(e),
    })?;
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_REQUEST, Request};
    use super::*;

    #[test]
    fn a_message_survives_the_stream() {
        let bytes = encode(&Request::Status, MAX_REQUEST).unwrap();
        assert_eq!(&bytes[4..], br#"{"version":1,"message":{"request":"status"}}"#);
        let mut stream = &bytes[..];
        assert_eq!(read(&mut stream, MAX_REQUEST).unwrap(), Some(Request::Status));
        assert_eq!(read::<Request>(&mut stream, MAX_REQUEST).unwrap(), None);
    }

    #[test]
    fn a_message_cut_anywhere_is_truncated() {
        let bytes = encode(&Request::Status, MAX_REQUEST).unwrap();
        for end in 1..bytes.len() {
            let error = read::<Request>(&mut &bytes[..end], MAX_REQUEST).unwrap_err();
            assert!(matches!(error, Error::Truncated), "cut at {end}: {error}");
        }
    }

    #[test]
    fn a_long_message_is_neither_sent_nor_read() {
        assert!(matches!(encode(&Request::Status, 10), Err(Error::TooLong { length: 44, limit: 10 })));
        let huge = [0xff; 8];
        let error = read::<Request>(&mut &huge[..], MAX_REQUEST).unwrap_err();
        assert!(matches!(error, Error::TooLong { length: 0xffff_ffff, limit: MAX_REQUEST }));
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        let other = br#"{"version":2,"message":{"request":"whatever"}}"#;
        assert!(matches!(decode::<Request>(other), Err(Error::Version { theirs: 2 })));
        let unknown = br#"{"version":1,"message":{"request":"whatever"}}"#;
        assert!(matches!(decode::<Request>(unknown), Err(Error::Malformed(_))));
        assert!(matches!(decode::<Request>(b"GET / HTTP/1.0"), Err(Error::Malformed(_))));
    }
}
