//! Moving on purpose: by command of a client's application, or to its server's preferred address (RFC 9000 §9.1, §9.2,
//! §9.6).

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::base::Side;
use crate::quic::cid::LocalCids;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::{Connection, Cx, RxMeta};
use crate::quic::path::{Other, Place, Role, Validation};
use crate::wire::quic::TransportError;
use crate::wire::quic::params::Preferred;

/// Why a client cannot use another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MigrateError {
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
    /// Only clients move (RFC 9000 §9).
    #[error("only clients can move to another address")]
    Server,
    /// The handshake is not confirmed yet (RFC 9000 §9).
    #[error("the handshake is not confirmed yet")]
    NotConfirmed,
    /// The server asks its clients to stay at their addresses (RFC 9000 §18.2, `disable_active_migration`).
    #[error("the server asks its clients not to move")]
    Disabled,
    /// The server has an empty connection ID, so that the paths could be linked (RFC 9000 §9.5).
    #[error("the server uses no connection IDs")]
    EmptyId,
    /// The server has issued no ID for another path (RFC 9000 §9.5). It may do so later.
    #[error("the server has issued no connection ID for another path")]
    NoId,
    /// The local and the remote address have different IP versions.
    #[error("one address is IPv4, the other IPv6")]
    Family,
    /// The address is already in use.
    #[error("the connection uses that address")]
    InUse,
    /// Too many paths are being probed.
    #[error("too many paths are being probed")]
    TooMany,
}

impl Connection {
    /// Validates the path from `local`, and moves there if it is valid and `go` is set.
    pub(super) fn use_local(&mut self, local: SocketAddr, go: bool) -> Result<(), MigrateError> {
        self.may_move()?;
        if local == self.path.local {
            return Err(MigrateError::InUse);
        }
        let remote = self.path.remote;
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(MigrateError::Family);
        }
        // The last command counts. If the server's preferred address is still being validated, so is the path to it
        // from the new address (RFC 9000 §9.6.3).
        let mut offered = None;
        if go && let Some(paths) = &mut self.paths {
            for index in 0..paths.others().len() {
                let Some(other) = paths.other(index).filter(|other| other.go) else { continue };
                other.go = false;
                offered = offered.or(Some(other.path.remote).filter(|other| *other != remote));
            }
        }
        self.probe_path(local, remote, go)?;
        if let Some(offered) = offered {
            // Without an ID or room for it, the connection stays with the original address.
            let _ = self.probe_path(local, offered, true);
        }
        Ok(())
    }

    fn may_move(&self) -> Result<(), MigrateError> {
        if !self.is_active() {
            Err(MigrateError::Closed)
        } else if self.side == Side::Server {
            Err(MigrateError::Server)
        } else if !self.confirmed {
            Err(MigrateError::NotConfirmed)
        } else if self.peer.disable_active_migration {
            Err(MigrateError::Disabled)
        } else if self.remote_cids.current().is_empty() {
            Err(MigrateError::EmptyId)
        } else {
            Ok(())
        }
    }

    /// Begins to validate a path, if it is not known yet, with an ID of its own.
    fn probe_path(&mut self, local: SocketAddr, remote: SocketAddr, go: bool) -> Result<(), MigrateError> {
        self.path_work = true;
        let known = self.paths.as_ref().and_then(|paths| paths.find(local, remote));
        if let Some(other) = known.and_then(|index| self.paths_mut().other(index)) {
            other.go = go;
            return Ok(());
        }
        let path = self.new_path(&RxMeta { local, remote, ecn: 0 }, true);
        let same_hosts = path.has_hosts_of(&self.path);
        let cid = self.remote_cids.take_unused().ok_or(MigrateError::NoId)?;
        let mut other = Other::new(path, Some(cid), Role::Probing);
        other.go = go;
        let (index, gone) = self.paths_mut().add(other);
        self.forget(gone);
        let index = index.ok_or(MigrateError::TooMany)?;
        self.remote_cids.tell_again();
        let [pto, larger] = self.validation_times(same_hosts);
        self.paths_mut().validate(Place::Other(index), || Validation::whenever(pto, larger));
        Ok(())
    }

    /// On a server: reserves an ID for its preferred address, if it has one.
    pub(crate) fn reserve_preferred_id(&mut self, most_active: usize) {
        if self.side == Side::Server && !self.config.preferred_address.is_none() && most_active > 1 {
            self.local_cids.issue_preferred();
        }
    }

    /// The preferred address that a server announces (RFC 9000 §9.6.1).
    pub(super) fn preferred_param(&self, cx: &Cx<'_>) -> Option<Preferred> {
        let offer = self.config.preferred_address;
        if self.side != Side::Server || offer.is_none() || !self.local_cids.has_preferred() {
            return None;
        }
        let cid = cx.ids.cid(self.id, LocalCids::PREFERRED);
        Some(Preferred { v4: offer.v4, v6: offer.v6, cid, token: cx.ids.token(&cid) })
    }

    /// Takes a server's preferred address from its transport parameters. Its ID may be used on any path.
    pub(super) fn take_preferred(&mut self, preferred: &Preferred) -> Result<(), Fault> {
        let fault = |_| {
            let why = "preferred address with an invalid connection ID";
            Fault::new(TransportError::TRANSPORT_PARAMETER_ERROR, 0x06, why)
        };
        self.remote_cids.insert(1, 0, preferred.cid, preferred.token).map_err(fault)?;
        // Of the addresses, only the one with the IP version in use can be reached from here.
        let remote = self.path.remote;
        let offered = if remote.is_ipv4() { preferred.v4.map(Into::into) } else { preferred.v6.map(Into::into) };
        let offered = offered.filter(|offered| *offered != remote && is_acceptable(*offered, remote.ip()));
        if let Some(offered) = offered.filter(|_| self.config.follow_preferred_address) {
            self.paths_mut().offered = Some(offered);
        }
        Ok(())
    }

    /// The handshake is confirmed: validates the path to the server's preferred address, to move there (RFC 9000
    /// §9.6.1).
    pub(super) fn accept_offer(&mut self) {
        let offered = self.paths.as_mut().and_then(|paths| paths.offered.take());
        if let Some(offered) = offered {
            // Otherwise, the connection stays where it is.
            let _ = self.probe_path(self.path.local, offered, true);
        }
    }
}

/// Whether a client of a server at `now` follows it to `offered`: not to what cannot be the address of a host, nor from
/// another host to this one (RFC 9000 §21.5.6).
fn is_acceptable(offered: SocketAddr, now: IpAddr) -> bool {
    let ip = offered.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let host = offered.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast;
    host && (!ip.is_loopback() || now.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 §21.5.6.
    #[test]
    fn not_every_address_is_followed() {
        let server: IpAddr = "192.0.2.1".parse().unwrap();
        for (offered, follow) in [
            ("192.0.2.9:443", true),
            ("10.0.0.1:1", true),
            ("192.0.2.9:0", false),
            ("0.0.0.0:443", false),
            ("224.0.0.1:443", false),
            ("255.255.255.255:443", false),
            ("127.0.0.1:443", false),
            ("[::1]:443", false),
            ("[2001:db8::1]:443", true),
        ] {
            assert_eq!(is_acceptable(offered.parse().unwrap(), server), follow, "{offered}");
        }
        assert!(is_acceptable("127.0.0.1:1".parse().unwrap(), "127.0.0.1".parse().unwrap()));
    }
}
