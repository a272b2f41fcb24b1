//! The consumer's end of the connection, which it shares with the frames that it has.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::consumer_connection::say_leave;
use crate::error::{Error, Invalid, Result, Text};
use crate::ipc::wire::{FrameToken, LeaveReason, Message, ReleaseToken, RingInfo};
use crate::ipc::{Receiver, send_message, socket};

/// How a session ended for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The producer said that it is done. Frames that had arrived are good.
    Done,
    /// The consumer took too long: to join, or to give slots back. What it has is not good.
    Evicted,
    /// The producer is not for processes of this one's user.
    Refused,
    /// The producer has as many consumers as it takes.
    Full,
    /// One side said what makes no sense.
    Broke,
    /// The producer closed the socket without a word: its process ended.
    Lost,
    /// The consumer left.
    Left,
}

impl End {
    pub(super) const fn of(reason: LeaveReason) -> Self {
        match reason {
            LeaveReason::Done => Self::Done,
            LeaveReason::Evicted => Self::Evicted,
            LeaveReason::Refused => Self::Refused,
            LeaveReason::Full => Self::Full,
            LeaveReason::Broke => Self::Broke,
        }
    }

    /// The same as an error.
    pub(super) fn error(self) -> Error {
        let what: Text = match self {
            Self::Done => "the session: its last frame has been published",
            Self::Evicted => "the session: this consumer took too long",
            Self::Refused => "the session: this process's user may not join it",
            Self::Full => "the session: it has as many consumers as it takes",
            Self::Broke => "the session: it was told what makes no sense",
            Self::Lost => "the session without a word: its process has ended",
            Self::Left => "the session, which this consumer had left",
        }
        .into();
        Error::Closed { what }
    }
}

/// What an error of a receiver means: the end of the connection in a message or between two, or that
/// the peer said nonsense.
pub(super) fn end_of(error: &Error) -> End {
    match error {
        Error::Closed { .. } => End::Lost,
        Error::Invalid(invalid) if invalid.parameter == "message" => End::Lost,
        _ => End::Broke,
    }
}

#[derive(Debug)]
pub(super) struct Connection {
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
    /// Which slots are the consumer's.
    held: Vec<bool>,
    /// The last frame's number.
    last: u64,
    missed: u64,
    ready: bool,
    end: Option<(End, Error)>,
}

impl Connection {
    /// Of a socket on which the ring has arrived whole.
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
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(super) fn end(&self) -> Option<End> {
        self.state().end.as_ref().map(|(end, _)| *end)
    }

    pub(super) fn missed(&self) -> u64 {
        self.state().missed
    }

    /// Says that frames may come, once.
    pub(super) fn ready(&self) -> Result<()> {
        let mut state = self.state();
        if !state.ready {
            // A frame that is here already came too early.
            self.hear(&mut state);
            state.ready = true;
            self.say(&mut state, &Message::Ready);
        }
        self.hear(&mut state);
        state.good()
    }

    /// The next frame that has arrived; `None` where there is none yet.
    pub(super) fn next(&self) -> Result<Option<FrameToken>> {
        let mut state = self.state();
        self.hear(&mut state);
        state.good()?;
        if let Some(token) = state.arrived.pop_front() {
            return Ok(Some(token));
        }
        state.end.as_ref().map_or(Ok(None), |(_, error)| Err(error.clone()))
    }

    /// Returns when something has arrived, or the session has ended, or `timeout` has passed.
    pub(super) fn wait(&self, timeout: Duration) -> Result<()> {
        let seen = socket::wait(self.socket.as_fd(), libc::POLLIN | libc::POLLPRI, Some(timeout))
            .map_err(|error| Error::io("ppoll", &error))?;
        // They make a socket ready without anything to read: waiting would spin.
        if seen & libc::POLLPRI != 0 {
            let problem = "has out-of-band data, which the format knows nothing of";
            self.state().broke(&self.socket, Invalid::new("socket", problem).into());
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        let mut state = self.state();
        self.hear(&mut state);
        state.good()
    }

    pub(super) fn release(&self, token: &FrameToken) -> Result<()> {
        let mut state = self.state();
        let FrameToken { slot, sequence, .. } = *token;
        if state.end.is_none() {
            state.held[slot as usize] = false;
            self.say(&mut state, &Message::Release(ReleaseToken { slot, sequence }));
        }
        // Now, after all that was read of the slot: whoever evicts says so before he writes.
        self.hear(&mut state);
        state.good()
    }

    /// Ends the session from this side.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        if state.end.is_none() {
            say_leave(&self.socket, LeaveReason::Done);
            state.close(End::Left, End::Left.error());
        }
        // Also where somebody has a duplicate of the socket.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Sends a message. Where that fails, what has arrived tells why.
    fn say(&self, state: &mut State, message: &Message) {
        if state.end.is_some() {
            return;
        }
        match send_message(&self.socket, message, None) {
            Ok(()) => {}
            Err(Error::Closed { .. }) => {
                self.hear(state);
                if state.end.is_none() {
                    state.close(End::Lost, End::Lost.error());
                }
            }
            // Its socket has room for more than can be said, or the kernel refuses.
            Err(error) => state.broke(&self.socket, error),
        }
    }

    /// Takes in all that has arrived. Never waits.
    ///
    /// A producer that floods is no danger: each frame has a slot that the consumer does not have, or it
    /// is the last message.
    fn hear(&self, state: &mut State) {
        while state.end.is_none() {
            let heard = match state.receiver.message(&self.socket) {
                Ok((Message::Frame(token), _)) => state.frame(token, self.semaphores),
                Ok((Message::Leave(reason), _)) => {
                    let end = End::of(reason);
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
            if let Err(error) = heard {
                match end_of(&error) {
                    End::Lost => state.close(End::Lost, End::Lost.error()),
                    _ => state.broke(&self.socket, error),
                }
            }
        }
    }

    /// How many slots the ring has.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }
}

impl State {
    fn frame(&mut self, token: FrameToken, semaphores: u32) -> Result<()> {
        let FrameToken { slot, sequence, point, .. } = token;
        let count = self.held.len();
        let problem = match self.held.get_mut(slot as usize) {
            _ if !self.ready => "came before this consumer was ready".to_owned(),
            None => format!("is in slot {slot}, but the ring has {count}"),
            Some(true) => format!("is in slot {slot}, which this consumer has already"),
            Some(_) if sequence <= self.last => {
                format!("has number {sequence}, but one before it had {}", self.last)
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

    /// Whether the slots that the consumer has are still its own.
    fn good(&self) -> Result<()> {
        match &self.end {
            None | Some((End::Done, _)) => Ok(()),
            Some((_, error)) => Err(error.clone()),
        }
    }

    /// The producer said what makes no sense.
    fn broke(&mut self, socket: &UnixStream, error: Error) {
        if self.end.is_none() {
            say_leave(socket, LeaveReason::Broke);
            let _ = socket.shutdown(Shutdown::Both);
            self.close(End::Broke, error);
        }
    }

    fn close(&mut self, end: End, error: Error) {
        tracing::debug!(?end, %error, "the session has ended");
        if end != End::Done {
            self.arrived.clear();
        }
        self.end = Some((end, error));
    }
}
