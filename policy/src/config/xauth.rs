//! Extended authentication in `[[auth]]`: `xauth` with `user` and `password`, or with `users`.

use super::auth::{Reported, one_path};
use super::keys::PASSWORD;
use super::model::{AuthMethod, PasswordSource, Xauth};
use super::object::Object;
use super::source::Located;
use crypto::Secret;

/// How often a peer may try unless the record says it.
const TRIES: u8 = 3;
/// Octets of the longest name or password.
const LONGEST: usize = 255;

/// Reads `xauth` and what belongs to it. `methods` are those of the record.
pub(super) fn read(object: &mut Object<'_, '_, '_>, methods: &[AuthMethod]) -> Result<Option<Xauth>, Reported> {
    let Some(Located { value: client, at }) = object.one_of("xauth", &[("client", true), ("server", false)]) else {
        let stray = ["user", PASSWORD, "password_file", "users", "tries"].into_iter().find(|key| object.has(key));
        if let Some(key) = stray.filter(|_| !object.has("xauth")) {
            let at = object.key_span(key);
            let side = if matches!(key, "users" | "tries") { "server" } else { "client" };
            object.error(at, format!("`{key}` without `xauth`")).suggest(format!("add xauth = \"{side}\""));
            return Err(Reported);
        }
        return if object.has("xauth") { Err(Reported) } else { Ok(None) };
    };
    // Only these methods have a number for it (draft-ietf-ipsec-isakmp-xauth-06 7.2).
    let unnumbered = methods.iter().find(|m| matches!(m, AuthMethod::Signature(row) if row.keyword != "rsasig"));
    if let Some(method) = unnumbered {
        object
            .error(at, format!("`xauth` is there for PSK, RSASIG and HYBRID; IKEv1 has no number for it with {method}"))
            .suggest("take RSASIG, HYBRID or PSK as `method`");
        return Err(Reported);
    }
    let others: &[&str] = if client { &["users", "tries"] } else { &["user", PASSWORD, "password_file"] };
    if let Some(key) = others.iter().find(|key| object.has(key)) {
        let at = object.key_span(key);
        let (is, of) = if client { ("client", "server") } else { ("server", "client") };
        object.error(at, format!("`{key}` is of an XAUTH {of}, but `xauth` is {is}"));
        return Err(Reported);
    }
    if client { of_client(object).map(Some) } else { of_server(object).map(Some) }
}

fn of_client(object: &mut Object<'_, '_, '_>) -> Result<Xauth, Reported> {
    if !object.has("user") {
        object.missing("`user` is missing; expected the name that the peer asks for").suggest("add user = \"alice\"");
        return Err(Reported);
    }
    let user = object.string("user", "the name that the peer asks for").ok_or(Reported)?;
    if user.value.is_empty() || user.value.len() > LONGEST || user.value.chars().any(char::is_control) {
        object
            .error(user.at, format!("`user` is not a name; expected 1 to {LONGEST} octets without control characters"));
        return Err(Reported);
    }
    let password = match (object.has(PASSWORD), object.has("password_file")) {
        (true, true) => {
            let at = object.key_span("password_file");
            object.error(at, "`password` and `password_file` are both there; expected one of them");
            return Err(Reported);
        }
        (false, false) => {
            object
                .missing("`password_file` is missing; expected the file of the user's password")
                .suggest("add password_file = \"/etc/caponier/password\", readable by root alone");
            return Err(Reported);
        }
        (true, false) => {
            let text = object.string(PASSWORD, "text").ok_or(Reported)?;
            if text.value.is_empty() || text.value.len() > LONGEST {
                object.error(text.at, format!("`{PASSWORD}` is empty or too long; expected 1 to {LONGEST} octets"));
                return Err(Reported);
            }
            PasswordSource::Given(Secret::copy_of(text.value.as_bytes()))
        }
        (false, true) => PasswordSource::File(one_path(object, "password_file")?),
    };
    Ok(Xauth::Client { user: user.value.to_owned(), password })
}

fn of_server(object: &mut Object<'_, '_, '_>) -> Result<Xauth, Reported> {
    if !object.has("users") {
        object
            .missing("`users` is missing; expected the file of users who may come in")
            .suggest("add users = \"/etc/caponier/users\"; `ipsec_config user NAME` prints a line for it");
        return Err(Reported);
    }
    let users = one_path(object, "users")?;
    let tries = match object.has("tries") {
        true => object.integer("tries", 1..=10).and_then(|n| u8::try_from(n.value).ok()).ok_or(Reported)?,
        false => TRIES,
    };
    Ok(Xauth::Server { users, tries })
}
