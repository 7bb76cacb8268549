//! Who a peer is in phase 1 (RFC 2407 4.6.2, RFC 4945 3.1), and patterns of who it may be.

use crate::selector::AddressRange;
use core::fmt;
use std::net::IpAddr;

/// An identity of phase 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_USER_FQDN.
    UserFqdn(String),
    /// ID_DER_ASN1_DN.
    Name(DistinguishedName),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
}

impl Identity {
    /// Whether two identities are the same: names do not depend on case.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::UserFqdn(a), Self::UserFqdn(b)) => a.eq_ignore_ascii_case(b),
            (Self::Name(a), Self::Name(b)) => a.is_same(b),
            _ => self == other,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Fqdn(n) | Self::UserFqdn(n) => f.write_str(n),
            Self::Name(n) => write!(f, "{n}"),
            Self::KeyId(k) => {
                f.write_str("0x")?;
                k.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

/// A distinguished name of X.501: as it is encoded, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DistinguishedName {
    der: Vec<u8>,
    attributes: Vec<NameAttribute>,
}

/// One attribute of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameAttribute {
    /// Its type: a keyword of [`ATTRIBUTES`], or the object identifier with dots.
    pub kind: String,
    /// Its value as text.
    pub value: String,
}

impl DistinguishedName {
    /// A name with its encoding (DER) and its attributes in the order of the encoding.
    #[must_use]
    pub fn new(der: Vec<u8>, attributes: Vec<NameAttribute>) -> Self {
        Self { der, attributes }
    }

    /// The encoding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The attributes in the order of the encoding: the country before the common name.
    #[must_use]
    pub fn attributes(&self) -> &[NameAttribute] {
        &self.attributes
    }

    /// Whether two names are the same, whatever the case and the spaces (RFC 5280 7.1).
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.attributes.len() == other.attributes.len()
            && self.attributes.iter().zip(&other.attributes).all(|(a, b)| a.kind == b.kind && alike(&a.value, &b.value))
    }
}

/// `C=DE, O=Lab, CN=gw.example.com`, a comma or backslash in a value behind a backslash.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attributes.is_empty() {
            return f.write_str("(empty name)");
        }
        for (nth, attribute) in self.attributes.iter().enumerate() {
            let separator = if nth == 0 { "" } else { ", " };
            write!(f, "{separator}{}={}", attribute.kind, escaped(&attribute.value))?;
        }
        Ok(())
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

/// Keywords of attributes with their object identifiers; the first keyword of a type is how it is shown.
pub const ATTRIBUTES: [(&str, &str); 15] = [
    ("C", "2.5.4.6"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("L", "2.5.4.7"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("CN", "2.5.4.3"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("E", "1.2.840.113549.1.9.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("serialNumber", "2.5.4.5"),
    ("T", "2.5.4.12"),
    ("title", "2.5.4.12"),
    ("GN", "2.5.4.42"),
];

/// The keyword of an object identifier, or the identifier itself.
#[must_use]
pub fn attribute_keyword(oid: &str) -> &str {
    ATTRIBUTES.iter().find(|(_, known)| *known == oid).map_or(oid, |(keyword, _)| keyword)
}

/// Equal but for case and the number of spaces (RFC 5280 7.1).
fn alike(a: &str, b: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>();
    words(a) == words(b)
}

/// Which identities a peer may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdentityPattern {
    /// This one.
    Exactly(Identity),
    /// An address of a range.
    Addresses(AddressRange),
    /// A domain name: `.example.com` is everything below, `*` in place of a label any label.
    Fqdn(String),
    /// A mail address of any user, in a domain as of [`IdentityPattern::Fqdn`].
    AnyUser(String),
    /// A distinguished name.
    Name(NamePattern),
}

impl IdentityPattern {
    /// Whether an identity is one of those meant.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Exactly(wanted), given) => wanted.is_same(given),
            (Self::Addresses(range), Identity::Address(given)) => range.contains(*given),
            (Self::Fqdn(wanted), Identity::Fqdn(given)) => domain_matches(wanted, given),
            (Self::AnyUser(wanted), Identity::UserFqdn(given)) => {
                given.rsplit_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain_matches(wanted, domain))
            }
            (Self::Name(wanted), Identity::Name(given)) => wanted.matches(given),
            _ => false,
        }
    }
}

impl From<Identity> for IdentityPattern {
    fn from(identity: Identity) -> Self {
        Self::Exactly(identity)
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(identity) => write!(f, "{identity}"),
            Self::Addresses(range) => write!(f, "{range}"),
            Self::Fqdn(domain) => f.write_str(domain),
            Self::AnyUser(domain) => write!(f, "@{domain}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

fn domain_matches(pattern: &str, name: &str) -> bool {
    if pattern.starts_with('.') {
        return name.len() > pattern.len()
            && name
                .len()
                .checked_sub(pattern.len())
                .and_then(|start| name.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(pattern))
            && !name.starts_with('.');
    }
    let (mut wanted, mut given) = (pattern.split('.'), name.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(w), Some(g)) if !g.is_empty() && (w == "*" || w.eq_ignore_ascii_case(g)) => {}
            _ => return false,
        }
    }
}

/// A distinguished name in which `*` stands for any value, and at the end for
/// any further attributes: HP-UX's subtree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern {
    /// Type and value, `None` for any value.
    attributes: Vec<(String, Option<String>)>,
    /// Further attributes may follow.
    subtree: bool,
}

impl NamePattern {
    /// Reads `C=DE, O=Lab, CN=*`, in the order of the certificate; `C=DE, O=Lab, *` is the subtree.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pattern = Self { attributes: Vec::new(), subtree: false };
        for part in split(text) {
            let part = part.trim();
            if pattern.subtree {
                return Err("has something after the `*` that ends it".to_owned());
            }
            if part == "*" {
                pattern.subtree = true;
                continue;
            }
            let Some((kind, value)) = part.split_once('=') else {
                return Err(format!("has the part `{part}`, which is no TYPE=value"));
            };
            let (kind, value) = (kind.trim(), value.trim());
            if value.is_empty() {
                return Err(format!("has no value for `{kind}`"));
            }
            let known = ATTRIBUTES.iter().find(|(keyword, oid)| keyword.eq_ignore_ascii_case(kind) || *oid == kind);
            let kind = match known {
                Some((_, oid)) => attribute_keyword(oid),
                None if kind.contains('.') && kind.chars().all(|c| c.is_ascii_digit() || c == '.') => kind,
                None => {
                    let mut keywords: Vec<&str> = ATTRIBUTES.iter().map(|(_, oid)| attribute_keyword(oid)).collect();
                    keywords.dedup();
                    return Err(format!(
                        "has the type `{kind}`; expected {}, or an object identifier",
                        keywords.join(", ")
                    ));
                }
            };
            let value = value.replace("\\,", ",").replace("\\\\", "\\");
            pattern.attributes.push((kind.to_owned(), Some(value).filter(|v| v != "*")));
        }
        if pattern.attributes.is_empty() && !pattern.subtree {
            return Err("is empty".to_owned());
        }
        Ok(pattern)
    }

    fn matches(&self, name: &DistinguishedName) -> bool {
        let given = name.attributes();
        let enough =
            if self.subtree { given.len() >= self.attributes.len() } else { given.len() == self.attributes.len() };
        let same = |(kind, wanted): &(String, Option<String>), given: &NameAttribute| {
            *kind == given.kind && wanted.as_ref().is_none_or(|wanted| alike(wanted, &given.value))
        };
        enough && self.attributes.iter().zip(given).all(|(wanted, given)| same(wanted, given))
    }
}

/// Splits at commas that no backslash stands before.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut behind_backslash) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !behind_backslash {
            parts.push(core::mem::take(&mut part));
        } else {
            part.push(c);
        }
        behind_backslash = c == '\\' && !behind_backslash;
    }
    parts.push(part);
    parts
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attribute = |(kind, value): &(String, Option<String>)| {
            format!("{kind}={}", value.as_ref().map_or("*".to_owned(), |v| escaped(v)))
        };
        let mut parts: Vec<_> = self.attributes.iter().map(attribute).collect();
        if self.subtree {
            parts.push("*".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fqdn(name: &str) -> Identity {
        Identity::Fqdn(name.to_owned())
    }

    fn name(attributes: &[(&str, &str)]) -> Identity {
        let attributes =
            attributes.iter().map(|(kind, value)| NameAttribute { kind: (*kind).into(), value: (*value).into() });
        Identity::Name(DistinguishedName::new(Vec::new(), attributes.collect()))
    }

    #[test]
    fn domains() {
        let below = IdentityPattern::Fqdn(".foo.example.com".into());
        assert!(below.matches(&fqdn("a.foo.example.com")) && below.matches(&fqdn("B.a.FOO.example.com")));
        for other in ["foo.example.com", ".foo.example.com", "afoo.example.com", "a.foo.example.com.evil", "com", ""] {
            assert!(!below.matches(&fqdn(other)), "{other}");
        }
        let label = IdentityPattern::Fqdn("*.example.com".into());
        assert!(label.matches(&fqdn("a.example.com")) && label.matches(&fqdn("A.Example.Com")));
        for other in ["example.com", ".example.com", "a.b.example.com", "a.example.org", "a.example.com."] {
            assert!(!label.matches(&fqdn(other)), "{other}");
        }
        let user = |name: &str| Identity::UserFqdn(name.into());
        let anybody = IdentityPattern::AnyUser("example.com".into());
        assert!(anybody.matches(&user("x@example.com")) && anybody.matches(&user("a@b@EXAMPLE.com")));
        assert!(!anybody.matches(&user("@example.com")) && !anybody.matches(&user("x@a.example.com")));
        assert!(!anybody.matches(&fqdn("example.com")), "another type");
        assert!(!below.matches(&user("x@a.foo.example.com")), "another type");
    }

    #[test]
    fn addresses() {
        let range = AddressRange::prefix("10.1.0.0".parse().unwrap(), 16).unwrap();
        let pattern = IdentityPattern::Addresses(range);
        let address = |a: &str| Identity::Address(a.parse().unwrap());
        assert!(pattern.matches(&address("10.1.255.1")));
        assert!(!pattern.matches(&address("10.2.0.1")) && !pattern.matches(&address("::1")));
        assert!(!pattern.matches(&fqdn("10.1.0.1")), "another type");
    }

    #[test]
    fn names() {
        let gateway = name(&[("C", "DE"), ("O", "Lab  One"), ("CN", "gw")]);
        let pattern = |text: &str| IdentityPattern::Name(NamePattern::parse(text).unwrap());
        for text in [
            "C=DE, O=Lab One, CN=gw",
            "c=de,o=lab one,cn=GW",
            "2.5.4.6=DE, O=Lab One, CN=*",
            "C=DE, *",
            "C=DE, O=Lab One, CN=gw, *",
            "*",
        ] {
            assert!(pattern(text).matches(&gateway), "{text}");
        }
        for text in
            ["C=DE, O=Lab One", "CN=gw, O=Lab One, C=DE", "C=DE, O=Lab One, CN=gw, OU=*", "O=Lab One, *", "C=D, *"]
        {
            assert!(!pattern(text).matches(&gateway), "{text}");
        }
        for (text, why) in [
            ("", "no TYPE=value"),
            ("gw", "no TYPE=value"),
            ("CN=", "no value"),
            ("XY=1", "expected C, ST"),
            ("*, CN=gw", "after the `*`"),
        ] {
            let error = NamePattern::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let odd = name(&[("O", "Lab, Inc. \\ Co"), ("1.2.3", "x")]);
        assert_eq!(odd.to_string(), "O=Lab\\, Inc. \\\\ Co, 1.2.3=x");
        assert!(pattern(&odd.to_string()).matches(&odd), "what is shown can be written");
        assert_eq!(pattern("c=DE, o=A\\,B, *").to_string(), "C=DE, O=A\\,B, *");
        assert!(odd.is_same(&name(&[("O", "LAB, inc. \\ co"), ("1.2.3", "X")])));
    }
}
