//! What a producer is told of its consumers.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// A consumer of one producer. No two in a producer's life are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub(super) u64);

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consumer {}", self.0)
    }
}

/// What happened to a session's consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A consumer is ready: it gets every frame from now on.
    Joined {
        /// Which.
        consumer: ConsumerId,
        /// What it calls itself.
        name: String,
        /// Its process, 0 where that is outside this process's namespace.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// A consumer that had joined is gone. What it had is free, unless others have it too.
    Left {
        /// Which.
        consumer: ConsumerId,
        /// How.
        how: Left,
        /// How many slots it had.
        held: usize,
    },
    /// Somebody connected, and was refused or gone before it had joined.
    NotJoined {
        /// Its process, 0 where that is outside this process's namespace.
        pid: u32,
        /// Its user.
        uid: u32,
        /// Why.
        error: Error,
    },
}

/// How a consumer left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// It said so.
    Leave,
    /// Its socket was closed without a word: its process ended.
    Died,
    /// It had slots and gave none back for so long, while the producer waited for one. Or
    /// [`evict`](super::Producer::evict) was called.
    Evicted {
        /// How long.
        silent: Duration,
    },
    /// It said what makes no sense, or the kernel refused to send to it.
    Broke(Error),
}

/// Events that nobody has asked for yet.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

/// More are not kept: who does not ask loses the oldest.
const KEPT: usize = 1024;

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        tracing::debug!(?event, "session");
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
