//! The connections of a producer: accepting, serving and ending them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::admission::Offenders;
use super::consumer_connection::{
    ConsumerConnection, ConsumerId, ConsumerMessage, Disconnect, Event, Events, LeaveKind,
};
use super::options::ProducerOptions;
use super::peer::{self, SocketFile};
use super::ring::{Ring, SlotTable};
use crate::error::{Error, Result};
use crate::fd::{PeerCredentials, failed};
use crate::ipc::foreign::Foreign;
use crate::ipc::socket::{self, Direction};
use crate::ipc::wire::{FrameToken, LeaveReason, RingInfo};

/// The number of the listener in the epoll set. Those of the connections begin at 1.
pub(super) const LISTENER: u64 = 0;

/// The number of the timer in the epoll set.
const TIMER: u64 = u64::MAX;

/// Bytes, the end of the connection, and out-of-band data.
pub(super) const READ: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::PRI);

/// Number of events that are fetched at once. The others come with the next call.
const MAX_READY: usize = 32;

/// The connections of one producer.
#[derive(Debug)]
pub(super) struct Consumers {
    pub(super) events: Events,
    // The file is dropped before the listener, so that there is never a file without a listener.
    file: Option<SocketFile>,
    pub(super) listener: Option<Foreign<UnixListener>>,
    /// When the listener is used again.
    pub(super) paused_until: Option<Instant>,
    /// When connections were last counted from 0, and how many there were since.
    pub(super) accepted: (Instant, usize),
    /// The listener, the connections and the timer. It is readable if one of them is ready.
    pub(super) epoll: OwnedFd,
    /// Expires when there is something to do that no socket announces.
    timer: OwnedFd,
    pub(super) connections: Vec<ConsumerConnection>,
    /// The number of the last connection.
    pub(super) last: u64,
    pub(super) offenders: Offenders,
    pub(super) ring: Ring,
    info: RingInfo,
}

/// The result of sending a frame.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Number of consumers that got it.
    pub(super) sent: usize,
    /// Number of consumers that hold too many slots.
    pub(super) dropped: usize,
    /// The consumers that no longer read.
    pub(super) gone: Vec<ConsumerId>,
    /// The consumers that are gone.
    pub(super) lost: Vec<(ConsumerId, Disconnect)>,
}

impl Consumers {
    pub(super) fn new(path: Option<&Path>, ring: Ring, info: RingInfo) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create1"))?;
        let (listener, file) = path.map(peer::listen).transpose()?.unzip();
        if let Some(listener) = &listener {
            let data = epoll::EventData::new_u64(LISTENER);
            epoll::add(&epoll, listener, data, READ).map_err(failed("epoll_ctl"))?;
        }
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
        let timer = timer.map_err(failed("timerfd_create"))?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN).map_err(failed("epoll_ctl"))?;
        Ok(Self {
            events: Events::default(),
            file,
            listener: listener.map(Foreign::new),
            paused_until: None,
            accepted: (Instant::now(), 0),
            epoll,
            timer,
            connections: Vec::new(),
            last: 0,
            offenders: Offenders::default(),
            ring,
            info,
        })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    /// Returns the number of consumers that are ready.
    pub(super) fn ready(&self) -> usize {
        self.connections.iter().filter(|connection| connection.is_ready()).count()
    }

    pub(super) fn stop_listening(&mut self) {
        self.file = None;
        let Some(listener) = self.listener.take() else { return };
        let _ = epoll::delete(&self.epoll, &*listener);
        // Closing it in another thread may take a while. Until then no process can connect, and those
        // that have connected learn the end at once.
        let _ = shutdown(&*listener, Shutdown::Both);
        for _ in 0..=peer::BACKLOG {
            let Ok((socket, _)) = listener.accept() else { break };
            let socket = Foreign::new(socket);
            if peer::open(&socket).is_ok() {
                peer::close(&socket, Some(LeaveReason::Done));
            }
        }
    }

    /// Waits until there is something to do, or `timeout` has passed.
    pub(super) fn wait(&self, timeout: Duration, options: &ProducerOptions) -> Result<()> {
        let joining = self.connections.iter().filter_map(ConsumerConnection::joining);
        let joins = joining.map(|since| options.join_timeout.saturating_sub(since));
        let timeout = joins.chain(self.next_eviction(options)).fold(timeout, Duration::min);
        // Not 0: without a pause, the caller would spin until the next deadline has passed.
        let timeout = timeout.max(Duration::from_micros(50));
        // ppoll on the set has finer timeouts than epoll_wait.
        socket::wait(&self.epoll, Direction::Read, Some(timeout))
    }

    /// Does everything that can be done without waiting. The work is bounded: consumers that are ready
    /// come first, then a limited number of newcomers.
    pub(super) fn progress(
        &mut self,
        slots: &mut SlotTable,
        options: &ProducerOptions,
    ) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); MAX_READY];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = match epoll::wait(&self.epoll, &mut space, Some(&now)) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => &mut [],
            Err(errno) => return Err(failed("epoll_wait")(errno)),
        };
        let ready: Vec<_> = ready.iter().map(|event| (event.data.u64(), event.flags)).collect();
        let mut is_connecting = self.resume_listener()?;
        for (number, events) in ready {
            match number {
                LISTENER => is_connecting = true,
                TIMER => {
                    let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                }
                _ => {
                    if let Err(disconnect) = self.serve(number, events, slots) {
                        self.end(ConsumerId(number), disconnect, slots);
                    }
                }
            }
        }
        self.evict_overdue(slots, options);
        if is_connecting {
            self.accept(options)?;
        }
        self.answer_newcomers(slots, options);
        self.set_timer()
    }

    /// Sets the timer for what no socket announces, so that a wait for the epoll set ends then.
    fn set_timer(&self) -> Result<()> {
        let now = Instant::now();
        let resume = self.paused_until.map(|until| until.saturating_duration_since(now));
        let waits = self.connections.iter().any(ConsumerConnection::waits_for_ring);
        let turn = self.offenders.next_turn(now).filter(|_| waits);
        resume.into_iter().chain(turn).min().map_or(Ok(()), |next| self.expire_in(next))
    }

    /// Makes the epoll set readable if there are events.
    pub(super) fn announce_events(&self) -> Result<()> {
        if self.events.is_empty() { Ok(()) } else { self.expire_in(Duration::ZERO) }
    }

    fn expire_in(&self, time: Duration) -> Result<()> {
        // 0 would disarm it.
        let next = time.max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: next.as_secs() as _, tv_nsec: next.subsec_nanos() as _ };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval, it_value };
        let set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value);
        set.map(drop).map_err(failed("timerfd_settime"))
    }

    /// Ends what takes too long: joining, and, [in some cases](super#consumers-that-do-not-work),
    /// releasing a slot.
    fn evict_overdue(&mut self, slots: &mut SlotTable, options: &ProducerOptions) {
        let late = |connection: &ConsumerConnection| {
            connection.joining().is_some_and(|since| since >= options.join_timeout)
        };
        while let Some(connection) = self.connections.iter().find(|connection| late(connection)) {
            let (id, waited) = (connection.id, options.join_timeout);
            let error = Error::Timeout { what: "the joining of a consumer".into(), waited };
            self.end(id, Disconnect::NotJoined(error), slots);
        }
        let mut overdue = Vec::new();
        for connection in &self.connections {
            if let Some(left) = self.silence_left(connection, options)
                && left.is_zero()
            {
                overdue.push(connection.id);
            }
        }
        for id in overdue {
            self.evict(id, slots);
        }
    }

    /// Returns how long a consumer may still hold its slots without releasing one, although the
    /// producer does not wait for a slot: `None` if indefinitely.
    fn silence_left(
        &self,
        connection: &ConsumerConnection,
        options: &ProducerOptions,
    ) -> Option<Duration> {
        let silent = connection.held.silent()?;
        let limit = if self.is_on_probation(connection) {
            options.evict_after
        } else if connection.missed {
            options.evict_after.max(options.join_timeout)
        } else {
            return None;
        };
        Some(limit.saturating_sub(silent))
    }

    /// Whether a consumer has never released a frame, and its user's processes were disconnected
    /// recently.
    fn is_on_probation(&self, connection: &ConsumerConnection) -> bool {
        !connection.is_proven() && self.offenders.is_on_probation(connection.peer, Instant::now())
    }

    /// Returns the time until the first consumer is overdue.
    fn next_eviction(&self, options: &ProducerOptions) -> Option<Duration> {
        let left = |connection| self.silence_left(connection, options);
        self.connections.iter().filter_map(left).min()
    }

    /// Reads the messages of a consumer and answers them.
    fn serve(
        &mut self,
        number: u64,
        events: epoll::EventFlags,
        slots: &mut SlotTable,
    ) -> Result<(), Disconnect> {
        let id = ConsumerId(number);
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else {
            return Ok(());
        };
        if events.contains(epoll::EventFlags::PRI) {
            return Err(connection.disconnect(socket::out_of_band()));
        }
        while let Some(message) = connection.read()? {
            match message {
                // Answered after all consumers that are ready.
                ConsumerMessage::Join => {}
                ConsumerMessage::Ready => {
                    let PeerCredentials { pid, uid } = connection.peer;
                    let name = connection.name.clone();
                    self.events.push(Event::Joined { consumer: id, name, pid, uid });
                }
                ConsumerMessage::Release(slot) => slots.released(slot),
            }
        }
        if events.contains(epoll::EventFlags::OUT) {
            self.announce(id)?;
        }
        Ok(())
    }

    /// Sends as much of the ring as the socket has room for.
    pub(super) fn announce(&mut self, id: ConsumerId) -> Result<(), Disconnect> {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else {
            return Ok(());
        };
        // What is left is sent when the socket has room.
        let all = connection.announce(&self.ring, &self.info)?;
        let events = if all { READ } else { READ | epoll::EventFlags::OUT };
        let data = epoll::EventData::new_u64(id.0);
        epoll::modify(&self.epoll, &*connection, data, events)
            .map_err(|errno| connection.disconnect(failed("epoll_ctl")(errno)))
    }

    /// Sends a frame to all consumers that are ready and hold fewer than `max_held` slots.
    ///
    /// Consumers on probation together hold at most a quarter of the slots: the others' frames are not
    /// delayed by them.
    pub(super) fn send(&mut self, frame: &FrameToken, max_held: usize) -> Sent {
        let on_probation: Vec<_> =
            self.connections.iter().map(|connection| self.is_on_probation(connection)).collect();
        let mut on_trial = vec![false; self.ring.slots.len()];
        for (connection, _) in self.connections.iter().zip(&on_probation).filter(|(_, on)| **on) {
            connection.held.slots().for_each(|slot| on_trial[slot] = true);
        }
        let limit = (on_trial.len() / 4).max(1);
        let has_room = on_trial.iter().filter(|on_trial| **on_trial).count() < limit;
        let mut result = Sent::default();
        let all = self.connections.iter_mut().zip(on_probation);
        for (connection, on_probation) in all.filter(|(connection, _)| connection.is_ready()) {
            if connection.held.count() >= max_held || (on_probation && !has_room) {
                connection.missed |= connection.held.count() > 0;
                result.dropped += 1;
                continue;
            }
            match connection.send(frame) {
                Ok(true) => result.sent += 1,
                Ok(false) => result.gone.push(connection.id),
                Err(disconnect) => result.lost.push((connection.id, disconnect)),
            }
        }
        result
    }

    /// Ends a connection to which a frame could not be sent, as its last message says.
    pub(super) fn end_gone(&mut self, id: ConsumerId, slots: &mut SlotTable) {
        let disconnect = match self.serve(id.0, epoll::EventFlags::empty(), slots) {
            // It only reads no longer: it would get no frame and never leave.
            Ok(()) => Disconnect::Left(LeaveKind::Died),
            Err(disconnect) => disconnect,
        };
        self.end(id, disconnect, slots);
    }

    /// Ends a connection and frees its slots.
    pub(super) fn end(&mut self, id: ConsumerId, disconnect: Disconnect, slots: &mut SlotTable) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let connection = self.connections.remove(at);
        let _ = epoll::delete(&self.epoll, &connection);
        let PeerCredentials { pid, uid } = connection.peer;
        if disconnect.is_offence() {
            self.offenders.record(connection.peer, Instant::now());
        }
        let held: Vec<_> = connection.held.slots().collect();
        // Before its slots are freed: a consumer that checks after a read must learn that they may
        // have been overwritten.
        connection.close(disconnect.reason());
        held.iter().for_each(|slot| slots.released(*slot));
        match disconnect {
            Disconnect::Left(kind) => {
                self.events.push(Event::Left { consumer: id, kind, held: held.len() });
            }
            Disconnect::NotJoined(error) => {
                self.events.push(Event::NotJoined { pid, uid, error });
            }
            Disconnect::Unused | Disconnect::NoPlace => {}
        }
    }

    pub(super) fn end_all(&mut self, reason: LeaveReason) {
        self.stop_listening();
        for connection in self.connections.drain(..) {
            connection.close(Some(reason));
        }
    }

    pub(super) fn evict(&mut self, consumer: ConsumerId, slots: &mut SlotTable) -> bool {
        let found = self.connections.iter().find(|connection| connection.id == consumer);
        let Some(connection) = found else { return false };
        let silent = connection.held.silent().unwrap_or_default();
        self.end(consumer, Disconnect::Left(LeaveKind::Evicted { silent }), slots);
        true
    }

    /// Evicts the consumers that hold slots and have released none for `limit`. Returns whether
    /// there were any.
    pub(super) fn evict_silent(&mut self, limit: Duration, slots: &mut SlotTable) -> bool {
        let silent =
            self.connections.iter().filter(|c| c.held.silent().is_some_and(|s| s >= limit));
        let silent: Vec<_> = silent.map(|connection| connection.id).collect();
        for id in &silent {
            self.evict(*id, slots);
        }
        !silent.is_empty()
    }

    /// Returns the time until the next consumer is evicted, if none of them releases a slot.
    pub(super) fn until_silent(&self, limit: Duration) -> Option<Duration> {
        let silent = self.connections.iter().filter_map(|connection| connection.held.silent());
        silent.map(|silent| limit.saturating_sub(silent)).min()
    }
}

impl AsFd for Consumers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
