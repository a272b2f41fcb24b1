//! Events: what a producer learns about its consumers.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::ipc::wire::LeaveReason;

/// A consumer of one producer. The producer never uses an ID twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub(super) u64);

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consumer {}", self.0)
    }
}

/// A change among the consumers of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A consumer is ready and gets every frame from now on.
    Joined {
        /// The consumer.
        consumer: ConsumerId,
        /// The name that it gave itself.
        name: String,
        /// Its process ID; 0 if it is outside the PID namespace of this process.
        pid: u32,
        /// Its effective user ID.
        uid: u32,
    },
    /// A consumer that had joined is gone. Its slots are free unless other consumers hold them.
    Left {
        /// The consumer.
        consumer: ConsumerId,
        /// How it left.
        kind: LeaveKind,
        /// Number of slots that it held.
        held: usize,
    },
    /// A process connected, but was refused or disconnected before it had joined.
    NotJoined {
        /// Its process ID; 0 if it is outside the PID namespace of this process.
        pid: u32,
        /// Its effective user ID.
        uid: u32,
        /// The reason.
        error: Error,
    },
}

/// How a consumer left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveKind {
    /// It sent *leave*.
    Leave,
    /// Its socket was closed without *leave*, as happens when its process ends.
    Died,
    /// It held slots and released none while the producer waited for one, or
    /// [`evict`](super::Producer::evict) was called.
    Evicted {
        /// Time since its last release, or since it got its first slot.
        silent: Duration,
    },
    /// It violated the protocol, or a system call on its socket failed.
    ProtocolError(Error),
}

impl LeaveKind {
    /// Returns the reason that is sent to the consumer.
    pub(super) fn reason(&self) -> Option<LeaveReason> {
        match self {
            Self::Leave | Self::Died => None,
            Self::Evicted { .. } => Some(LeaveReason::Evicted),
            Self::ProtocolError(_) => Some(LeaveReason::ProtocolError),
        }
    }
}

/// Events that the app has not fetched yet. The oldest are dropped when there are too many.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

/// Maximum number of events that are kept.
const MAX_EVENTS: usize = 1024;

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        tracing::debug!(?event, "session");
        if self.0.len() == MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
