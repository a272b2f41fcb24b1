//! How a producer treats its consumers, and how a consumer joins.

use std::time::Duration;

use super::credentials::PeerPolicy;
use crate::error::{Invalid, Result};

/// How a producer treats its consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Connections at most, of consumers and of those that are still joining. 16.
    pub max_consumers: usize,
    /// When the producer waits for a slot, a consumer that has one and has given none back for so long
    /// is evicted. 750 milliseconds.
    ///
    /// While there is a free slot, or the producer asks for none, a consumer may keep what it has for
    /// as long as it likes.
    pub patience: Duration,
    /// How long a consumer may take from connecting to being ready. 10 seconds.
    pub join_timeout: Duration,
    /// Whose processes may join.
    pub allowed: PeerPolicy,
    /// What becomes of a consumer that is slower than the producer.
    pub pace: Pace,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            max_consumers: 16,
            patience: Duration::from_millis(750),
            join_timeout: Duration::from_secs(10),
            allowed: PeerPolicy::default(),
            pace: Pace::default(),
        }
    }
}

impl ProducerOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.max_consumers == 0 {
            return Err(Invalid::new("options.max_consumers", "is 0").into());
        }
        if self.pace == (Pace::DropFrames { held: 0 }) {
            return Err(Invalid::new("options.pace", "leaves every consumer out of every frame")
                .help("let a consumer hold one slot at least")
                .into());
        }
        Ok(())
    }
}

/// What becomes of a consumer that is slower than the producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Every consumer gets every frame: the slowest sets the pace, and the producer waits.
    #[default]
    EveryFrame,
    /// A consumer that has so many slots gets no more frames until it gives one back. It is told how
    /// many it has missed.
    DropFrames {
        /// How many slots a consumer may have, at least 1. The slots of all consumers together are
        /// fewer than the ring's where the producer shall never wait.
        held: usize,
    },
}

/// How a consumer joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// What the consumer is called in the producer's events, for people only.
    pub name: String,
    /// How long the whole of it may take. 5 seconds.
    pub timeout: Duration,
    /// Whether to wait, within the timeout, for a producer where none listens yet.
    pub wait_for_producer: bool,
    /// Whose producer it may be.
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
