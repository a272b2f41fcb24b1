//! The producer's end of the connection to one consumer, and the events that the producer reports.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::peer;
use super::ring::{HeldSlots, Ring};
use crate::error::{Error, Invalid, Result, counted};
use crate::fd::PeerCredentials;
use crate::ipc::foreign::Foreign;
use crate::ipc::socket::send_message;
use crate::ipc::wire::{FrameToken, LeaveReason, Message, RingInfo};
use crate::ipc::{Receiver, send};

/// The state of the connection to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not sent *join* yet.
    Connected,
    /// It has sent *join* and waits for the answer.
    Joining,
    /// It is being sent the ring; this many messages have been sent.
    Announcing(usize),
    /// It has the ring and imports it.
    Announced,
    /// It gets frames.
    Ready,
}

impl Stage {
    const fn description(self) -> &'static str {
        match self {
            Self::Connected => "has not joined yet",
            Self::Joining => "waits for the ring",
            Self::Announcing(_) => "is being sent the ring",
            Self::Announced => "is not ready yet",
            Self::Ready => "is ready",
        }
    }
}

/// A message that a consumer sent.
#[derive(Debug)]
pub(super) enum ConsumerMessage {
    /// It asks to join.
    Join,
    /// It is ready for frames.
    Ready,
    /// It released this slot.
    Release(usize),
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Disconnect {
    /// A consumer that had joined leaves.
    Left(LeaveKind),
    /// The connection ends before the consumer had joined.
    NotJoined(Error),
    /// The connection was closed before *join*. This is not reported.
    Unused,
    /// The producer has no place for a connection that has not joined. This is not reported.
    NoPlace,
}

impl Disconnect {
    /// Whether the consumer is to blame: it took too long, or violated the protocol.
    pub(super) fn is_offence(&self) -> bool {
        match self {
            Self::Left(LeaveKind::Evicted { .. } | LeaveKind::ProtocolError(_)) => true,
            Self::NotJoined(Error::Invalid(error)) => error.parameter != FULL,
            Self::NotJoined(error) => !matches!(error, Error::Closed { .. }),
            Self::Left(_) | Self::Unused | Self::NoPlace => false,
        }
    }

    /// Returns the reason that is sent to the consumer.
    pub(super) fn reason(&self) -> Option<LeaveReason> {
        match self {
            Self::Left(kind) => kind.reason(),
            Self::NotJoined(Error::Closed { .. }) | Self::Unused => None,
            Self::NotJoined(Error::Timeout { .. }) => Some(LeaveReason::Evicted),
            Self::NotJoined(Error::Invalid(error)) if error.parameter == FULL => {
                Some(LeaveReason::Full)
            }
            Self::NoPlace => Some(LeaveReason::Full),
            Self::NotJoined(_) => Some(LeaveReason::ProtocolError),
        }
    }
}

/// The parameter of the error for a consumer that there is no place for.
const FULL: &str = "options.max_consumers";

/// Returns the error for a consumer that there is no place for.
pub(super) fn full(max_consumers: usize) -> Error {
    Invalid::new(FULL, format!("{} joined already", counted(max_consumers, "consumer"))).into()
}

#[derive(Debug)]
pub(super) struct ConsumerConnection {
    pub(super) id: ConsumerId,
    pub(super) peer: PeerCredentials,
    pub(super) name: String,
    pub(super) held: HeldSlots,
    /// Whether a frame was not sent to it since it last released a slot.
    pub(super) missed: bool,
    socket: Foreign<UnixStream>,
    receiver: Receiver,
    stage: Stage,
    connected: Instant,
}

impl ConsumerConnection {
    pub(super) fn new(
        id: u64,
        socket: Foreign<UnixStream>,
        peer: PeerCredentials,
        slots: usize,
    ) -> Self {
        Self {
            id: ConsumerId(id),
            peer,
            name: String::new(),
            held: HeldSlots::new(slots),
            missed: false,
            socket,
            receiver: Receiver::new(),
            stage: Stage::Connected,
            connected: Instant::now(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether it has no place among the consumers yet.
    pub(super) fn is_newcomer(&self) -> bool {
        matches!(self.stage, Stage::Connected | Stage::Joining)
    }

    /// Whether it waits for the answer to its *join*.
    pub(super) fn waits_for_ring(&self) -> bool {
        self.stage == Stage::Joining
    }

    /// Gives it a place: the ring can be [sent](Self::announce).
    pub(super) fn accept(&mut self) {
        if self.stage == Stage::Joining {
            self.stage = Stage::Announcing(0);
        }
    }

    /// Whether it no longer reads.
    pub(super) fn is_deaf(&self) -> bool {
        peer::is_deaf(&self.socket)
    }

    /// Returns how long it has been joining, or `None` if it has joined.
    pub(super) fn joining(&self) -> Option<Duration> {
        (!self.is_ready()).then(|| self.connected.elapsed())
    }

    /// Whether it has released a frame, as only a working consumer does.
    pub(super) fn is_proven(&self) -> bool {
        self.held.has_released()
    }

    /// Returns the next message, or `None` if none has arrived.
    ///
    /// A consumer can't flood the producer. Each message either changes the stage or releases a
    /// slot that the consumer holds, or it is the last one.
    pub(super) fn read(&mut self) -> Result<Option<ConsumerMessage>, Disconnect> {
        let (message, _descriptor) = match self.receiver.message(&self.socket) {
            Ok(received) => received,
            Err(Error::Timeout { .. }) => return Ok(None),
            Err(error) => return Err(self.disconnect(error)),
        };
        match (self.stage, message) {
            (Stage::Connected, Message::Join { name }) => {
                self.name = name;
                self.stage = Stage::Joining;
                Ok(Some(ConsumerMessage::Join))
            }
            (Stage::Announced, Message::Ready) => {
                self.stage = Stage::Ready;
                Ok(Some(ConsumerMessage::Ready))
            }
            (Stage::Ready, Message::Release(release)) => {
                let slot = self.held.remove(&release).map_err(|error| self.disconnect(error))?;
                self.missed = false;
                Ok(Some(ConsumerMessage::Release(slot)))
            }
            (Stage::Ready, Message::Leave(_)) => Err(Disconnect::Left(LeaveKind::Leave)),
            (_, Message::Leave(_)) => Err(self.disconnect(closed())),
            (stage, message) => {
                let kind = message.kind().name();
                let problem = format!("{kind} from a consumer that {}", stage.description());
                Err(self.disconnect(Invalid::new("message kind", problem).into()))
            }
        }
    }

    /// Sends as much of the ring as the socket has room for. Returns whether all of it was sent.
    pub(super) fn announce(&mut self, ring: &Ring, info: &RingInfo) -> Result<bool, Disconnect> {
        let Stage::Announcing(mut sent) = self.stage else { return Ok(true) };
        let (slots, socket) = (ring.slots.len(), &self.socket);
        let all = 1 + slots + ring.semaphores.len();
        let outcome = loop {
            let sending = if sent == 0 {
                send_message(socket, &Message::Ring(info.clone()), None)
            } else if sent <= slots {
                send(socket, &ring.slots[sent - 1])
            } else if sent < all {
                let semaphore = &ring.semaphores[sent - slots - 1];
                let message = Message::Semaphore(semaphore.info().clone());
                send_message(socket, &message, Some(semaphore.as_fd()))
            } else {
                break Ok(true);
            };
            match sending {
                Ok(()) => sent += 1,
                Err(Error::Timeout { .. }) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        self.stage = if sent == all { Stage::Announced } else { Stage::Announcing(sent) };
        outcome.map_err(|error| self.disconnect(error))
    }

    /// Sends a frame. Returns `false` if the consumer is gone: its last message names the reason,
    /// and is still to be [read](Self::read).
    pub(super) fn send(&mut self, frame: &FrameToken) -> Result<bool, Disconnect> {
        match send_message(&self.socket, &Message::Frame(*frame), None) {
            Ok(()) => {
                self.held.add(frame.slot as usize, frame.sequence);
                Ok(true)
            }
            Err(Error::Closed { .. }) => Ok(false),
            // A socket has room for more frames than a ring has slots, so the consumer does not
            // read.
            Err(Error::Timeout { .. }) => {
                let silent = self.held.silent().unwrap_or_default();
                Err(Disconnect::Left(LeaveKind::Evicted { silent }))
            }
            Err(error) => Err(self.disconnect(error)),
        }
    }

    /// Returns what an error on this connection means.
    pub(super) fn disconnect(&self, error: Error) -> Disconnect {
        let lost = peer::is_lost(&error);
        match self.stage {
            Stage::Ready if lost => Disconnect::Left(LeaveKind::Died),
            Stage::Ready => Disconnect::Left(LeaveKind::ProtocolError(error)),
            Stage::Connected | Stage::Joining if lost => Disconnect::Unused,
            _ if lost => Disconnect::NotJoined(closed()),
            _ => Disconnect::NotJoined(error),
        }
    }

    /// Ends the connection.
    pub(super) fn close(self, reason: Option<LeaveReason>) {
        peer::close(&self.socket, reason);
    }
}

impl AsFd for ConsumerConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn closed() -> Error {
    Error::Closed { what: "the socket before it had joined".into() }
}

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
        /// The name that it joined with.
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
    /// It held slots and released none while the producer waited for one, or for
    /// [other reasons](super#consumers-that-do-not-work) that make room for others; or
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

/// Events that the application has not fetched yet. If there are too many, the oldest
/// [`Event::NotJoined`] is dropped, then the oldest of all.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

/// Maximum number of events that are kept.
const MAX_EVENTS: usize = 1024;

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        tracing::debug!(?event, "session");
        if self.0.len() == MAX_EVENTS {
            // Those of connections that came to nothing first: a flood of them hides no consumer.
            let not_joined = |event: &Event| matches!(event, Event::NotJoined { .. });
            let oldest = self.0.iter().position(not_joined).unwrap_or(0);
            self.0.remove(oldest);
        }
        self.0.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
