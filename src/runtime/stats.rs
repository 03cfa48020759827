//! Counters of one core's poll loop.

/// Counters of the poll loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns in which nothing was received, sent or due.
    pub idle_turns: u64,
    /// Turns without other work in which nothing could be sent because the device's ring was full.
    pub blocked_turns: u64,
    /// Received bursts of at least one frame.
    pub rx_bursts: u64,
    /// Calls that handed frames to the device.
    pub tx_bursts: u64,
    /// Turns that left frames unsent because the device's ring was full.
    pub tx_held: u64,
    /// Frames dropped because the device has not taken any for a second.
    pub tx_jammed: u64,
    /// Events handed to the application.
    pub events: u64,
    /// Times that the core slept.
    pub sleeps: u64,
    /// Sleeps that timed out although a frame had arrived and the port should have woken the core.
    pub late_wakeups: u64,
    /// Frames handed over to the core of their connection.
    pub handed_over: u64,
    /// Frames taken over from other cores.
    pub taken_over: u64,
    /// Frames dropped because the queue to the core of their connection was full.
    pub exchange_full: u64,
    /// Notes to other cores of the group: neighbours, ICMP errors and the like that reached this core and may matter there.
    pub notes_told: u64,
    /// Notes from other cores.
    pub notes_heard: u64,
    /// Of these, reports that concerned a connection here.
    pub notes_heeded: u64,
    /// Notes for which another core's mailbox had no room.
    pub notes_lost: u64,
    /// Messages that were not passed on because there were too many of their kind.
    pub notes_withheld: u64,
}

impl CoreStats {
    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("core_turns", self.turns),
            ("core_idle_turns", self.idle_turns),
            ("core_blocked_turns", self.blocked_turns),
            ("core_rx_bursts", self.rx_bursts),
            ("core_tx_bursts", self.tx_bursts),
            ("core_tx_held", self.tx_held),
            ("core_tx_jammed", self.tx_jammed),
            ("core_events", self.events),
            ("core_sleeps", self.sleeps),
            ("core_late_wakeups", self.late_wakeups),
            ("core_handed_over", self.handed_over),
            ("core_taken_over", self.taken_over),
            ("core_exchange_full", self.exchange_full),
            ("core_notes_told", self.notes_told),
            ("core_notes_heard", self.notes_heard),
            ("core_notes_heeded", self.notes_heeded),
            ("core_notes_lost", self.notes_lost),
            ("core_notes_withheld", self.notes_withheld),
        ]
        .into_iter()
    }
}
