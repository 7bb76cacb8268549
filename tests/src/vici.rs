//! strongSwan's control protocol, as much of it as a benchmark needs: commands without the start of a
//! program for each (README of libvici: packets, named requests, flat messages).

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const COMMAND: u8 = 0;
const RESPONSE: u8 = 1;
const KEY_VALUE: u8 = 3;
/// Longest answer that is read.
const LONGEST: usize = 1 << 20;

/// A connection to charon.
#[derive(Debug)]
pub struct Vici(UnixStream);

impl Vici {
    /// Connects.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(stream))
    }

    /// A command with its parameters; `true` if charon says `success = yes`.
    ///
    /// # Errors
    /// The stream's, or that charon does not know the command.
    pub fn command(&mut self, name: &str, parameters: &[(&str, &str)]) -> Result<bool> {
        let mut packet = vec![COMMAND, short(name)?];
        packet.extend(name.as_bytes());
        for (key, value) in parameters {
            packet.extend([KEY_VALUE, short(key)?]);
            packet.extend(key.as_bytes());
            packet.extend(u16::from(short(value)?).to_be_bytes());
            packet.extend(value.as_bytes());
        }
        let length = u32::try_from(packet.len()).map_err(Error::other)?;
        self.0.write_all(&[&length.to_be_bytes()[..], &packet].concat())?;
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix)?;
        let length = u32::from_be_bytes(prefix) as usize;
        if length == 0 || length > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        if answer[0] != RESPONSE {
            return Err(Error::other(format!("charon answers {name} with {}", answer[0])));
        }
        let success = [&[KEY_VALUE, 7][..], b"success", &[0, 3], b"yes"].concat();
        Ok(answer.windows(success.len()).any(|octets| octets == success))
    }
}

fn short(text: &str) -> Result<u8> {
    u8::try_from(text.len()).map_err(Error::other)
}
