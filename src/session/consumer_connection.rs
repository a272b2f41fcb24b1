//! The producer's end of one consumer's connection.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::credentials::Credentials;
use super::event::{ConsumerId, Left};
use super::ring::Ring;
use super::slot_table::Held;
use crate::error::{Error, Invalid, Result};
use crate::ipc::wire::{FrameToken, LeaveReason, Message, RingInfo};
use crate::ipc::{Receiver, send, send_message};

/// How far a consumer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has said nothing yet.
    Connected,
    /// It is being sent the ring; so many messages have gone.
    Announcing(usize),
    /// It has the ring, and imports it.
    Announced,
    /// It gets frames.
    Ready,
}

/// What a consumer said.
#[derive(Debug)]
pub(super) enum Said {
    /// It wants to join: [`Link::announce`] sends it the ring.
    Join,
    /// It is ready for frames.
    Ready,
    /// It gave this slot back.
    Release(usize),
}

/// Why a link is over.
#[derive(Debug)]
pub(super) enum Over {
    Left(Left),
    /// Before it had joined.
    NotJoined(Error),
    /// Before it had said anything: nobody's business.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConsumerId,
    pub(super) socket: UnixStream,
    pub(super) peer: Credentials,
    pub(super) name: String,
    pub(super) held: Held,
    receiver: Receiver,
    stage: Stage,
    opened: Instant,
}

impl Link {
    pub(super) fn new(id: u64, socket: UnixStream, peer: Credentials, slots: usize) -> Self {
        Self {
            id: ConsumerId(id),
            socket,
            peer,
            name: String::new(),
            held: Held::new(slots),
            receiver: Receiver::new(),
            stage: Stage::Connected,
            opened: Instant::now(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// How long it has been joining; `None` once it has.
    pub(super) fn joining(&self) -> Option<Duration> {
        (!self.is_ready()).then(|| self.opened.elapsed())
    }

    /// The next thing that the consumer said; `None` where it has said no more.
    ///
    /// A consumer that floods is no danger: each message changes the stage or gives back a slot that
    /// it has, or it is the last one.
    pub(super) fn read(&mut self) -> Result<Option<Said>, Over> {
        let (message, _descriptor) = match self.receiver.message(&self.socket) {
            Ok(received) => received,
            Err(Error::Timeout { .. }) => return Ok(None),
            Err(error) => return Err(self.over(error)),
        };
        match (self.stage, message) {
            (Stage::Connected, Message::Join { name }) => {
                self.name = name;
                self.stage = Stage::Announcing(0);
                Ok(Some(Said::Join))
            }
            (Stage::Announced, Message::Ready) => {
                self.stage = Stage::Ready;
                Ok(Some(Said::Ready))
            }
            (Stage::Ready, Message::Release(release)) => {
                let slot = self.held.take_back(&release).map_err(|error| self.over(error))?;
                Ok(Some(Said::Release(slot)))
            }
            (Stage::Ready, Message::Leave(_)) => Err(Over::Left(Left::Leave)),
            (_, Message::Leave(_)) => Err(self.over(closed())),
            (stage, message) => {
                let kind = message.kind().name();
                let problem = format!("{kind} from a consumer that is {}", stage.name());
                Err(self.over(Invalid::new("message kind", problem).into()))
            }
        }
    }

    /// Sends as much of the ring as there is room for; whether that was all.
    pub(super) fn announce(&mut self, ring: &Ring, info: &RingInfo) -> Result<bool, Over> {
        let Stage::Announcing(mut sent) = self.stage else { return Ok(true) };
        let (slots, socket) = (ring.slots.len(), &self.socket);
        let all = 1 + slots + ring.semaphores.len();
        let outcome = loop {
            let sending = match sent {
                0 => send_message(socket, &Message::Ring(info.clone()), None),
                slot if slot <= slots => ring.slots[slot - 1].send(socket),
                semaphore if semaphore < all => {
                    send(socket, &ring.semaphores[semaphore - slots - 1])
                }
                _ => break Ok(true),
            };
            match sending {
                Ok(()) => sent += 1,
                Err(Error::Timeout { .. }) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        self.stage = if sent == all { Stage::Announced } else { Stage::Announcing(sent) };
        outcome.map_err(|error| self.over(error))
    }

    /// Sends a frame. Where the consumer is gone that is no more than not sent: what it said last tells
    /// how it went, and is still to be [read](Self::read).
    pub(super) fn send(&mut self, frame: &FrameToken) -> Result<bool, Over> {
        match send_message(&self.socket, &Message::Frame(*frame), None) {
            Ok(()) => {
                self.held.add(frame.slot as usize, frame.sequence);
                Ok(true)
            }
            Err(Error::Closed { .. }) => Ok(false),
            // Its socket has room for more frames than there are slots, or is not read at all.
            Err(Error::Timeout { .. }) => {
                let silent = self.held.silent().unwrap_or_default();
                Err(Over::Left(Left::Evicted { silent }))
            }
            Err(error) => Err(self.over(error)),
        }
    }

    /// What an error on this link means.
    pub(super) fn over(&self, error: Error) -> Over {
        let gone = match &error {
            Error::Closed { .. } => true,
            // It ended in the middle of a message.
            Error::Invalid(invalid) => invalid.parameter == "message",
            _ => false,
        };
        match self.stage {
            Stage::Ready if gone => Over::Left(Left::Died),
            Stage::Ready => Over::Left(Left::Broke(error)),
            Stage::Connected if gone => Over::Nothing,
            _ if gone => Over::NotJoined(closed()),
            _ => Over::NotJoined(error),
        }
    }

    /// Tells the consumer why this is the end, where there is room, and closes.
    ///
    /// That there is no room does not matter: the end without a word says the same, that the slots
    /// are no longer the consumer's.
    pub(super) fn close(self, reason: Option<LeaveReason>) {
        if let Some(reason) = reason {
            say_leave(&self.socket, reason);
        }
        // Also where somebody has a duplicate of the socket.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Connected => "to join",
            Self::Announcing(_) => "being sent the ring",
            Self::Announced => "to be ready",
            Self::Ready => "ready",
        }
    }
}

fn closed() -> Error {
    Error::Closed { what: "the socket before it had joined".into() }
}

/// The last word on a socket.
pub(super) fn say_leave(socket: &UnixStream, reason: LeaveReason) {
    if let Err(error) = send_message(socket, &Message::Leave(reason), None) {
        tracing::debug!(?reason, %error, "left without a word");
    }
}
