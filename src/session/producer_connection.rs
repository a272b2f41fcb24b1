//! The consumer's end of the connection to the producer. The consumer shares it with its frames.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::peer;
use crate::error::{Error, Invalid, Result};
use crate::ipc::Receiver;
use crate::ipc::socket::{self, Direction, send_message};
use crate::ipc::wire::{FrameToken, LeaveReason, Message, ReleaseToken, RingInfo};

/// How a session ended for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The producer is done. Frames that had arrived are valid.
    Done,
    /// The consumer took too long to join or to release slots. Its frames are not valid.
    Evicted,
    /// The producer does not accept processes of this user.
    Refused,
    /// The producer has as many consumers as it accepts.
    Full,
    /// One of the two sides violated the protocol.
    ProtocolError,
    /// The producer closed the socket without *leave*, as happens when its process ends.
    Lost,
    /// The consumer left.
    Left,
}

impl SessionEnd {
    pub(super) const fn of(reason: LeaveReason) -> Self {
        match reason {
            LeaveReason::Done => Self::Done,
            LeaveReason::Evicted => Self::Evicted,
            LeaveReason::Refused => Self::Refused,
            LeaveReason::Full => Self::Full,
            LeaveReason::ProtocolError => Self::ProtocolError,
        }
    }

    /// Returns the error of a call after the session has ended this way.
    pub(super) fn error(self) -> Error {
        let what = match self {
            Self::Done => "the session: its last frame has been published",
            Self::Evicted => "the session: this consumer took too long",
            Self::Refused => "the session: this process's user may not join it",
            Self::Full => "the session: it has as many consumers as it accepts",
            Self::ProtocolError => "the session: it received a message that violates the protocol",
            Self::Lost => "the session without a reason; its process may have ended",
            Self::Left => "the session, which this consumer had left",
        };
        Error::Closed { what: what.into() }
    }
}

#[derive(Debug)]
pub(super) struct ProducerConnection {
    socket: UnixStream,
    slots: u32,
    semaphores: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    receiver: Receiver,
    /// Frames that have arrived; never more than the ring has slots.
    arrived: VecDeque<FrameToken>,
    /// Which slots the consumer holds.
    held: Vec<bool>,
    /// Sequence number of the last frame.
    last: u64,
    missed: u64,
    ready: bool,
    end: Option<(SessionEnd, Error)>,
}

impl ProducerConnection {
    /// Creates it from a socket on which the whole ring has arrived.
    pub(super) fn new(socket: UnixStream, receiver: Receiver, ring: &RingInfo) -> Self {
        let state = State {
            receiver,
            arrived: VecDeque::new(),
            held: vec![false; ring.slots as usize],
            last: 0,
            missed: 0,
            ready: false,
            end: None,
        };
        let (slots, semaphores) = (ring.slots, ring.semaphores);
        Self { socket, slots, semaphores, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    pub(super) fn end(&self) -> Option<SessionEnd> {
        self.state().end.as_ref().map(|(end, _)| *end)
    }

    pub(super) fn missed(&self) -> u64 {
        self.state().missed
    }

    /// Sends *ready*, once.
    pub(super) fn ready(&self) -> Result<()> {
        let mut state = self.state();
        if !state.ready {
            // A frame that has arrived already is a protocol violation.
            self.receive(&mut state);
            state.ready = true;
            self.send(&mut state, &Message::Ready);
        }
        self.receive(&mut state);
        state.check()
    }

    /// Returns the next frame that has arrived, or `None`.
    pub(super) fn next(&self) -> Result<Option<FrameToken>> {
        let mut state = self.state();
        self.receive(&mut state);
        state.check()?;
        if let Some(token) = state.arrived.pop_front() {
            return Ok(Some(token));
        }
        state.end.as_ref().map_or(Ok(None), |(_, error)| Err(error.clone()))
    }

    /// Waits until something has arrived, the session has ended, or `timeout` has passed.
    pub(super) fn wait(&self, timeout: Duration) -> Result<()> {
        socket::wait(&self.socket, Direction::Read, Some(timeout)).or_else(|error| match error {
            // Out-of-band data.
            Error::Invalid(_) => {
                self.state().violated(&self.socket, error);
                Ok(())
            }
            error => Err(error),
        })
    }

    /// Checks that the slots which the consumer holds are still its own.
    pub(super) fn check(&self) -> Result<()> {
        let mut state = self.state();
        self.receive(&mut state);
        state.check()
    }

    pub(super) fn release(&self, token: &FrameToken) -> Result<()> {
        let mut state = self.state();
        let FrameToken { slot, sequence, .. } = *token;
        if state.end.is_none() {
            state.held[slot as usize] = false;
            self.send(&mut state, &Message::Release(ReleaseToken { slot, sequence }));
        }
        // After the last read of the slot: a producer that evicts sends *leave* before it writes.
        self.receive(&mut state);
        state.check()
    }

    /// Ends the session from this side.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        let reason = state.end.is_none().then_some(LeaveReason::Done);
        peer::close(&self.socket, reason);
        if reason.is_some() {
            state.close(SessionEnd::Left, SessionEnd::Left.error());
        }
    }

    /// Sends a message. If that fails, the reason may be among the messages that have arrived.
    fn send(&self, state: &mut State, message: &Message) {
        if state.end.is_some() {
            return;
        }
        match send_message(&self.socket, message, None) {
            Ok(()) => {}
            Err(Error::Closed { .. }) => {
                self.receive(state);
                state.close(SessionEnd::Lost, SessionEnd::Lost.error());
            }
            // A socket has room for more than a consumer ever sends, so the producer does not read.
            Err(error) => state.violated(&self.socket, error),
        }
    }

    /// Processes everything that has arrived. Never waits.
    ///
    /// A producer can't flood a consumer. Each frame has a slot that the consumer does not hold, or it
    /// is the last message.
    fn receive(&self, state: &mut State) {
        while state.end.is_none() {
            let result = match state.receiver.message(&self.socket) {
                Ok((Message::Frame(token), _)) => state.frame(token, self.semaphores),
                Ok((Message::Leave(reason), _)) => {
                    let end = SessionEnd::of(reason);
                    state.close(end, end.error());
                    Ok(())
                }
                Ok((message, _)) => {
                    let problem = format!("{} from a producer", message.kind().name());
                    Err(Invalid::new("message kind", problem).into())
                }
                Err(Error::Timeout { .. }) => return,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {}
                Err(error) if peer::is_lost(&error) => {
                    state.close(SessionEnd::Lost, SessionEnd::Lost.error());
                }
                Err(error) => state.violated(&self.socket, error),
            }
        }
    }
}

impl State {
    fn frame(&mut self, token: FrameToken, semaphores: u32) -> Result<()> {
        let FrameToken { slot, sequence, point, .. } = token;
        let count = self.held.len();
        let problem = match self.held.get_mut(slot as usize) {
            _ if !self.ready => "came before this consumer was ready".to_owned(),
            None => format!("is in slot {slot}, but the ring has {count}"),
            Some(true) => format!("is in slot {slot}, which this consumer already holds"),
            Some(_) if sequence <= self.last => {
                format!("has number {sequence}, but the one before it has {}", self.last)
            }
            Some(_) if point.is_some_and(|point| point.semaphore >= semaphores) => {
                format!("names a semaphore that is not one of the ring's {semaphores}")
            }
            Some(held) => {
                *held = true;
                if self.last != 0 {
                    self.missed += sequence - self.last - 1;
                }
                self.last = sequence;
                self.arrived.push_back(token);
                return Ok(());
            }
        };
        Err(Invalid::new("frame", problem).into())
    }

    /// Checks that the slots which the consumer holds are still its own.
    fn check(&self) -> Result<()> {
        match &self.end {
            None | Some((SessionEnd::Done, _)) => Ok(()),
            Some((_, error)) => Err(error.clone()),
        }
    }

    /// Ends the session because the producer violated the protocol, or a system call failed.
    fn violated(&mut self, socket: &UnixStream, error: Error) {
        if self.end.is_none() {
            peer::close(socket, Some(LeaveReason::ProtocolError));
            self.close(SessionEnd::ProtocolError, error);
        }
    }

    /// Records the end of the session, unless it has ended already.
    fn close(&mut self, end: SessionEnd, error: Error) {
        if self.end.is_some() {
            return;
        }
        tracing::debug!(?end, %error, "the session has ended");
        if end != SessionEnd::Done {
            self.arrived.clear();
        }
        self.end = Some((end, error));
    }
}
