//! Selection of a backend, once per process.

use std::sync::OnceLock;

#[cfg(ipsec_mb)]
use super::ipsec_mb::Arch;

/// Environment variable that overrides the choice.
const VARIABLE: &str = "GANNET_CRYPTO";

/// A family of cipher implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::crypto) enum Backend {
    /// Rust on every CPU, using AES-NI and VAES where available.
    Portable,
    /// intel-ipsec-mb for AES.
    #[cfg(ipsec_mb)]
    IpsecMb(Arch),
    /// Our own kernels for 512-bit AES.
    #[cfg(target_arch = "x86_64")]
    Vaes,
}

impl Backend {
    /// All backends that run on this machine.
    #[cfg(test)]
    pub(in crate::crypto) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(ipsec_mb)]
        all.extend(Arch::available().map(Self::IpsecMb));
        all.extend(vaes());
        all
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(ipsec_mb)]
            Self::IpsecMb(arch) => arch.name(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes => "vaes/avx512",
        }
    }
}

/// intel-ipsec-mb with the best kernels for this machine, if it is built in and any of them run.
fn ipsec_mb() -> Option<Backend> {
    #[cfg(ipsec_mb)]
    return Arch::available().next_back().map(Backend::IpsecMb);
    #[cfg(not(ipsec_mb))]
    None
}

/// Our own kernels, if they run on this machine.
fn vaes() -> Option<Backend> {
    #[cfg(target_arch = "x86_64")]
    if super::vaes::is_available() {
        return Some(Backend::Vaes);
    }
    None
}

/// The backend of this process.
pub(in crate::crypto) fn chosen() -> Backend {
    static CHOSEN: OnceLock<Backend> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wish = std::env::var_os(VARIABLE);
        let wish = wish.as_ref().map(|wish| wish.to_string_lossy());
        let (backend, complaint) = choose(wish.as_deref(), ipsec_mb(), vaes());
        if let Some(complaint) = complaint {
            tracing::warn!("{complaint}; using {}", backend.name());
        }
        backend
    })
}

/// The backend that protects packets in this process, for reports: `"vaes/avx512"`, `"ipsec-mb/avx2"` or `"portable"`.
pub fn backend_name() -> &'static str {
    chosen().name()
}

/// The backend for a requested name, which may be absent or wrong, and a warning if it is wrong.
fn choose(wish: Option<&str>, ipsec_mb: Option<Backend>, vaes: Option<Backend>) -> (Backend, Option<String>) {
    let automatic = vaes.or(ipsec_mb).unwrap_or(Backend::Portable);
    let (backend, reason) = match wish {
        None | Some("") => (Some(automatic), ""),
        Some("portable") => (Some(Backend::Portable), ""),
        Some("vaes") => (vaes, "is not possible: this CPU lacks AVX-512, VAES or VPCLMULQDQ"),
        Some("ipsec-mb") if cfg!(ipsec_mb) => (ipsec_mb, "is not possible: this CPU lacks AES-NI, PCLMULQDQ or SSE4.2"),
        Some("ipsec-mb") if !cfg!(target_arch = "x86_64") => (None, "is not possible: the library is for x86-64 only"),
        Some("ipsec-mb") => (None, "is not possible: this build is without the feature `ipsec-mb`"),
        Some(_) => (None, "is unknown: set it to `portable`, `ipsec-mb` or `vaes`, or unset it"),
    };
    match backend {
        Some(backend) => (backend, None),
        None => (automatic, Some(format!("{VARIABLE}={} {reason}", wish.unwrap_or_default()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_followed_and_a_wrong_one_is_named() {
        let (mb, own) = (ipsec_mb(), vaes());
        let automatic = own.or(mb).unwrap_or(Backend::Portable);
        assert_eq!(choose(None, mb, own), (automatic, None));
        assert_eq!(choose(Some(""), mb, own), (automatic, None));
        assert_eq!(choose(Some("portable"), mb, own), (Backend::Portable, None));
        let (backend, complaint) = choose(Some("openssl"), mb, own);
        assert_eq!(backend, automatic);
        assert!(complaint.unwrap().contains("GANNET_CRYPTO=openssl is unknown"));
        for wish in ["ipsec-mb", "vaes"] {
            let (backend, complaint) = choose(Some(wish), None, None);
            assert_eq!(backend, Backend::Portable);
            assert!(complaint.unwrap().contains(&format!("GANNET_CRYPTO={wish} is not possible")));
        }
        #[cfg(ipsec_mb)]
        for arch in [Arch::Sse, Arch::Avx512] {
            let mb = Backend::IpsecMb(arch);
            assert_eq!(choose(Some("ipsec-mb"), Some(mb), None), (mb, None));
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(choose(Some("vaes"), None, Some(Backend::Vaes)), (Backend::Vaes, None));
    }

    #[test]
    fn the_backend_has_a_name() {
        let names: Vec<_> = Backend::all().into_iter().map(Backend::name).collect();
        assert!(names.contains(&backend_name()), "{names:?}");
    }

    #[cfg(ipsec_mb)]
    #[test]
    fn the_library_is_tested_wherever_it_can_run() {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("aes") {
            let best = ipsec_mb().expect("the library runs");
            assert!(["ipsec-mb/avx2", "ipsec-mb/avx512"].contains(&best.name()));
            for arch in [Arch::Sse, Arch::Avx2] {
                assert!(Backend::all().contains(&Backend::IpsecMb(arch)), "{:?}", Backend::all());
            }
        }
    }
}
