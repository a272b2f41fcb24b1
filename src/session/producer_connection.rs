//! The consumer's end of the connection to the producer. The consumer shares it with its frames.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::peer;
use super::work::{Deadline, SlotWork, WORK_TIMEOUT};
use crate::error::{Error, Invalid, Result, counted};
use crate::ipc::Receiver;
use crate::ipc::foreign::Foreign;
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
    socket: Foreign<UnixStream>,
    slots: u32,
    semaphores: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    receiver: Receiver,
    /// Frames that have arrived; never more than the ring has slots.
    arrived: VecDeque<FrameToken>,
    held: Vec<HeldSlot>,
    /// Sequence number of the last frame.
    last: u64,
    missed: u64,
    /// Whether slow consumers miss frames.
    drops_frames: bool,
    ready: bool,
    end: Option<(SessionEnd, Error)>,
}

/// A slot as the consumer sees it.
#[derive(Debug, Default)]
struct HeldSlot {
    is_held: bool,
    /// The consumer's work on the slot.
    work: SlotWork,
    /// A frame that was dropped. It is released when the work is done.
    dropped: Option<FrameToken>,
}

impl ProducerConnection {
    /// Creates it from a socket on which the whole ring has arrived.
    pub(super) fn new(socket: Foreign<UnixStream>, receiver: Receiver, ring: &RingInfo) -> Self {
        let state = State {
            receiver,
            arrived: VecDeque::new(),
            held: (0..ring.slots).map(|_| HeldSlot::default()).collect(),
            last: 0,
            missed: 0,
            drops_frames: ring.drops_frames,
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
        self.release_dropped(&mut state);
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

    /// Adds work on the slot of a frame.
    pub(super) fn add_work(
        &self,
        token: &FrameToken,
        wait: impl FnMut(Duration) -> Result<()> + Send + 'static,
    ) {
        self.state().held[token.slot as usize].work.add(wait);
    }

    /// Returns whether dropped frames wait for work.
    pub(super) fn is_any_dropped(&self) -> bool {
        self.state().held.iter().any(|slot| slot.dropped.is_some())
    }

    /// Waits for the work on a frame, and releases it.
    pub(super) fn release(&self, token: &FrameToken) -> Result<()> {
        // Without the lock: other threads use other slots meanwhile.
        let mut work = std::mem::take(&mut self.state().held[token.slot as usize].work);
        let is_done = work.is_done(WORK_TIMEOUT);
        let mut state = self.state();
        state.held[token.slot as usize].work = work;
        if is_done {
            return self.send_release(&mut state, token);
        }
        state.held[token.slot as usize].dropped = Some(*token);
        let what = "the end of the consumer's work on a slot".into();
        Err(Error::Timeout { what, waited: WORK_TIMEOUT })
    }

    /// Releases the slot of a frame as soon as the work on it is done. Never waits.
    pub(super) fn drop_frame(&self, token: &FrameToken) {
        let mut state = self.state();
        state.held[token.slot as usize].dropped = Some(*token);
        self.release_dropped(&mut state);
    }

    fn release_dropped(&self, state: &mut State) {
        for slot in 0..state.held.len() {
            let HeldSlot { dropped, work, .. } = &mut state.held[slot];
            if dropped.is_some()
                && work.is_done(Duration::ZERO)
                && let Some(token) = dropped.take()
                && let Err(error) = self.send_release(state, &token)
            {
                tracing::debug!(frame = token.sequence, %error, "a frame was dropped");
            }
        }
    }

    fn send_release(&self, state: &mut State, token: &FrameToken) -> Result<()> {
        let FrameToken { slot, sequence, .. } = *token;
        if state.end.is_none() {
            state.held[slot as usize].is_held = false;
            self.send(state, &Message::Release(ReleaseToken { slot, sequence }));
        }
        // After the last read of the slot: a producer that evicts sends *leave* before it writes.
        self.receive(state);
        state.check()
    }

    /// Ends the session from this side, after the work on all slots.
    pub(super) fn leave(&self) {
        let deadline = Deadline::after(WORK_TIMEOUT);
        for slot in 0..self.slots() {
            let mut work = std::mem::take(&mut self.state().held[slot].work);
            work.end(deadline.left().unwrap_or_default());
        }
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
    /// A producer can't flood a consumer. Each frame has a slot that the consumer does not hold, or
    /// it is the last message.
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
        let problem = match self.held.get_mut(slot as usize).map(|slot| &mut slot.is_held) {
            _ if !self.ready => "came before this consumer was ready".to_owned(),
            None => format!("is in slot {slot}, but the ring has {}", counted(count, "slot")),
            Some(true) => format!("is in slot {slot}, which this consumer already holds"),
            Some(_) if sequence <= self.last => {
                format!("has number {sequence}, but the one before it has {}", self.last)
            }
            Some(_) if point.is_some_and(|point| point.semaphore >= semaphores) => {
                format!("names a semaphore, but the ring has {}", counted(semaphores, "semaphore"))
            }
            Some(held) => {
                *held = true;
                if self.drops_frames && self.last != 0 {
                    self.missed = self.missed.saturating_add(sequence - self.last - 1);
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
