//! Options of producers and consumers.

use std::time::Duration;

use super::peer::PeerPolicy;
use crate::error::{Invalid, Result};

/// How a producer treats its consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Maximum number of consumers, including those that are joining. Default: 16.
    ///
    /// One that [does not work](super#consumers-that-do-not-work) makes room for another. Up to 64
    /// connections that have not asked to join are kept in addition.
    pub max_consumers: usize,
    /// A consumer that holds slots and has released none for this long is evicted when the producer
    /// waits for a slot, or finishes. Default: 750 milliseconds.
    ///
    /// A consumer may hold its slots indefinitely while there is a free slot, or while the producer
    /// does not ask for one; except in [some cases](super#consumers-that-do-not-work).
    pub evict_after: Duration,
    /// Maximum time from the connection of a consumer to its *ready* message. Default: 10 seconds.
    pub join_timeout: Duration,
    /// The users whose processes may join. Default: the user of this process.
    pub allowed: PeerPolicy,
    /// What happens when a consumer is slower than the producer. Default: the producer waits.
    pub slow_consumer: SlowConsumer,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            max_consumers: 16,
            evict_after: Duration::from_millis(750),
            join_timeout: Duration::from_secs(10),
            allowed: PeerPolicy::default(),
            slow_consumer: SlowConsumer::default(),
        }
    }
}

impl ProducerOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.max_consumers == 0 {
            return Err(Invalid::new("options.max_consumers", "is 0")
                .help("allow at least one consumer")
                .into());
        }
        if self.slow_consumer == (SlowConsumer::DropFrames { max_held: 0 }) {
            return Err(Invalid::new(
                "options.slow_consumer.max_held",
                "is 0: no frame would be sent",
            )
            .help("let a consumer hold at least one slot")
            .into());
        }
        Ok(())
    }

    /// Returns the number of held slots at which a consumer gets no more frames.
    pub(super) fn max_held(&self) -> usize {
        match self.slow_consumer {
            SlowConsumer::Wait => usize::MAX,
            SlowConsumer::DropFrames { max_held } => max_held,
        }
    }
}

/// What happens when a consumer is slower than the producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The producer waits for the slowest consumer. Every consumer gets every frame.
    #[default]
    Wait,
    /// A consumer that holds `max_held` slots gets no frames until it releases one. Afterwards it
    /// can see how many it has [missed](super::Consumer::missed).
    DropFrames {
        /// Maximum number of slots that a consumer holds, at least 1. If the sum over all consumers
        /// is less than the number of slots, the producer never waits.
        max_held: usize,
    },
}

/// How a consumer joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The consumer's name in the producer's events, for people to read. Default: empty.
    pub name: String,
    /// Timeout for connecting and receiving the ring together. Default: 5 seconds.
    pub timeout: Duration,
    /// Whether to wait, within the timeout, for a producer that does not listen yet. Default: true.
    pub wait_for_producer: bool,
    /// The users whose producer is accepted. Default: the user of this process.
    pub allowed: PeerPolicy,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            timeout: Duration::from_secs(5),
            wait_for_producer: true,
            allowed: PeerPolicy::default(),
        }
    }
}
