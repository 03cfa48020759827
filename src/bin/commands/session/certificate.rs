//! Finds what clients would reject in a server's certificate.

use std::net::IpAddr;
use std::time::Duration;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};

/// The problems of certificate `der` for a server at `addrs`. `now` is the time since 1970.
pub fn problems(der: &[u8], addrs: &[IpAddr], now: Duration) -> Vec<String> {
    // rustls has accepted it, so this is not expected to fail.
    let Ok((_, cert)) = X509Certificate::from_der(der) else {
        return vec!["it is damaged; clients will refuse it".into()];
    };
    let mut found = Vec::new();
    let (from, until) = (cert.validity().not_before, cert.validity().not_after);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if until.timestamp() < now {
        found.push(format!("it expired on {until}; clients will refuse it: renew it"));
    } else if from.timestamp() > now {
        found.push(format!("it is not valid before {from}; clients will refuse it until then: is the clock correct?"));
    }
    if cert.version() != X509Version::V3 {
        found.push("it is not an X.509 version 3 certificate; clients will refuse it".into());
    }
    if cert.is_ca() {
        found.push("it is a CA certificate (CA:TRUE); many clients will refuse it: create one with CA:FALSE".into());
    }
    found.extend(uncovered(&cert, addrs));
    found
}

/// Reports server addresses that the certificate does not cover.
fn uncovered(cert: &X509Certificate<'_>, addrs: &[IpAddr]) -> Option<String> {
    let names = cert.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let covers = |addr: &IpAddr| {
        names.iter().any(|name| match (name, addr) {
            (GeneralName::IPAddress(bytes), IpAddr::V4(addr)) => *bytes == addr.octets(),
            (GeneralName::IPAddress(bytes), IpAddr::V6(addr)) => *bytes == addr.octets(),
            _ => false,
        })
    };
    let missing: Vec<String> = addrs.iter().filter(|addr| !covers(addr)).map(IpAddr::to_string).collect();
    if missing.is_empty() {
        return None;
    }
    let dns = names.iter().filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None });
    let dns: Vec<&str> = dns.collect();
    let missing = missing.join(", ");
    Some(if dns.is_empty() {
        format!(
            "it does not cover {missing}: clients will refuse it there; create one with subjectAltName=IP:{missing}"
        )
    } else {
        let dns = dns.join(", ");
        format!("it covers {dns} but not {missing}: clients have to use the name (gannet get: --server-name)")
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_790_000_000);

    fn cert(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn of(der: &[u8], addrs: &[&str]) -> String {
        let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        problems(der, &addrs, NOW).join("; ")
    }

    #[test]
    fn what_clients_refuse_is_told() {
        let good = cert(&["10.77.0.1", "fd00::1", "a.test"], |_| {});
        assert_eq!(of(&good, &["10.77.0.1", "fd00::1"]), "");
        let said = of(&good, &["10.77.0.1", "10.77.0.2"]);
        assert!(said.contains("covers a.test but not 10.77.0.2") && said.contains("--server-name"), "{said}");
        let said = of(&cert(&["10.77.0.9"], |_| {}), &["10.77.0.1"]);
        assert!(said.contains("does not cover 10.77.0.1") && said.contains("subjectAltName=IP:10.77.0.1"), "{said}");
        let ip = ["10.77.0.1"];
        let old = cert(&ip, |params| params.not_after = date_time_ymd(2020, 1, 2));
        assert!(of(&old, &ip).contains("it expired on Jan  2"), "{}", of(&old, &ip));
        let new = cert(&ip, |params| params.not_before = date_time_ymd(2090, 1, 2));
        assert!(of(&new, &ip).contains("not valid before"), "{}", of(&new, &ip));
        let ca = cert(&ip, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(of(&ca, &ip).contains("CA:FALSE"), "{}", of(&ca, &ip));
        assert!(of(b"nonsense", &ip).contains("damaged"));
    }
}
