//! The choice of a backend, once per process.

use std::sync::OnceLock;

/// Environment variable that overrides the choice.
const VARIABLE: &str = "GANNET_CRYPTO";

/// A family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::crypto) enum Backend {
    /// Rust on every CPU; AES-NI and VAES where there are any.
    Portable,
    /// intel-ipsec-mb, for AES.
    #[cfg(feature = "ipsec-mb")]
    IpsecMb,
}

impl Backend {
    /// All that run on this machine.
    #[cfg(test)]
    pub(in crate::crypto) fn all() -> Vec<Self> {
        [Some(Self::Portable), ipsec_mb()].into_iter().flatten().collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(feature = "ipsec-mb")]
            Self::IpsecMb => super::ipsec_mb::name().unwrap_or("ipsec-mb"),
        }
    }
}

/// intel-ipsec-mb, if it was built in and runs on this machine.
fn ipsec_mb() -> Option<Backend> {
    #[cfg(feature = "ipsec-mb")]
    if super::ipsec_mb::name().is_some() {
        return Some(Backend::IpsecMb);
    }
    None
}

/// The backend of this process.
pub(in crate::crypto) fn chosen() -> Backend {
    static CHOSEN: OnceLock<Backend> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wish = std::env::var_os(VARIABLE);
        let (backend, complaint) = choose(wish.as_ref().map(|wish| wish.to_string_lossy()).as_deref(), ipsec_mb());
        if let Some(complaint) = complaint {
            eprintln!("gannet: {complaint}; using {}", backend.name());
        }
        backend
    })
}

/// Which kernels protect packets in this process, for reports: `"ipsec-mb/avx512"` or `"portable"`.
pub fn backend_name() -> &'static str {
    chosen().name()
}

/// The backend for a wish that may be empty or wrong, and what is wrong with it.
fn choose(wish: Option<&str>, ipsec_mb: Option<Backend>) -> (Backend, Option<String>) {
    let automatic = ipsec_mb.unwrap_or(Backend::Portable);
    match (wish, ipsec_mb) {
        (None | Some(""), _) => (automatic, None),
        (Some("portable"), _) => (Backend::Portable, None),
        (Some("ipsec-mb"), Some(backend)) => (backend, None),
        (Some("ipsec-mb"), None) => {
            let reason = if cfg!(feature = "ipsec-mb") {
                "this CPU lacks AES-NI, PCLMULQDQ or SSE4.2"
            } else {
                "this build is without the feature `ipsec-mb`"
            };
            (automatic, Some(format!("{VARIABLE}=ipsec-mb is not possible: {reason}")))
        }
        (Some(other), _) => {
            (automatic, Some(format!("{VARIABLE}={other} is unknown: set it to `portable` or `ipsec-mb`, or unset it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_followed_and_a_wrong_one_is_named() {
        let best = ipsec_mb();
        let automatic = best.unwrap_or(Backend::Portable);
        assert_eq!(choose(None, best), (automatic, None));
        assert_eq!(choose(Some(""), best), (automatic, None));
        assert_eq!(choose(Some("portable"), best), (Backend::Portable, None));
        let (backend, complaint) = choose(Some("openssl"), best);
        assert_eq!(backend, automatic);
        assert!(complaint.unwrap().contains("GANNET_CRYPTO=openssl"));
        let (backend, complaint) = choose(Some("ipsec-mb"), None);
        assert_eq!(backend, Backend::Portable);
        assert!(complaint.unwrap().contains("not possible"));
        #[cfg(feature = "ipsec-mb")]
        assert_eq!(choose(Some("ipsec-mb"), Some(Backend::IpsecMb)), (Backend::IpsecMb, None));
    }

    #[test]
    fn the_backend_has_a_name() {
        let names: Vec<_> = Backend::all().into_iter().map(Backend::name).collect();
        assert!(names.contains(&backend_name()), "{names:?}");
    }

    #[cfg(all(feature = "ipsec-mb", target_arch = "x86_64"))]
    #[test]
    fn the_library_is_tested_wherever_it_can_run() {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("aes") {
            let [Backend::Portable, Backend::IpsecMb] = Backend::all()[..] else { panic!("{:?}", Backend::all()) };
            assert!(["ipsec-mb/avx2", "ipsec-mb/avx512"].contains(&Backend::IpsecMb.name()));
        }
    }
}
