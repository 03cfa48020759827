//! Turns changes of streams into events, one of each kind per stream.

use crate::quic::connection::Connection;
use crate::quic::event::{Event, Notify, OutOfSpace};
use crate::wire::quic::StreamId;

impl Connection {
    /// Whether [`Connection::flush_events`] has something to do.
    pub(crate) fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.streams.dirty.is_empty() || self.datagrams_have_news()
    }

    /// Moves changes of streams into the event queue.
    pub(crate) fn flush_events(&mut self) {
        if self.early.is_some() {
            self.mark_early();
        }
        while let Some(id) = self.streams.dirty.pop() {
            self.flush_stream(id);
            self.streams.remove_if_done(id);
        }
        if self.datagrams.is_some() {
            self.flush_datagrams();
        }
    }

    fn flush_stream(&mut self, id: StreamId) {
        let (mark, sliding) = (self.config.receive_low_water, self.streams.sliding_window());
        let room = self.room();
        let Some(stream) = self.streams.get(id) else { return };
        stream.dirty = false;
        let reported = stream.reported;
        let finish_reported = stream.finish_reported;
        let Some(recv) = &mut stream.recv else { return };
        if recv.is_done() {
            return;
        }
        if recv.is_stopped() {
            // The data is discarded; knowing its end suffices.
            if recv.final_size().is_some() {
                recv.mark_done();
            }
            return;
        }
        let contiguous = recv.contiguous();
        if recv.is_pooled() {
            if contiguous > reported || (recv.is_complete() && !finish_reported) {
                stream.reported = contiguous;
                stream.finish_reported = recv.is_complete();
                self.events.push_back(Event::Readable { id });
            }
            if let Some(code) = recv.reset_ready() {
                // The rest may have been read after the end of the connection, which is its last event.
                if self.is_active() {
                    self.end_by_reset(id, code);
                }
                return;
            }
            recv.slide(sliding);
            // Credit for data consumed earlier may be worth announcing only now that the peer has used up the rest.
            if recv.note_credit() {
                self.streams.queue_control(id);
            }
            return;
        }
        let silent = stream.notify == Notify::WhenComplete && !recv.is_complete();
        if contiguous > reported && stream.notify == Notify::Progress {
            self.events.push_back(Event::Progress { id, contiguous });
            stream.reported = contiguous;
        }
        while !silent && let Some((offset, buf)) = recv.pop_filled() {
            let valid = buf.len();
            self.events.push_back(Event::Buffer { id, buf, offset, valid });
        }
        if let Some(code) = recv.reset_ready() {
            self.end_by_reset(id, code);
        } else if recv.is_complete() {
            while let Some((offset, buf, valid)) = recv.pop_any() {
                self.events.push_back(Event::Buffer { id, buf, offset, valid });
            }
            recv.mark_done();
            self.events.push_back(Event::Finished { id, size: contiguous, placement: recv.placed() });
        } else if let OutOfSpace::Stop(code) = stream.out_of_space
            && recv.is_out_of_space()
        {
            let provided = recv.provided_end();
            self.stop_receiving(id, code);
            self.events.push_back(Event::OutOfSpace { id, provided });
        } else {
            let (mark, aim) = room.provided(mark);
            if let Some((provided_left, wanted)) = recv.take_low(mark, aim) {
                self.events.push_back(Event::ReceiveBufferLow { id, provided_left, wanted });
            }
            if recv.note_credit() {
                self.streams.queue_control(id);
            }
        }
    }
}
