//! Chains good and bad, each judged by `keys` and by OpenSSL: the verdicts agree, or
//! the row says which rule of IKE (RFC 4945) makes the difference.

use crypto::table::{Hash, Signature};
use keys::Credentials;
use keys::credentials::{File, Files, Statement};
use policy::config::{AuthRecord, Config};
use policy::identity::{Identity, IdentityPattern, NamePattern};
use policy::trust::{Claim, Distrust, Refusal, Trusted};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tests::need::{Need, available};
use tests::pki::{self, Authority, Issued, Kind};
use tests::process;

/// In November 2023.
const NOW: i64 = 1_700_000_000;

/// One row: what a peer shows, what we know, and what comes of it.
struct Row<'a> {
    title: &'a str,
    leaf: &'a Issued,
    /// More certificates of the peer, PEM.
    more: Vec<String>,
    authorities: Vec<String>,
    crls: Vec<String>,
    strict: bool,
    expected: Option<Distrust>,
    /// OpenSSL does not know this rule, which is IKE's.
    only_ours: bool,
}

impl<'a> Row<'a> {
    fn new(title: &'a str, leaf: &'a Issued, root: &Authority, expected: Option<Distrust>) -> Self {
        let authorities = vec![root.certificate()];
        Self { title, leaf, more: vec![], authorities, crls: vec![], strict: false, expected, only_ours: false }
    }

    fn more(mut self, more: &[&Authority]) -> Self {
        self.more = more.iter().map(|a| a.certificate()).collect();
        self
    }

    fn crls(mut self, crls: &[String], strict: bool) -> Self {
        self.crls = crls.to_vec();
        self.strict = strict;
        self
    }

    fn only_ours(mut self) -> Self {
        self.only_ours = true;
        self
    }
}

fn record(crl: bool, strict: bool, more: &str) -> Arc<AuthRecord> {
    let crl = if crl { "crl = \"/crl\"\n" } else { "" };
    let policy = if strict { "strict" } else { "relaxed" };
    let text = format!(
        "[[auth]]\nname = \"peer\"\nremote = \"10.0.0.1\"\ncertificate = \"/c\"\nkey = \"/k\"\nca = \"/ca\"\n\
         {crl}crl_policy = \"{policy}\"\nmethod = \"ECDSA256\"\n{more}"
    );
    let checked = Config::parse(&text, "c").unwrap_or_else(|found| panic!("{}", found[0]));
    Arc::clone(&checked.config.auths[0])
}

fn file<'a>(path: &'a str, text: &str) -> File<'a> {
    File { path: Path::new(path), octets: crypto::Secret::copy_of(text.as_bytes()) }
}

fn credentials(authorities: &[String], crls: &[String], strict: bool) -> Result<Credentials, Vec<String>> {
    let own_root = Authority::root("Our CA", |_| ());
    let own = own_root.issue(Kind::P256, "us.lab", 3, |_| ());
    let record = record(!crls.is_empty(), strict, "");
    let files = Files {
        certificate: Some(file("/c", &own.certificate)),
        key: Some(file("/k", &own.key)),
        authorities: authorities.iter().map(|a| file("/ca", a)).collect(),
        crls: crls.iter().map(|c| file("/crl", c)).collect(),
    };
    Credentials::new(&record, record.certificates.as_ref().expect("files"), files)
}

fn method(kind: Kind) -> &'static Signature {
    let (_, word) = Kind::ALL.iter().find(|(k, _)| *k == kind).expect("a kind");
    Signature::from_hpux(word).expect("a row")
}

/// A hash as long as the signature wants it.
fn hash(method: &Signature) -> Vec<u8> {
    vec![0x5c; method.hash.and_then(Hash::from_keyword).map_or(20, |h| h.len)]
}

/// What the credentials say of a peer that signs with the leaf's key.
fn judge(
    credentials: &Credentials,
    (leaf, kind): (&Issued, Kind),
    certificates: &[Vec<u8>],
    claim: &Claim,
    expected: &IdentityPattern,
) -> Result<Trusted, Refusal> {
    let method = method(kind);
    let hash = hash(method);
    let signature = method.signing_key(&leaf.key_der).and_then(|key| key.sign(&hash)).expect("a signature");
    let statement = Statement { method, hash: &hash, signature: &signature, claim, certificates, expected };
    credentials.judge(&statement, NOW, &[])
}

fn peer() -> Identity {
    Identity::Fqdn("peer.lab".into())
}

fn der(pem: &str) -> Vec<u8> {
    keys::encoding::read(pem.as_bytes(), None).expect("PEM").certificates.remove(0)
}

fn ours(row: &Row<'_>, kind: Kind) -> Result<Trusted, Refusal> {
    let credentials = credentials(&row.authorities, &row.crls, row.strict).expect("good files");
    let certificates: Vec<_> = core::iter::once(row.leaf.der.clone()).chain(row.more.iter().map(|c| der(c))).collect();
    judge(&credentials, (row.leaf, kind), &certificates, &Claim::Identity(peer()), &peer().into())
}

/// Whether `openssl verify` accepts the chain; with the CRLs if they are strict, or if they are all in force.
fn openssl(row: &Row<'_>, directory: &Path) -> Result<(), String> {
    let write = |name: &str, text: &str| pki::write(directory, name, text);
    let mut command = Command::new("openssl");
    command.args(["verify", "-attime", &NOW.to_string(), "-CAfile"]).arg(write("ca.pem", &row.authorities.concat()));
    if !row.more.is_empty() {
        command.arg("-untrusted").arg(write("more.pem", &row.more.concat()));
    }
    if row.strict || !row.crls.is_empty() {
        command.arg("-crl_check_all");
        if !row.crls.is_empty() {
            command.arg("-CRLfile").arg(write("crl.pem", &row.crls.concat()));
        }
    }
    command.arg(write("leaf.pem", &row.leaf.certificate));
    let finished = process::run(&mut command, 20);
    if finished.status.success() { Ok(()) } else { Err(finished.stdout + &finished.stderr) }
}

/// Judges every row, by both.
fn matrix(rows: &[Row<'_>], kind: Kind) {
    let directory = tempfile::tempdir().expect("a directory");
    let judge = available("certificates", &[Need::OpenSsl]);
    for row in rows {
        let verdict = ours(row, kind);
        let title = row.title;
        match (&verdict, row.expected) {
            (Ok(trusted), None) => assert_eq!(trusted.certificate.subject, "C=DE, O=Lab, CN=peer.lab", "{title}"),
            (Err(refusal), Some(expected)) => assert_eq!(refusal.distrust, expected, "{title}: {refusal:?}"),
            _ => panic!("{title}: {verdict:?}, expected {:?}", row.expected),
        }
        if judge {
            let theirs = openssl(row, directory.path());
            assert_eq!(theirs.is_ok(), verdict.is_ok() || row.only_ours, "{title}: we {verdict:?}, OpenSSL {theirs:?}");
        }
    }
}

fn leaf(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    authority.issue(Kind::P256, "peer.lab", 77, change)
}

#[test]
fn every_kind_of_key() {
    let root = Authority::root("Lab CA", |_| ());
    for (kind, word) in Kind::ALL {
        let leaf = root.issue(kind, "peer.lab", 77, |_| ());
        matrix(&[Row::new(word, &leaf, &root, None)], kind);
        // Nobody else's key, and no other hash.
        let other = root.issue(kind, "peer.lab", 78, |_| ());
        let credentials = credentials(&[root.certificate()], &[], false).expect("good files");
        let claim = Claim::Identity(peer());
        let forged = judge(&credentials, (&other, kind), std::slice::from_ref(&leaf.der), &claim, &peer().into());
        assert_eq!(forged.map_err(|r| r.distrust), Err(Distrust::BadSignature), "{word}");
        let negotiated = if kind == Kind::P256 { Kind::P384 } else { Kind::P256 };
        let fresh = root.issue(negotiated, "peer.lab", 79, |_| ());
        let wrong = judge(&credentials, (&fresh, negotiated), std::slice::from_ref(&leaf.der), &claim, &peer().into());
        assert_eq!(wrong.map_err(|r| r.distrust), Err(Distrust::WrongAlgorithm), "{word}");
    }
}

#[test]
fn paths() {
    let root = Authority::root("Lab CA", |_| ());
    let below = root.authority("Below", 20, |_| ());
    let lower = below.authority("Lower", 21, |_| ());
    let other = Authority::root("Other CA", |_| ());
    let no_authority = root.authority("No CA", 22, |p| p.is_ca = IsCa::ExplicitNoCa);
    let shallow = root.authority("Shallow", 23, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_deep = shallow.authority("Too deep", 24, |_| ());
    let narrow = root.authority("Narrow", 25, |p| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".into())];
        p.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
    });
    let unknown_extension = |p: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    };
    let (direct, by_below, by_lower) = (leaf(&root, |_| ()), leaf(&below, |_| ()), leaf(&lower, |_| ()));
    let (by_other, by_forged) = (leaf(&other, |_| ()), leaf(&root.forged(), |_| ()));
    let (by_no_authority, by_too_deep) = (leaf(&no_authority, |_| ()), leaf(&too_deep, |_| ()));
    let (by_shallow, by_narrow) = (leaf(&shallow, |_| ()), leaf(&narrow, |_| ()));
    let odd = leaf(&root, unknown_extension);
    let authority = leaf(&root, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    let unknown = Some(Distrust::UnknownAuthority);
    let broken = Some(Distrust::BrokenChain);
    matrix(
        &[
            Row::new("direct", &direct, &root, None),
            Row::new("one between", &by_below, &root, None).more(&[&below]),
            Row::new("two between, in any order, and others", &by_lower, &root, None)
                .more(&[&other, &below, &lower, &root]),
            Row::new("the one between is missing", &by_below, &root, unknown),
            Row::new("the upper of two is missing", &by_lower, &root, unknown).more(&[&lower]),
            Row::new("another authority", &by_other, &root, unknown),
            Row::new("another authority, which is sent along", &by_other, &root, unknown).more(&[&other]),
            Row::new("the authority's name, with another key", &by_forged, &root, broken),
            Row::new("issued by what is no authority", &by_no_authority, &root, broken).more(&[&no_authority]),
            Row::new("as deep as allowed", &by_shallow, &root, None).more(&[&shallow]),
            Row::new("deeper than allowed", &by_too_deep, &root, broken).more(&[&shallow, &too_deep]),
            Row::new("a name that its issuer must not give", &by_narrow, &root, broken).more(&[&narrow]),
            Row::new("a critical extension of nobody", &odd, &root, Some(Distrust::Malformed)),
            Row::new("an authority itself", &authority, &root, broken).only_ours(),
        ],
        Kind::P256,
    );
}

#[test]
fn dates() {
    let root = Authority::root("Lab CA", |_| ());
    let past = |p: &mut CertificateParams| {
        (p.not_before, p.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2022, 1, 1))
    };
    let future = |p: &mut CertificateParams| p.not_before = date_time_ymd(2030, 1, 1);
    let (old_root, coming_root) = (Authority::root("Old CA", past), Authority::root("Coming CA", future));
    let (old_below, coming_below) = (root.authority("Old", 20, past), root.authority("Coming", 21, future));
    let (old, coming) = (leaf(&root, past), leaf(&root, future));
    let (by_old_below, by_coming_below) = (leaf(&old_below, |_| ()), leaf(&coming_below, |_| ()));
    let (by_old_root, by_coming_root) = (leaf(&old_root, |_| ()), leaf(&coming_root, |_| ()));
    let (expired, not_yet) = (Some(Distrust::Expired), Some(Distrust::NotYetValid));
    let rows = [
        Row::new("CN=peer.lab expired", &old, &root, expired),
        Row::new("CN=peer.lab not yet valid", &coming, &root, not_yet),
        Row::new("CN=Old expired", &by_old_below, &root, expired).more(&[&old_below]),
        Row::new("CN=Coming not yet valid", &by_coming_below, &root, not_yet).more(&[&coming_below]),
        Row::new("CN=Old CA expired", &by_old_root, &old_root, expired),
        Row::new("CN=Coming CA not yet valid", &by_coming_root, &coming_root, not_yet),
    ];
    matrix(&rows, Kind::P256);
    // The one at fault is named, whichever of the chain it is, with the date.
    for row in &rows {
        let refusal = ours(row, Kind::P256).expect_err(row.title);
        let name = row.title.split(' ').take_while(|w| !["expired", "not"].contains(w)).collect::<Vec<_>>().join(" ");
        let subject = refusal.certificate.expect("a certificate").subject;
        assert!(subject.ends_with(&name), "{}: {subject}", row.title);
        let date = if row.expected == expired { "Sat, 1 Jan 2022" } else { "Tue, 1 Jan 2030" };
        assert!(refusal.detail.replace(", 0", ", ").contains(date), "{}: {}", row.title, refusal.detail);
    }
}

#[test]
fn revocation() {
    let root = Authority::root("Lab CA", |_| ());
    let below = root.authority("Below", 20, |_| ());
    let no_crl_signer = root.authority("No CRLs", 21, |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let (direct, by_below, by_other) = (leaf(&root, |_| ()), leaf(&below, |_| ()), leaf(&no_crl_signer, |_| ()));
    let clean = [root.crl(&[1234], 2080), below.crl(&[], 2080)];
    let revoking = [root.crl(&[1234, 77], 2080), below.crl(&[77], 2080)];
    let (revoked, unknown) = (Some(Distrust::Revoked), Some(Distrust::RevocationUnknown));
    let overdue = [root.crl(&[], 2023)];
    let rows = [
        Row::new("clear", &direct, &root, None).crls(&clean[..1], true),
        Row::new("clear, both", &by_below, &root, None).more(&[&below]).crls(&clean, true),
        Row::new("revoked", &direct, &root, revoked).crls(&revoking[..1], true),
        Row::new("revoked by the one between", &by_below, &root, revoked)
            .more(&[&below])
            .crls(&[clean[0].clone(), revoking[1].clone()], true),
        Row::new("the one between is revoked", &by_below, &root, revoked)
            .more(&[&below])
            .crls(&[root.crl(&[20], 2080), clean[1].clone()], true),
        Row::new("no list of the one between", &by_below, &root, unknown).more(&[&below]).crls(&clean[..1], true),
        Row::new("an old list", &direct, &root, unknown).crls(&overdue, true),
        Row::new("a list of somebody else under that name", &direct, &root, unknown)
            .crls(&[root.forged().crl(&[], 2080)], true),
        Row::new("a list of who must not make any", &by_other, &root, unknown)
            .more(&[&no_crl_signer])
            .crls(&[clean[0].clone(), no_crl_signer.crl(&[], 2080)], true),
        Row::new("relaxed: revoked all the same", &direct, &root, revoked).crls(&revoking[..1], false),
        Row::new("relaxed: no list at all", &direct, &root, None),
    ];
    matrix(&rows, Kind::P256);
    assert_eq!(ours(&rows[0], Kind::P256).expect("trusted").remarks, [""; 0]);
    // What a relaxed policy lets pass is said.
    for (row, why) in [
        (&rows[10], "revocation is not checked"),
        (&Row::new("old", &direct, &root, None).crls(&overdue, false), "should have been replaced on Sun, 1 Jan 2023"),
        (&Row::new("no list", &by_below, &root, None).more(&[&below]).crls(&clean[..1], false), "is not known"),
    ] {
        let remarks = ours(row, Kind::P256).expect("trusted").remarks;
        assert!(remarks.iter().any(|r| r.replace(", 0", ", ").contains(why)), "{}: {remarks:?}", row.title);
    }
    let named = ours(&rows[4], Kind::P256).expect_err("revoked").certificate.expect("a certificate");
    assert_eq!((named.subject.as_str(), named.serial.as_str()), ("C=DE, O=Lab, CN=Below", "14"));
}

#[test]
fn usages() {
    let root = Authority::root("Lab CA", |_| ());
    let with = |purposes: Vec<ExtendedKeyUsagePurpose>| leaf(&root, |p| p.extended_key_usages = purposes);
    let ike_intermediate = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 8, 2, 2]);
    let (none, any) = (with(vec![]), with(vec![ExtendedKeyUsagePurpose::Any]));
    let (ike, old) = (with(vec![pki::ipsec_ike()]), with(vec![ExtendedKeyUsagePurpose::ServerAuth, ike_intermediate]));
    let tunnel = with(vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 6])]);
    let server = with(vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    let for_servers =
        root.authority("For servers", 20, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let by_for_servers = leaf(&for_servers, |_| ());
    let used = |usages: Vec<KeyUsagePurpose>| leaf(&root, |p| p.key_usages = usages);
    let (unsaid, repudiation) = (used(vec![]), used(vec![KeyUsagePurpose::ContentCommitment]));
    let encipherment = used(vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyAgreement]);
    let wrong = Some(Distrust::WrongUsage);
    matrix(
        &[
            Row::new("no purpose named", &none, &root, None),
            Row::new("any purpose", &any, &root, None),
            Row::new("ipsecIKE", &ike, &root, None),
            Row::new("iKEIntermediate among others", &old, &root, None),
            Row::new("ipsecTunnel, of old", &tunnel, &root, None),
            Row::new("for TLS only", &server, &root, wrong).only_ours(),
            Row::new("an authority for TLS only", &by_for_servers, &root, wrong).more(&[&for_servers]).only_ours(),
            Row::new("no usage named", &unsaid, &root, None),
            Row::new("nonRepudiation", &repudiation, &root, None),
            Row::new("only to encipher", &encipherment, &root, wrong).only_ours(),
        ],
        Kind::P256,
    );
}

/// RFC 4945 3.1: the identity must be in the certificate, and be the one we want.
#[test]
fn identities() {
    let root = Authority::root("Lab CA", |_| ());
    let address = "192.0.2.7".parse().expect("an address");
    let leaf = leaf(&root, |p| {
        p.subject_alt_names.push(pki::address(address));
        p.subject_alt_names.push(SanType::Rfc822Name("gate@peer.lab".try_into().expect("ASCII")));
    });
    let credentials = credentials(&[root.certificate()], &[], false).expect("good files");
    let verdict = |claim: &Claim, expected: &IdentityPattern| {
        let trusted = judge(&credentials, (&leaf, Kind::P256), std::slice::from_ref(&leaf.der), claim, expected);
        trusted.map(|t| t.identity.to_string()).map_err(|r| r.distrust)
    };
    let subject = keys::Certificate::parse(&leaf.der).expect("a certificate").subject().clone();
    let name = Claim::EncodedName(subject.der().to_vec());
    let pattern = |text: &str| IdentityPattern::Name(NamePattern::parse(text).expect("a pattern"));
    for (claim, expected, what) in [
        (Claim::Identity(peer()), peer().into(), "peer.lab"),
        (Claim::Identity(Identity::Fqdn("PEER.Lab".into())), peer().into(), "PEER.Lab"),
        (Claim::Identity(peer()), IdentityPattern::Fqdn(".lab".into()), "peer.lab"),
        (Claim::Identity(Identity::Address(address)), Identity::Address(address).into(), "192.0.2.7"),
        (
            Claim::Identity(Identity::UserFqdn("gate@peer.lab".into())),
            IdentityPattern::AnyUser("peer.lab".into()),
            "gate@peer.lab",
        ),
        (name.clone(), pattern("C=DE, O=Lab, CN=peer.lab"), "C=DE, O=Lab, CN=peer.lab"),
        (name.clone(), pattern("C=DE, *"), "C=DE, O=Lab, CN=peer.lab"),
    ] {
        assert_eq!(verdict(&claim, &expected), Ok(what.to_owned()));
    }
    let any = pattern("*");
    let other_name = Claim::EncodedName(root.der()[..4].to_vec());
    let root_name = keys::Certificate::parse(&root.der()).expect("a certificate").subject().der().to_vec();
    for (claim, expected, distrust) in [
        // Not its own, whatever we would believe.
        (
            Claim::Identity(Identity::Fqdn("other.lab".into())),
            IdentityPattern::Fqdn(".lab".into()),
            Distrust::IdentityNotCertified,
        ),
        (Claim::Identity(Identity::UserFqdn("peer.lab".into())), any.clone(), Distrust::IdentityNotCertified),
        (Claim::Identity(Identity::KeyId(b"peer.lab".to_vec())), any.clone(), Distrust::IdentityNotCertified),
        (Claim::EncodedName(root_name), any.clone(), Distrust::IdentityNotCertified),
        (other_name, any.clone(), Distrust::IdentityNotCertified),
        (Claim::EncodedName(vec![0x30, 0]), any, Distrust::IdentityNotCertified),
        // Its own, but not whom we want.
        (Claim::Identity(peer()), Identity::Fqdn("gate.lab".into()).into(), Distrust::WrongIdentity),
        (Claim::Identity(peer()), Identity::Address(address).into(), Distrust::WrongIdentity),
        (name, pattern("C=DE, O=Lab"), Distrust::WrongIdentity),
    ] {
        assert_eq!(verdict(&claim, &expected), Err(distrust), "{claim:?}");
    }
}

#[test]
fn what_is_no_certificate() {
    let root = Authority::root("Lab CA", |_| ());
    let leaf = leaf(&root, |_| ());
    let credentials = credentials(&[root.certificate()], &[], false).expect("good files");
    let verdict = |certificates: &[Vec<u8>]| {
        let claim = Claim::Identity(peer());
        judge(&credentials, (&leaf, Kind::P256), certificates, &claim, &peer().into()).map_err(|r| r.distrust)
    };
    assert_eq!(verdict(&[]).err(), Some(Distrust::NoCertificate));
    for bad in [b"".to_vec(), b"certificate".to_vec(), vec![0x30; 5000], [&leaf.der[..], &[0]].concat()] {
        assert_eq!(verdict(&[bad]).err(), Some(Distrust::Malformed));
    }
    // Any octet changed, or the end cut off: refused, and nothing worse.
    for at in 0..leaf.der.len() {
        let mut bent = leaf.der.clone();
        bent[at] ^= 0x41;
        assert!(verdict(&[bent]).is_err(), "octet {at}");
        assert!(verdict(&[leaf.der[..at].to_vec()]).is_err(), "cut at {at}");
    }
    // Many are looked at no further.
    let many: Vec<_> = (0..200).map(|_| root.der()).chain([leaf.der.clone()]).collect();
    assert!(verdict(&many).is_err());
}

/// Files that cannot be used, each with what is said of it.
#[test]
fn files() {
    let root = Authority::root("Lab CA", |_| ());
    let (own, other) = (root.issue(Kind::P256, "us.lab", 3, |_| ()), root.issue(Kind::P256, "us.lab", 4, |_| ()));
    let rsa = root.issue(Kind::Rsa, "us.lab", 5, |_| ());
    let record = record(false, false, "");
    let faults = |certificate: &str, key: Option<&str>, ca: &str| {
        let files = Files {
            certificate: Some(file("/c", certificate)),
            key: key.map(|k| file("/k", k)),
            authorities: vec![file("/ca", ca)],
            crls: vec![],
        };
        match Credentials::new(&record, record.certificates.as_ref().expect("files"), files) {
            Ok(credentials) => format!("good: {}", credentials.subject().expect("a certificate")),
            Err(faults) => faults.join("; "),
        }
    };
    let ca = root.certificate();
    let good = "good: C=DE, O=Lab, CN=us.lab";
    assert_eq!(faults(&own.certificate, Some(&own.key), &ca), good);
    let together = format!("{}\n{}{}", own.key, ca, own.certificate);
    assert_eq!(faults(&together, None, &ca), good, "key and chain in one file");
    let cut = own.certificate.replace("-----END CERTIFICATE-----\n", "");
    let colon = own.certificate.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n", 1);
    for (said, words) in [
        (faults(&own.certificate, Some(&other.key), &ca), "the key in /k does not belong to the certificate of \"C=DE"),
        (faults(&rsa.certificate, Some(&rsa.key), &ca), "has a key for rsasig, and `method` is ECDSA256"),
        (faults(&own.certificate, None, &ca), "/c holds no private key"),
        (faults(&own.key, Some(&own.key), &ca), "`certificate` /c holds no certificate"),
        (faults("nothing", Some(&own.key), &ca), "`certificate` /c holds no certificate, key or CRL"),
        (faults(&cut, Some(&own.key), &ca), "line 1: there is no `-----END CERTIFICATE-----`"),
        (faults(&colon, Some(&own.key), &ca), "line 2: `-` within CERTIFICATE: a header"),
        (faults(&own.certificate, Some(&own.key), &own.certificate), "it is no authority's (basicConstraints)"),
        (faults(&own.certificate, Some(&own.key), &own.key), "`ca` /ca holds no certificate"),
        (faults(&own.certificate, Some(&format!("{}{}", own.key, other.key)), &ca), "holds 2 private keys"),
    ] {
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("MIG") && !said.contains("PRIVATE"), "a key is shown: {said}");
    }
}

/// PKCS #8 with a passphrase and PKCS #12, as OpenSSL writes them.
#[test]
fn encrypted_files() {
    if !available("encrypted files", &[Need::OpenSsl]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let root = Authority::root("Lab CA", |_| ());
    let below = root.authority("Below", 20, |_| ());
    let own = below.issue(Kind::P256, "us.lab", 3, |_| ());
    let (key, certificate) = (pki::write(at, "k.pem", &own.key), pki::write(at, "c.pem", &own.certificate));
    let between = pki::write(at, "b.pem", &below.certificate());
    let openssl =
        |arguments: &[&str]| process::run(Command::new("openssl").current_dir(at).args(arguments), 20).ok("openssl");
    let path = |p: &Path| p.to_str().expect("text").to_owned();
    openssl(&["pkcs8", "-topk8", "-in", &path(&key), "-out", "k8.pem", "-passout", "pass:open sesame"]);
    openssl(&[
        "pkcs8",
        "-topk8",
        "-in",
        &path(&key),
        "-outform",
        "DER",
        "-out",
        "k8.der",
        "-passout",
        "pass:open sesame",
    ]);
    let export = ["pkcs12", "-export", "-inkey", &path(&key), "-in", &path(&certificate), "-certfile", &path(&between)];
    openssl(&[&export[..], &["-out", "new.p12", "-passout", "pass:open sesame"]].concat());
    openssl(&[&export[..], &["-out", "old.p12", "-passout", "pass:open sesame", "-legacy"]].concat());
    let read = |name: &str| std::fs::read(at.join(name)).expect("a file");
    let load = |passphrase: Option<&str>, certificate: Vec<u8>, key: Option<Vec<u8>>| {
        let line = passphrase.map(|p| format!("passphrase = \"{p}\"")).unwrap_or_default();
        let record = record(false, false, &line);
        let octets = |o: Vec<u8>| crypto::Secret::new(o);
        let files = Files {
            certificate: Some(File { path: Path::new("/c"), octets: octets(certificate) }),
            key: key.map(|k| File { path: Path::new("/k"), octets: octets(k) }),
            authorities: vec![file("/ca", &root.certificate())],
            crls: vec![],
        };
        let loaded = Credentials::new(&record, record.certificates.as_ref().expect("files"), files);
        loaded.map_err(|faults| faults.join("; "))
    };
    for name in ["k8.pem", "k8.der"] {
        assert!(load(Some("open sesame"), own.der.clone(), Some(read(name))).is_ok(), "{name}");
        let wrong = load(Some("sesame"), own.der.clone(), Some(read(name))).expect_err(name);
        assert!(wrong.contains("`key` /k does not decrypt with the `passphrase`"), "{wrong}");
        let without = load(None, own.der.clone(), Some(read(name))).expect_err(name);
        assert!(without.contains("is encrypted; expected a `passphrase`"), "{without}");
    }
    for name in ["new.p12", "old.p12"] {
        let credentials = load(Some("open sesame"), read(name), None).expect(name);
        let signed = credentials.sign(method(Kind::P256), &hash(method(Kind::P256))).expect("a signature");
        assert_eq!(signed.certificates, [own.der.clone(), below.der()], "{name}: with the one between");
        assert!(load(Some("sesame"), read(name), None).is_err(), "{name}");
        assert!(load(None, read(name), None).is_err(), "{name}");
    }
}
