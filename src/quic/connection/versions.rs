//! The version of a connection, from its first packet to the end of the handshake (RFC 9000 §6, RFC 9368, RFC 9369 §4).
//!
//! A server cannot begin its TLS session before it has read the whole ClientHello: the session announces the negotiated
//! version, which depends on the client's transport parameters.

use std::sync::Arc;

use crate::base::Side;
use crate::crypto::{self, DirectionKeys};
use crate::quic::cid::first_dcid;
use crate::quic::config::ClientTls;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::handshake::CRYPTO_FRAME;
use crate::quic::connection::{Connection, Cx};
use crate::quic::crypto_stream::{CryptoRecv, CryptoSend};
use crate::quic::event::CloseReason;
use crate::quic::negotiation::{Negotiation, Reaction};
use crate::quic::recovery::SpaceId;
use crate::quic::stats::DropReason;
use crate::quic::tls::hello::{self, Hello};
use crate::quic::tls::{TlsError, TlsSession};
use crate::wire::quic::header::{self, Parsed};
use crate::wire::quic::params::{TransportParameters, VersionInformation};
use crate::wire::quic::{TransportError, Version};

/// What a connection needs until its handshake is complete.
pub(super) struct Opening {
    negotiation: Negotiation,
    start: Start,
    /// On a server that has changed the version: the keys of Initial packets of the version that the client began with.
    /// They are needed until a Handshake packet shows that the client knows the new one (RFC 9369 §4.1).
    first_keys: Option<Box<DirectionKeys>>,
}

/// What a TLS session begins with.
enum Start {
    /// Of a client, which may have to begin again.
    Client { tls: ClientTls, name: Box<str> },
    /// Of a server that waits for the rest of the ClientHello.
    Server { tls: Arc<rustls::ServerConfig>, hello: Vec<u8> },
    /// It has begun for good.
    Done,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("negotiation", &self.negotiation).finish_non_exhaustive()
    }
}

impl Opening {
    pub(super) fn new(side: Side, version: Version) -> Self {
        Self { negotiation: Negotiation::new(side, version), start: Start::Done, first_keys: None }
    }
}

impl Connection {
    /// Begins the handshake of a client with the server `name`.
    pub(crate) fn begin(&mut self, cx: &mut Cx<'_>, tls: &ClientTls, name: &str) -> Result<(), TlsError> {
        if let Some(opening) = &mut self.opening {
            opening.start = Start::Client { tls: tls.clone(), name: name.into() };
        }
        let params = self.local_params(cx).to_bytes();
        let session = TlsSession::client(tls.of(self.version), self.version, name, params)?;
        self.start_tls(cx, session).map_err(|fault| TlsError::internal(fault.reason))?;
        self.begin_early();
        Ok(())
    }

    /// Lets a server wait for the ClientHello.
    pub(crate) fn await_hello(&mut self, tls: Arc<rustls::ServerConfig>) {
        if let Some(opening) = &mut self.opening {
            opening.start = Start::Server { tls, hello: Vec::new() };
        }
    }

    /// Whether a server has yet to receive the rest of the ClientHello.
    pub(super) fn awaits_hello(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| matches!(opening.start, Start::Server { .. }))
    }

    /// Handles the next bytes of the ClientHello. Begins the TLS session of the version to use when it is complete; these
    /// are the bytes for TLS to read.
    pub(super) fn on_hello(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(opening) = &mut self.opening else { return Ok(None) };
        let Start::Server { tls, hello } = &mut opening.start else { return Ok(None) };
        hello.extend_from_slice(bytes);
        match hello::judge(hello) {
            Hello::Partial => return Ok(None),
            Hello::TooLong => {
                return Err(Fault::new(TransportError::CRYPTO_BUFFER_EXCEEDED, CRYPTO_FRAME, "ClientHello"));
            }
            Hello::Complete if hello::asks_for_compatibility(hello) => {
                let why = "a ClientHello in middlebox compatibility mode";
                return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, CRYPTO_FRAME, why));
            }
            Hello::Complete => {}
        }
        let (tls, hello) = (tls.clone(), std::mem::take(hello));
        opening.start = Start::Done;
        // What is wrong with them is found again when TLS has read them.
        let params =
            hello::transport_parameters(&hello).and_then(|raw| TransportParameters::decode(raw, Side::Client).ok());
        let information = params.and_then(|params| params.version_information);
        let version = opening.negotiation.choose(&self.config.versions, information.as_ref());
        self.change_version(version);
        self.reserve_preferred_id(cx.ids.most_active(2));
        let params = self.local_params(cx).to_bytes();
        let session = cx.scratch.guests.call(|| TlsSession::server(&tls, version, params))?;
        let internal = |error: TlsError| Fault::new(TransportError::INTERNAL_ERROR, CRYPTO_FRAME, error.reason);
        self.start_tls(cx, session.map_err(internal)?)?;
        Ok(Some(hello))
    }

    /// Moves the connection to `version`, which was negotiated, if that is another one.
    fn change_version(&mut self, version: Version) {
        if version == self.version {
            return;
        }
        let dcid = self.first_dcid();
        if self.side == Side::Server
            && let Some(opening) = &mut self.opening
        {
            let first = crypto::initial_direction(self.version, &dcid, Side::Client);
            opening.first_keys = Some(Box::new(first));
        }
        tracing::debug!(conn = %self.id, from = %self.version, to = %version, "version changed");
        self.version = version;
        let keys = crypto::initial_keys(version, &dcid, self.side);
        self.space(SpaceId::Initial).keys = Some(Box::new(keys));
        if let Some(tls) = &mut self.tls {
            tls.set_version(version);
        }
    }

    /// Whether packets of `space` may have `version`. Handshake packets have the negotiated version (RFC 9369 §4.1), and
    /// so do Initial packets, except those that a client sends before it knows it.
    pub(super) fn takes_version(&self, version: Version, space: SpaceId) -> bool {
        if version == self.version {
            return true;
        }
        let Some(opening) = &self.opening else { return false };
        let before = opening.first_keys.is_some() && version == opening.negotiation.chosen();
        before && space == SpaceId::Initial || opening.negotiation.may_become(version, &self.config.versions)
    }

    /// The keys of Initial packets of `version`, which is not the one in use, to be returned to
    /// [`Connection::return_keys`].
    pub(super) fn borrow_keys(&mut self, version: Version) -> Box<DirectionKeys> {
        let kept = self.opening.as_mut().and_then(|opening| opening.first_keys.take());
        kept.unwrap_or_else(|| Box::new(crypto::initial_direction(version, &self.first_dcid(), self.side.peer())))
    }

    /// Returns keys from [`Connection::borrow_keys`].
    pub(super) fn return_keys(&mut self, keys: Box<DirectionKeys>) {
        if self.side == Side::Server
            && let Some(opening) = &mut self.opening
        {
            opening.first_keys = Some(keys);
        }
    }

    /// Handles the authentication of an Initial packet of `version`, which is not the one in use: a client learns that it
    /// was negotiated.
    pub(super) fn on_other_version(&mut self, version: Version) {
        if self.side == Side::Client
            && let Some(opening) = &mut self.opening
        {
            opening.negotiation.learn(version);
            self.change_version(version);
        }
    }

    /// Whether the version changed during the handshake.
    pub(super) fn has_changed_version(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.negotiation.chosen() != self.version)
    }

    /// Handles CRYPTO data from a server, which settles the version (RFC 9369 §4.1).
    pub(super) fn settle_version(&mut self) {
        if let Some(opening) = &mut self.opening {
            opening.negotiation.settle();
        }
    }

    /// The Version Information that we announce.
    pub(super) fn version_information(&self, cx: &mut Cx<'_>) -> Option<VersionInformation> {
        let random = cx.ids.greases().then(|| cx.rng.next_u64());
        self.opening.as_ref().map(|opening| opening.negotiation.information(&self.config.versions, random))
    }

    /// Checks the peer's Version Information (RFC 9368 §4).
    pub(super) fn check_version(&self, params: &TransportParameters) -> Result<(), Fault> {
        let Some(opening) = &self.opening else { return Ok(()) };
        let checked = opening.negotiation.check(params.version_information.as_ref(), &self.config.versions);
        checked.map_err(|why| Fault::new(TransportError::VERSION_NEGOTIATION_ERROR, CRYPTO_FRAME, why))
    }

    /// Handles a Version Negotiation packet. It matters to a client that has received nothing else, if it answers its
    /// first packets (RFC 9000 §6.2, RFC 8999 §6).
    pub(crate) fn handle_version_negotiation(&mut self, cx: &mut Cx<'_>, parsed: &Parsed, data: &[u8]) {
        let answers = self.takes_retry() && parsed.scid == *self.remote_cids.current();
        let versions = &self.config.versions;
        let reaction = match &mut self.opening {
            Some(opening) if answers => opening.negotiation.on_list(versions, header::versions(data)),
            _ => Reaction::Ignore,
        };
        match reaction {
            Reaction::Ignore => cx.stats.drop(DropReason::Unexpected),
            Reaction::GiveUp => self.abandon(CloseReason::VersionMismatch),
            Reaction::StartOver(version) => self.start_over(cx, version),
        }
    }

    /// Begins again with another version (RFC 9368 §2.1). To the application, it is the same connection, and what it has
    /// queued is kept. To the server, it is another one (§2.4), with a new ID and a new handshake.
    fn start_over(&mut self, cx: &mut Cx<'_>, version: Version) {
        let Some(Start::Client { tls, name }) =
            self.opening.as_mut().map(|opening| std::mem::replace(&mut opening.start, Start::Done))
        else {
            return;
        };
        cx.stats.negotiations_followed += 1;
        let dcid = first_dcid(cx.rng);
        if let Some(ids) = &mut self.handshake_ids {
            ids.original_dcid = dcid;
        }
        self.remote_cids.replace_first(dcid);
        self.tls = None;
        self.early_starts_over(cx);
        self.recovery.drain(SpaceId::Initial, |_| {});
        let initial = self.space(SpaceId::Initial);
        (initial.crypto_tx, initial.crypto_rx, initial.probes) = (CryptoSend::default(), CryptoRecv::default(), 0);
        self.change_version(version);
        let internal = |reason: String| Fault::new(TransportError::INTERNAL_ERROR, 0, reason);
        let begun = self.change_token(cx).map_err(|code| internal(code.to_string()));
        if let Err(fault) = begun.and_then(|()| self.begin(cx, &tls, &name).map_err(|error| internal(error.reason))) {
            self.fail(fault);
        }
    }
}
