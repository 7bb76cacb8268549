//! Files of certificates, keys and CRLs: PEM, DER and PKCS #12, from octets. Reading
//! the file is the caller's.

use crypto::Secret;
use p12_keystore::Pkcs12Archive;
use pkcs8::EncryptedPrivateKeyInfoRef;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use zeroize::Zeroizing;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Certificates in DER, in the order of the file.
    pub certificates: Vec<Vec<u8>>,
    /// Private keys: PKCS #8, PKCS #1 or SEC 1, decrypted.
    pub keys: Vec<Secret>,
    /// CRLs in DER.
    pub crls: Vec<Vec<u8>>,
}

/// Why a file cannot be read. Holds no part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is nothing of the kind in it.
    #[error("holds no certificate, key or CRL, neither as PEM nor as DER or PKCS #12")]
    Nothing,
    /// PEM that is not PEM.
    #[error("line {line}: {reason}")]
    Pem {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A key or container is encrypted, and no passphrase is there.
    #[error("is encrypted; expected a `passphrase` beside it")]
    Encrypted,
    /// The passphrase is wrong, or the encryption unknown.
    #[error("does not decrypt with the `passphrase`: {0}")]
    Passphrase(String),
}

/// Reads a file, whatever its form.
///
/// # Errors
/// What is wrong with it.
pub fn read(octets: &[u8], passphrase: Option<&Secret>) -> Result<Contents, Unreadable> {
    // A SEQUENCE, with which every form of DER here begins.
    if octets.first() == Some(&0x30) { der(octets, passphrase) } else { pem(octets, passphrase) }
}

fn der(octets: &[u8], passphrase: Option<&Secret>) -> Result<Contents, Unreadable> {
    let mut contents = Contents::default();
    if let Ok((rest, _)) = X509Certificate::from_der(octets)
        && rest.is_empty()
    {
        contents.certificates.push(octets.to_vec());
    } else if let Ok((rest, _)) = CertificateRevocationList::from_der(octets)
        && rest.is_empty()
    {
        contents.crls.push(octets.to_vec());
    } else if is_pkcs12(octets) {
        pkcs12(octets, passphrase, &mut contents)?;
    } else if let Ok(encrypted) = EncryptedPrivateKeyInfoRef::try_from(octets) {
        contents.keys.push(decrypt(&encrypted, passphrase)?);
    } else if is_integer_sequence(octets) {
        // Whether it is a key, and of what kind, is seen when it is to sign.
        contents.keys.push(Secret::copy_of(octets));
    } else {
        return Err(Unreadable::Nothing);
    }
    Ok(contents)
}

/// PKCS #12 begins with version 3, and no private key does (RFC 7292 4).
fn is_pkcs12(octets: &[u8]) -> bool {
    begins_with_version(octets, &[3])
}

/// Private keys begin with version 0 (PKCS #1, PKCS #8) or 1 (SEC 1, PKCS #8 with the public key).
fn is_integer_sequence(octets: &[u8]) -> bool {
    begins_with_version(octets, &[0, 1])
}

/// Whether a SEQUENCE begins with an INTEGER of one octet that is one of `versions`.
fn begins_with_version(octets: &[u8], versions: &[u8]) -> bool {
    let content = match octets {
        [0x30, length, content @ ..] if *length < 0x80 => content,
        // Indefinite length, which only PKCS #12 may have.
        [0x30, 0x80, content @ ..] => content,
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..).unwrap_or_default(),
        _ => return false,
    };
    matches!(content, [0x02, 0x01, version, ..] if versions.contains(version))
}

fn pkcs12(octets: &[u8], passphrase: Option<&Secret>, contents: &mut Contents) -> Result<(), Unreadable> {
    let text = passphrase_text(passphrase)?;
    let archive = Pkcs12Archive::from_pkcs12(octets, &text).map_err(|e| match passphrase {
        Some(_) => Unreadable::Passphrase(e.to_string()),
        None => Unreadable::Encrypted,
    })?;
    contents.certificates.extend(archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()));
    contents.keys.extend(archive.keys.iter().map(|bag| Secret::copy_of(bag.key.as_der())));
    Ok(())
}

/// An empty one where there is none, which some containers have.
fn passphrase_text(passphrase: Option<&Secret>) -> Result<Zeroizing<String>, Unreadable> {
    let octets = passphrase.map_or(&[][..], Secret::expose);
    let text = core::str::from_utf8(octets).map_err(|_| Unreadable::Passphrase("it is not text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn decrypt(key: &EncryptedPrivateKeyInfoRef<'_>, passphrase: Option<&Secret>) -> Result<Secret, Unreadable> {
    let passphrase = passphrase.ok_or(Unreadable::Encrypted)?;
    let clear = key.decrypt(passphrase.expose()).map_err(|e| Unreadable::Passphrase(e.to_string()))?;
    Ok(Secret::copy_of(clear.as_bytes()))
}

/// Whether a label of PEM is one (RFC 7468 2: printable characters of ASCII), and short enough to be shown.
fn is_label(label: &str) -> bool {
    label.len() <= 64 && label.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

/// Labels of PEM (RFC 7468) and what they hold.
fn pem(octets: &[u8], passphrase: Option<&Secret>) -> Result<Contents, Unreadable> {
    let text = core::str::from_utf8(octets).map_err(|_| Unreadable::Nothing)?;
    let mut contents = Contents::default();
    let mut found = false;
    let mut lines = text.lines().enumerate();
    while let Some((begin, line)) = lines.next() {
        let Some(label) = line.trim_end().strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) else {
            continue;
        };
        found = true;
        let wrong = |line: usize, reason: String| Unreadable::Pem { line: line + 1, reason };
        if !is_label(label) {
            let reason = "what this BEGIN names is too long, or has characters that are not printable ASCII";
            return Err(wrong(begin, reason.into()));
        }
        let end = format!("-----END {label}-----");
        let mut block = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
        let mut ended = false;
        for (at, line) in lines.by_ref() {
            let line = line.trim_end();
            if line == end {
                ended = true;
                break;
            }
            if let Some(c) = line.chars().find(|c| !(c.is_ascii_alphanumeric() || "+/=".contains(*c))) {
                let what = if line.contains(':') || line.contains("-----") {
                    "a header, or another BEGIN or END"
                } else {
                    "not base64"
                };
                return Err(wrong(at, format!("`{}` within {label}: {what}", c.escape_default())));
            }
            block.push_str(line);
            block.push('\n');
        }
        if !ended {
            return Err(wrong(begin, format!("there is no `{end}` to this BEGIN")));
        }
        block.push_str(&end);
        block.push('\n');
        let unwrapped = |e: pem_rfc7468::Error| wrong(begin, format!("{label}: {e}"));
        let der = Zeroizing::new(decode(block.as_bytes()).map_err(unwrapped)?);
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => contents.certificates.push(der.to_vec()),
            "X509 CRL" => contents.crls.push(der.to_vec()),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => contents.keys.push(Secret::copy_of(&der)),
            "ENCRYPTED PRIVATE KEY" => {
                let encrypted = EncryptedPrivateKeyInfoRef::try_from(&der[..])
                    .map_err(|e| wrong(begin, format!("{label}: {e}")))?;
                contents.keys.push(decrypt(&encrypted, passphrase)?);
            }
            // Parameters of a curve stand before many keys, and say nothing that the key does not.
            _ => {}
        }
    }
    if !found || (contents.certificates.is_empty() && contents.keys.is_empty() && contents.crls.is_empty()) {
        return Err(Unreadable::Nothing);
    }
    Ok(contents)
}

fn decode(block: &[u8]) -> Result<Vec<u8>, pem_rfc7468::Error> {
    let mut decoder = pem_rfc7468::Decoder::new_detect_wrap(block)?;
    let mut der = Vec::with_capacity(decoder.remaining_len());
    decoder.decode_to_end(&mut der)?;
    Ok(der)
}
