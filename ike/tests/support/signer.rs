//! What stands for the daemon's certificates and keys.

use super::hex;
use crypto::table::Signature;
use policy::config::IdentityPattern;
use policy::trust::{CertificateName, Claim, Distrust, Refusal, Trusted};

/// A key pair of RFC 4754 8, which both sides use here: what a certificate adds is not
/// the engine's concern.
#[derive(Clone)]
pub struct Signer {
    /// SEC 1.
    pub private: Vec<u8>,
    pub public: Vec<u8>,
    /// Stands for a certificate.
    pub certificate: Vec<u8>,
    /// Why this side does not believe its peer.
    pub refusal: Option<Refusal>,
    /// Why this side cannot sign.
    pub broken: Option<String>,
    /// Whether questions are answered at all.
    pub answers: bool,
}

/// What a peer says, as the engine hands it on.
pub struct Statement<'a> {
    pub method: &'a Signature,
    pub hash: &'a [u8],
    pub signature: &'a [u8],
    pub claim: &'a Claim,
    pub certificates: &'a [Vec<u8>],
    pub expected: &'a IdentityPattern,
}

impl Signer {
    /// The one of P-256, for the host called so.
    pub fn p256(name: &str) -> Self {
        let private = "303102010104 20dc51d3866a15bacde33d96f992fca99da7e6ef0934e7097559c27f1614c88a7fa00a06082a8648ce3d\
                       030107";
        let public = "042442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e9706fc98bd7e50211a4a27102fa3549df79\
                      ebcb4bf246b80945cddfe7d509bbfd7d";
        Self::new(name, private, public)
    }

    /// The one of P-384.
    pub fn p384(name: &str) -> Self {
        let private = "303e0201010430 0beb646634ba87735d77ae4809a0ebea865535de4c1e1dcb692e84708e81a5af62e528c38b2a81b353\
                       09668d73524d9fa00706052b81040022";
        let public = "0496281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922\
                      447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca";
        Self::new(name, private, public)
    }

    /// One of RSA, 2048 bits.
    pub fn rsa(name: &str) -> Self {
        let key = (include_bytes!("rsa_private.der").to_vec(), include_bytes!("rsa_public.der").to_vec());
        Self::of(name, key)
    }

    /// The public key of somebody else.
    pub fn other_rsa_public() -> Vec<u8> {
        let mut other = Self::rsa("").public;
        // An octet of the modulus.
        other[100] ^= 2;
        other
    }

    fn new(name: &str, private: &str, public: &str) -> Self {
        Self::of(name, (hex(&private.replace(' ', "")), hex(public)))
    }

    fn of(name: &str, (private, public): (Vec<u8>, Vec<u8>)) -> Self {
        Self {
            private,
            public,
            certificate: format!("certificate of {name}").into_bytes(),
            refusal: None,
            broken: None,
            answers: true,
        }
    }

    pub fn sign(&self, method: &Signature, hash: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let key = method.signing_key(&self.private).map_err(|e| e.to_string())?;
        Ok((vec![self.certificate.clone()], key.sign(hash).map_err(|e| e.to_string())?))
    }

    pub fn judge(&self, said: &Statement<'_>) -> Result<Trusted, Refusal> {
        let refused = |distrust, detail: &str| Refusal {
            distrust,
            certificate: None,
            detail: detail.into(),
            remedy: "see to it".into(),
        };
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if said.method.verify(&self.public, said.hash, said.signature).is_err() {
            return Err(refused(Distrust::BadSignature, "it does not verify"));
        }
        let Claim::Identity(identity) = said.claim else {
            return Err(refused(Distrust::IdentityNotCertified, "a name"));
        };
        if !said.expected.matches(identity) {
            let detail = format!("we expect {}; the peer is {identity}", said.expected);
            return Err(refused(Distrust::WrongIdentity, &detail));
        }
        let subject = said.certificates.first().map(|c| String::from_utf8_lossy(c).into_owned());
        let subject = subject.unwrap_or_default();
        Ok(Trusted {
            identity: identity.clone(),
            certificate: CertificateName { subject, serial: "01".into(), issuer: "CA".into() },
            remarks: vec!["no CRL".into()],
        })
    }
}
