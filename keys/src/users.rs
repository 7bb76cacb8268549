//! Users who may come in by XAUTH, with their passwords as PBKDF2 leaves them.
//!
//! A file of lines `name:pbkdf2-sha256:iterations:salt:derived`, the last two in hexadecimal;
//! `#` begins a comment. All lines have one number of iterations, so that neither an unknown
//! name nor a known one shows in the time that a check takes.

use crypto::{Secret, password};
use std::collections::HashMap;
use std::num::NonZeroU32;

/// The only scheme.
const SCHEME: &str = "pbkdf2-sha256";
/// Iterations of new entries.
const ITERATIONS: u32 = 600_000;
/// Iterations that are accepted: fewer can be guessed, more keep everybody waiting.
const ACCEPTED: core::ops::RangeInclusive<u32> = 10_000..=10_000_000;
/// Octets of the salt of new entries.
pub const SALT_LEN: usize = 16;
/// Octets of the longest name or password.
const LONGEST: usize = 255;

/// The users of one file.
#[derive(Debug)]
pub struct Users {
    entries: HashMap<String, Entry>,
    iterations: NonZeroU32,
    /// Takes the place of who is not there.
    nobody: Entry,
}

#[derive(Debug)]
struct Entry {
    salt: Vec<u8>,
    derived: Secret,
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line; nothing of what stands there.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut entries, mut faults, mut count) = (HashMap::new(), Vec::new(), None);
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match entry(line) {
                Ok((name, iterations, entry)) => {
                    if *count.get_or_insert(iterations) != iterations {
                        faults.push(format!(
                            "line {number} has another number of iterations than those before it; make all with the same"
                        ));
                    }
                    if entries.insert(name.to_owned(), entry).is_some() {
                        faults.push(format!("line {number} has the name of a line before it"));
                    }
                }
                Err(what) => faults.push(format!("line {number} {what}")),
            }
        }
        let Some(iterations) = count.filter(|_| faults.is_empty()) else {
            if faults.is_empty() {
                faults.push("it has no user".to_owned());
            }
            return Err(faults);
        };
        let nobody = Entry { salt: vec![0; SALT_LEN], derived: Secret::new(vec![0; password::DERIVED_LEN]) };
        Ok(Self { entries, iterations, nobody })
    }

    /// Whether that is the password of a user that there is. Takes as long for one that there is not.
    #[must_use]
    pub fn check(&self, name: &str, password: &Secret) -> bool {
        let known = self.entries.get(name);
        let entry = known.unwrap_or(&self.nobody);
        let matches = password::verify(password.expose(), &entry.salt, self.iterations, &entry.derived);
        matches & known.is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none; [`Self::parse`] does not make such.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The line of a user, for the file; `salt` is drawn at random.
///
/// # Errors
/// What is wrong with the name or the password.
pub fn line(name: &str, password: &Secret, salt: [u8; SALT_LEN]) -> Result<String, &'static str> {
    if !is_name(name) {
        return Err(
            "the name is not one: expected 1 to 255 octets without white space, `:`, `#` and control characters",
        );
    }
    if password.is_empty() || password.len() > LONGEST {
        return Err("the password is empty or too long: expected 1 to 255 octets");
    }
    let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
    let derived = password::derive(password.expose(), &salt, iterations);
    Ok(format!("{name}:{SCHEME}:{ITERATIONS}:{}:{}", hexadecimal(&salt), hexadecimal(derived.expose())))
}

fn is_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '#');
    (1..=LONGEST).contains(&name.len()) && !name.contains(odd)
}

fn entry(line: &str) -> Result<(&str, NonZeroU32, Entry), String> {
    let parts: Vec<_> = line.split(':').collect();
    let [name, scheme, iterations, salt, derived] = parts.as_slice() else {
        return Err(format!(
            "has {} parts between colons; expected name:{SCHEME}:iterations:salt:derived",
            parts.len()
        ));
    };
    if !is_name(name) {
        return Err("has a name with white space or control characters, or none".to_owned());
    }
    if *scheme != SCHEME {
        return Err(format!("is not of the scheme {SCHEME}, the only one"));
    }
    let iterations = iterations.parse().ok().filter(|n| ACCEPTED.contains(n)).and_then(NonZeroU32::new);
    let iterations = iterations.ok_or_else(|| {
        format!("has a number of iterations that is not from {} to {}", ACCEPTED.start(), ACCEPTED.end())
    })?;
    let salt =
        octets(salt).filter(|salt| salt.len() >= 8).ok_or("has a salt that is not 8 octets or more in hexadecimal")?;
    let derived = octets(derived)
        .filter(|derived| derived.len() == password::DERIVED_LEN)
        .ok_or_else(|| format!("does not end in {} octets in hexadecimal", password::DERIVED_LEN))?;
    Ok((name, iterations, Entry { salt, derived: Secret::new(derived) }))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn octets(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? << 4 | digit(*b)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::copy_of(text.as_bytes())
    }

    /// With few iterations, so that the test is quick.
    fn quick(name: &str, text: &str) -> String {
        let salt = [7; SALT_LEN];
        let derived = password::derive(text.as_bytes(), &salt, NonZeroU32::new(10_000).unwrap());
        format!("{name}:{SCHEME}:10000:{}:{}", hexadecimal(&salt), hexadecimal(derived.expose()))
    }

    #[test]
    fn whose_password_it_is() {
        let text = format!("# staff\n\n{}\n  {}\n", quick("alice", "wonderland"), quick("bob", "builder"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.check("alice", &secret("wonderland")) && users.check("bob", &secret("builder")));
        for (name, password) in [("alice", "builder"), ("alice", ""), ("Alice", "wonderland"), ("", ""), ("eve", "x")] {
            assert!(!users.check(name, &secret(password)), "{name} {password}");
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = line("alice", &secret("wonderland"), [9; SALT_LEN]).unwrap();
        assert!(!line.contains("wonderland"));
        let users = Users::parse(&line).unwrap();
        assert!(users.check("alice", &secret("wonderland")) && !users.check("alice", &secret("wonderlane")));
        for name in ["", "a b", "a:b", "a#", "a\n"] {
            assert!(super::line(name, &secret("x"), [9; SALT_LEN]).is_err(), "{name:?}");
        }
        assert!(super::line("a", &secret(""), [9; SALT_LEN]).is_err());
    }

    /// Nobody's entry must not be anybody's: its derived octets come of no password that can be sent.
    #[test]
    fn who_is_not_there_has_no_password() {
        let users = Users::parse(&quick("alice", "wonderland")).unwrap();
        assert!(!users.check("nobody", &Secret::new(vec![0; 32])));
    }

    #[test]
    fn what_is_wrong_is_said_by_line() {
        let good = quick("alice", "wonderland");
        let faults = |text: &str| Users::parse(text).unwrap_err().join("\n");
        assert_eq!(faults("# nobody\n"), "it has no user");
        for (bad, words) in [
            ("alice", "line 2 has 1 parts"),
            ("alice:md5:10000:00:00", "line 2 is not of the scheme"),
            ("al ice:pbkdf2-sha256:10000:00:00", "line 2 has a name"),
            ("bob:pbkdf2-sha256:99:0011223344556677:00", "line 2 has a number of iterations that is not from 10000"),
            ("bob:pbkdf2-sha256:10000:0011:00", "line 2 has a salt"),
            ("bob:pbkdf2-sha256:10000:0011223344556677:zz", "line 2 does not end in 32 octets"),
            (&good, "line 2 has the name of a line before it"),
        ] {
            let found = faults(&format!("{good}\n{bad}"));
            assert!(found.contains(words), "{found}");
        }
        let other = quick("bob", "x").replace(":10000:", ":20000:");
        assert!(faults(&format!("{good}\n{other}")).contains("another number of iterations"));
    }
}
