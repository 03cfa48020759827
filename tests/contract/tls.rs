//! What applications see of TLS, and decide about it: names, certificates, exporters, groups.

use std::sync::Arc;

use gannet::api::rustls;
use gannet::base::Side;
use gannet::base::time::Duration;
use gannet::crypto::Suite;
use gannet::mem::BufPool;
use gannet::quic::tls::{
    self, Certificates, ClientAuth, ClientTls, ExportError, Group, ServerTls, TlsInfo, TlsOptions, UnknownName,
};
use gannet::quic::{ClientConfig, CloseReason, Endpoint, Event, ServerConfig, TransportConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};

use super::pair::Pair;
use super::world::{Host, client_addr, endpoint_config, server_addr};

/// TLS alert codes (RFC 8446 §6).
const BAD_CERTIFICATE: u64 = 42;
const UNSUPPORTED_CERTIFICATE: u64 = 43;
const REVOKED: u64 = 44;
const UNKNOWN_CA: u64 = 48;
const UNRECOGNIZED_NAME: u64 = 112;
const CERTIFICATE_REQUIRED: u64 = 116;

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority.
struct Ca {
    cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, serial: u64) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(serial.into());
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (vec![cert.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, 1)
    }

    fn client(&self, serial: u64) -> Identity {
        self.issue(&["client.test"], ExtendedKeyUsagePurpose::ClientAuth, serial)
    }

    /// A list in which the certificate with this number is revoked.
    fn crl(&self, serial: u64) -> CertificateRevocationListDer<'static> {
        let revoked = RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2126, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        roots
    }
}

fn options() -> TlsOptions {
    TlsOptions { alpn: vec![b"tls".to_vec()], ..TlsOptions::default() }
}

fn certificates(identities: impl IntoIterator<Item = Identity>) -> Certificates {
    let mut identities = identities.into_iter();
    let (chain, key) = identities.next().unwrap();
    let mut certificates = Certificates::new(chain, key).unwrap();
    identities.for_each(|(chain, key)| certificates.add(chain, key).unwrap());
    certificates
}

/// A client of the server `name`, and the server, that talk to each other until the handshake is over, one way or the
/// other.
fn meet(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: &str,
    transport: TransportConfig,
) -> Pair {
    let server = ServerConfig::new(server, transport.clone()).unwrap();
    let endpoint = Endpoint::new(endpoint_config(Side::Server), Some(server), BufPool::heap());
    let server = Host::new(Side::Server, endpoint);
    let mut host = Host::idle_client();
    let config = ClientConfig::new(client, transport).unwrap();
    let conn = host.endpoint.connect(host.now, &config, name, client_addr(), server_addr());
    host.conn = Some(conn.unwrap());
    let mut pair = Pair { client: host, server };
    pair.talk();
    pair
}

/// What the `Connected` event of a side says about TLS.
fn told(host: &Host) -> Option<Arc<TlsInfo>> {
    host.events.iter().find_map(|(_, event)| match event {
        Event::Connected { tls, .. } => Some(tls.clone()),
        _ => None,
    })
}

/// The TLS alert that ended the connection here.
fn alert(host: &Host) -> Option<u64> {
    host.error().map(|error| error.0 - 0x100)
}

/// The TLS alert with which the peer ended it.
fn alerted(host: &Host) -> Option<u64> {
    match host.closed() {
        Some(CloseReason::PeerTransport { code, .. }) => Some(code - 0x100),
        _ => None,
    }
}

#[test]
fn both_ends_see_what_was_negotiated() {
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let identity = ca.server(&["a.test"]);
    let (shown, who) = (identity.0.clone(), clients.client(7));
    let suites = vec![Suite::ChaCha20Poly1305];
    for groups in [vec![Group::Secp384r1], vec![Group::X25519], vec![Group::X25519MlKem768], vec![]] {
        let wanted = groups.first().copied().unwrap_or(Group::X25519MlKem768);
        let options = TlsOptions { suites: suites.clone(), groups, ..options() };
        let verifier = ClientAuth::required(clients.roots()).verifier(&options).unwrap();
        let identity = (identity.0.clone(), identity.1.clone_key());
        let server = ServerTls::new(&options, Arc::new(certificates([identity]))).with_client_verifier(verifier);
        let client = ClientTls::unverified(&options).with_roots(ca.roots(), vec![]).unwrap();
        let client = client.with_identity(who.0.clone(), who.1.clone_key()).unwrap();
        let pair = meet(server.build().unwrap(), client.build().unwrap(), "A.test", TransportConfig::default());
        let [client, server] = [told(&pair.client).unwrap(), told(&pair.server).unwrap()];
        for info in [&client, &server] {
            assert_eq!((info.suite(), info.group()), (Suite::ChaCha20Poly1305, Some(wanted)));
        }
        assert_eq!((client.server_name(), server.server_name()), (None, Some("a.test")));
        assert_eq!((client.peer_certificates(), server.peer_certificates()), (&shown[..], &who.0[..]));
    }
}

/// What TLS negotiated occupies memory only until the application has seen it, unless it is to be kept.
#[test]
fn what_was_negotiated_is_kept_only_if_wanted() {
    for keep in [false, true] {
        let transport = TransportConfig { keep_tls_info: keep, max_udp_payload: 1200, ..TransportConfig::default() };
        let server = ServerTls::new(&options(), Arc::new(certificates([Ca::new("x").server(&["a.test"])])));
        let client = ClientTls::unverified(&options()).build().unwrap();
        let mut pair = meet(server.build().unwrap(), client, "a.test", transport);
        pair.wait(Duration::from_secs(5));
        for side in [Side::Client, Side::Server] {
            let info = told(pair.host(side)).unwrap();
            pair.events(side);
            assert_eq!(pair.conn(side).tls_info().is_some(), keep, "{side:?}");
            assert_eq!(Arc::strong_count(&info), 1 + usize::from(keep), "{side:?}");
            let exported = pair.conn(side).export_keying_material(&mut [0; 16], b"EXPERIMENTAL", b"");
            assert_eq!(exported, Err(ExportError::NotKept), "without TlsOptions::exporter");
        }
    }
}

/// Both ends compute the same, which depends on label, context, length and connection (RFC 8446 §7.5).
#[test]
fn exported_keying_material_is_shared() {
    let mut all = Vec::new();
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm] {
        let options = TlsOptions { exporter: true, suites: vec![suite], ..options() };
        let server = ServerTls::new(&options, Arc::new(certificates([Ca::new("x").server(&["a.test"])])));
        let client = ClientTls::unverified(&options).build().unwrap();
        let transport = TransportConfig { keep_tls_info: true, ..TransportConfig::default() };
        let mut pair = meet(server.build().unwrap(), client, "a.test", transport);
        pair.wait(Duration::from_secs(5));
        for (label, context) in
            [(&b"EXPERIMENTAL a"[..], &b""[..]), (b"EXPERIMENTAL b", b""), (b"EXPERIMENTAL a", b"c")]
        {
            let mut export = |side| {
                let mut out = [0; 100];
                pair.conn(side).export_keying_material(&mut out, label, context).unwrap();
                out
            };
            let (mine, yours) = (export(Side::Client), export(Side::Server));
            assert_eq!(mine, yours);
            all.push(mine);
        }
        let info = told(&pair.server).unwrap();
        let mut short = [0; 99];
        info.export_keying_material(&mut short, b"EXPERIMENTAL a", b"").unwrap();
        assert_ne!(short[..], all[all.len() - 3][..99], "the length matters");
        let max = if suite == Suite::Aes128Gcm { 255 * 32 } else { 255 * 48 };
        assert_eq!(info.export_keying_material(&mut vec![0; max], &[b'x'; 249], b""), Ok(()));
        let wanted = max + 1;
        let too_much = info.export_keying_material(&mut vec![0; wanted], b"x", b"");
        assert_eq!(too_much, Err(ExportError::TooMuch { wanted, max }));
        assert_eq!(info.export_keying_material(&mut [0], &[b'x'; 250], b""), Err(ExportError::Label(250)));
    }
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

/// The name that a client asks for chooses the certificate. Clients that ask for an unknown one see the first, or are
/// refused; those that ask for none see the first.
#[test]
fn names_choose_certificates() {
    let ca = Ca::new("x");
    let make = |unknown| {
        let names: [&[&str]; 3] = [&["a.test", "192.0.2.2"], &["b.test"], &["*.c.test"]];
        let mut certificates = certificates(names.map(|names| ca.server(names)));
        certificates.on_unknown_name(unknown);
        ServerTls::new(&options(), Arc::new(certificates)).build().unwrap()
    };
    let (lenient, strict) = (make(UnknownName::Default), make(UnknownName::Refuse));
    let verifying = ClientTls::unverified(&options()).with_roots(ca.roots(), vec![]).unwrap().build().unwrap();
    let anyone = ClientTls::unverified(&options()).build().unwrap();
    let meet = |server: &Arc<_>, client: &Arc<_>, name| {
        meet(Arc::clone(server), Arc::clone(client), name, TransportConfig::default())
    };
    for server in [&lenient, &strict] {
        for name in ["a.test", "b.test", "x.c.test", "192.0.2.2"] {
            let pair = meet(server, &verifying, name);
            assert!(told(&pair.client).is_some(), "{name}: {:?}", pair.client.closed());
        }
    }
    let pair = meet(&lenient, &anyone, "d.test");
    assert!(told(&pair.client).is_some());
    assert_eq!(told(&pair.server).unwrap().server_name(), Some("d.test"));
    let pair = meet(&lenient, &verifying, "d.test");
    assert_eq!((alert(&pair.client), alerted(&pair.server)), (Some(BAD_CERTIFICATE), Some(BAD_CERTIFICATE)));
    let pair = meet(&strict, &anyone, "d.test");
    assert_eq!((alert(&pair.server), alerted(&pair.client)), (Some(UNRECOGNIZED_NAME), Some(UNRECOGNIZED_NAME)));
    let why = format!("{}", pair.server.closed().unwrap());
    assert!(why.contains("no certificate for the host name d.test"), "{why}");
}

/// Mutual TLS: clients with a certificate of the right CA are accepted, others are not. Without one, they are if it is
/// optional.
#[test]
fn clients_are_asked_for_certificates() {
    let (ca, clients, others) = (Ca::new("servers"), Ca::new("clients"), Ca::new("others"));
    let (good, revoked, foreign) = (clients.client(7), clients.client(8), others.client(7));
    let not_for_clients = clients.issue(&["client.test"], ExtendedKeyUsagePurpose::ServerAuth, 9);
    let crls = || vec![clients.crl(8)];
    let auths: [(&str, ClientAuth, Option<u64>, Option<u64>); 3] = [
        ("required", ClientAuth::required(clients.roots()), Some(CERTIFICATE_REQUIRED), None),
        ("optional", ClientAuth::optional(clients.roots()), None, None),
        ("revoked", ClientAuth::required(clients.roots()).with_crls(crls()), Some(CERTIFICATE_REQUIRED), Some(REVOKED)),
    ];
    for (what, auth, without, with_revoked) in auths {
        let verifier = auth.verifier(&options()).unwrap();
        let server = ServerTls::new(&options(), Arc::new(certificates([ca.server(&["a.test"])])));
        let server = server.with_client_verifier(verifier).build().unwrap();
        for (identity, wanted) in [
            (Some(&good), None),
            (None, without),
            (Some(&revoked), with_revoked),
            (Some(&foreign), Some(UNKNOWN_CA)),
            (Some(&not_for_clients), Some(UNSUPPORTED_CERTIFICATE)),
        ] {
            let client = ClientTls::unverified(&options());
            let client = match identity {
                Some((chain, key)) => client.with_identity(chain.clone(), key.clone_key()).unwrap(),
                None => client,
            };
            let pair = meet(server.clone(), client.build().unwrap(), "a.test", TransportConfig::default());
            let told = told(&pair.server);
            assert_eq!((alert(&pair.server), alerted(&pair.client)), (wanted, wanted), "{what}");
            assert_eq!(told.is_some(), wanted.is_none(), "{what}");
            let shown = identity.map_or(&[][..], |(chain, _)| chain);
            assert!(told.is_none_or(|told| told.peer_certificates() == shown), "{what}");
        }
    }
}

/// Servers whose certificate is revoked are refused, and so are those of a CA without a list.
#[test]
fn revoked_servers_are_refused() {
    let (ca, other) = (Ca::new("one"), Ca::new("two"));
    let server = ServerTls::new(&options(), Arc::new(certificates([ca.server(&["a.test"])]))).build().unwrap();
    for (crls, alert_code) in [
        (vec![ca.crl(2)], None),
        (vec![ca.crl(1)], Some(REVOKED)),
        (vec![ca.crl(1), other.crl(1)], Some(REVOKED)),
        (vec![other.crl(1)], Some(BAD_CERTIFICATE)),
    ] {
        let client = ClientTls::unverified(&options()).with_roots(ca.roots(), crls).unwrap().build().unwrap();
        let pair = meet(server.clone(), client, "a.test", TransportConfig::default());
        let refused = alert(&pair.client);
        assert_eq!(refused.is_some(), alert_code.is_some(), "{:?}", pair.client.closed());
        if alert_code == Some(REVOKED) {
            assert_eq!(refused, alert_code);
        }
    }
    let bad = ClientAuth::required(ca.roots()).with_crls(vec![b"rubbish".to_vec().into()]).verifier(&options());
    assert!(bad.is_err());
}

/// An application's own verifier: it accepts one certificate.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>, tls::AnyCertificate);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_ne!(end_entity.len(), 0, "a bug in the verifier");
        if *end_entity == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.1.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.1.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.1.supported_verify_schemes()
    }
}

#[test]
fn applications_verify_as_they_like() {
    let identity = Ca::new("x").server(&["a.test"]);
    let right = identity.0[0].clone();
    let server = ServerTls::new(&options(), Arc::new(certificates([identity]))).build().unwrap();
    for (pinned, accepted) in [(right, true), (Ca::new("x").cert, false)] {
        let verifier = Pinned(pinned, tls::AnyCertificate::new(&options().provider()));
        let client = ClientTls::new(&options(), Arc::new(verifier)).build().unwrap();
        let pair = meet(server.clone(), client, "whatever.test", TransportConfig::default());
        assert_eq!(told(&pair.client).is_some(), accepted, "{:?}", pair.client.closed());
        assert_eq!(told(&pair.server).is_some(), accepted, "{:?}", pair.server.closed());
    }
}
