//! NEW_TOKEN frames (RFC 9000 §8.1.3, §19.7): a server's tokens for later connections, and a client's store for them.

use std::sync::Arc;

use crate::base::Side;
use crate::crypto::STATE_NONCE_LEN;
use crate::quic::connection::closing::Fault;
use crate::quic::connection::packet::PacketBuilder;
use crate::quic::connection::sent::SentFrame;
use crate::quic::connection::{Connection, Cx};
use crate::quic::token::{NEW_TOKEN_LEN, TokenScope, TokenStore};
use crate::wire::quic::TransportError;
use crate::wire::quic::frame::Frame;

/// Room that a NEW_TOKEN frame takes.
const ROOM: usize = 1 + 1 + NEW_TOKEN_LEN;

/// Where a client keeps the tokens that it receives.
#[derive(Debug)]
pub(super) struct Keeps {
    store: Arc<dyn TokenStore>,
    server_name: Box<str>,
}

impl Connection {
    /// On a client: takes a token for the server `name` from `store`, and keeps there those that the server sends.
    ///
    /// # Errors
    /// INTERNAL_ERROR if the store panics.
    pub(crate) fn use_tokens(
        &mut self,
        cx: &mut Cx<'_>,
        store: &Arc<dyn TokenStore>,
        name: &str,
    ) -> Result<(), TransportError> {
        let scope = TokenScope { server_name: name, local: self.path.local.ip(), version: self.version };
        let token = cx.scratch.guests.call(|| store.take(scope))?;
        // A longer one would leave too little room for the handshake.
        self.set_token(token.filter(|token| token.len() <= crate::wire::quic::header::MAX_TOKEN).unwrap_or_default());
        self.keeps = Some(Box::new(Keeps { store: store.clone(), server_name: name.into() }));
        Ok(())
    }

    /// On a client that begins again with another version: takes a token of that version, as the other one is not valid
    /// with it (RFC 9369 §5).
    ///
    /// # Errors
    /// INTERNAL_ERROR if the store panics.
    pub(super) fn change_token(&mut self, cx: &mut Cx<'_>) -> Result<(), TransportError> {
        self.set_token(Vec::new());
        let Some(keeps) = self.keeps.take() else { return Ok(()) };
        self.use_tokens(cx, &keeps.store, &keeps.server_name)
    }

    /// Handles a NEW_TOKEN frame, which only servers send (RFC 9000 §19.7).
    pub(super) fn on_new_token(&mut self, cx: &mut Cx<'_>, token: &[u8]) -> Result<(), Fault> {
        if self.side == Side::Server {
            let why = "NEW_TOKEN from a client";
            return Err(Fault::new(TransportError::PROTOCOL_VIOLATION, 0x07, why));
        }
        let Some(Keeps { store, server_name }) = self.keeps.as_deref() else { return Ok(()) };
        let scope = TokenScope { server_name, local: self.path.local.ip(), version: self.version };
        cx.scratch.guests.call(|| store.insert(scope, token))?;
        Ok(())
    }

    /// On a server: the client's address is validated, so that a token can be given to it. Tokens that are already due
    /// are for this address, too.
    pub(super) fn offer_tokens(&mut self, cx: &Cx<'_>) {
        if self.side == Side::Server {
            self.new_tokens_due = cx.scratch.tokens.count();
        }
    }

    /// Appends the NEW_TOKEN frames that are due. A lost one is replaced by another token.
    pub(super) fn put_new_tokens(&mut self, cx: &mut Cx<'_>, builder: &mut PacketBuilder<'_>) {
        while self.new_tokens_due > 0 && builder.room() >= ROOM {
            let mut nonce = [0; STATE_NONCE_LEN];
            cx.rng.fill(&mut nonce);
            let token = cx.scratch.tokens.seal_new(cx.now, self.version, self.path.remote, nonce);
            if !builder.put(&Frame::NewToken { token: &token }, Some(SentFrame::NewToken)) {
                return;
            }
            self.new_tokens_due -= 1;
            cx.stats.new_tokens_sent += 1;
        }
    }
}
