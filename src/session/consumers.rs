//! The connections of a producer: accepting, serving and ending them.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::consumer_connection::{
    ConsumerConnection, ConsumerId, ConsumerMessage, Disconnect, Event, Events, LeaveKind,
};
use super::options::ProducerOptions;
use super::peer::{self, SocketFile};
use super::ring::{Ring, SlotTable};
use crate::error::{Error, Invalid, Result, counted};
use crate::fd::{PeerCredentials, failed};
use crate::ipc::socket::{self, Direction};
use crate::ipc::wire::{FrameToken, LeaveReason, RingInfo};

/// The number of the listener in the epoll set. Those of the connections begin at 1.
const LISTENER: u64 = 0;

/// Bytes, the end of the connection, and out-of-band data.
const READ: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::PRI);

/// Number of events that are fetched at once. The others come with the next call.
const MAX_READY: usize = 32;

/// Number of connections that are accepted at once, so that a flood of them delays no other
/// consumer.
const MAX_ACCEPTED: usize = 16;

/// How long the listener is ignored when this process can't have another descriptor.
const LISTENER_PAUSE: Duration = Duration::from_millis(50);

/// The connections of one producer.
#[derive(Debug)]
pub(super) struct Consumers {
    pub(super) events: Events,
    // The file is dropped before the listener, so that there is never a file without a listener.
    file: Option<SocketFile>,
    listener: Option<UnixListener>,
    /// When the listener is used again.
    paused_until: Option<Instant>,
    /// The listener and the connections. It is readable if one of them is ready.
    epoll: OwnedFd,
    connections: Vec<ConsumerConnection>,
    /// The number of the last connection.
    last: u64,
    ring: Ring,
    info: RingInfo,
}

/// The result of sending a frame.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Number of consumers that got it.
    pub(super) sent: usize,
    /// Number of consumers that hold too many slots.
    pub(super) dropped: usize,
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
        let (events, connections) = Default::default();
        let (paused_until, last) = (None, 0);
        Ok(Self { events, file, listener, paused_until, epoll, connections, last, ring, info })
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
        if let Some(listener) = self.listener.take() {
            let _ = epoll::delete(&self.epoll, &listener);
        }
    }

    /// Waits until there is something to do, or `timeout` has passed.
    pub(super) fn wait(&self, timeout: Duration, options: &ProducerOptions) -> Result<()> {
        let joining = self.connections.iter().filter_map(ConsumerConnection::joining);
        let joins = joining.map(|since| options.join_timeout.saturating_sub(since));
        let pause = self.paused_until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = joins.chain(pause).fold(timeout, Duration::min);
        // Not 0: without a pause, the caller would spin until the next deadline has passed.
        let timeout = timeout.max(Duration::from_micros(50));
        // ppoll on the set has finer timeouts than epoll_wait.
        socket::wait(&self.epoll, Direction::Read, Some(timeout))
    }

    /// Does everything that can be done without waiting.
    pub(super) fn progress(
        &mut self,
        slots: &mut SlotTable,
        options: &ProducerOptions,
    ) -> Result<()> {
        if self.paused_until.is_some_and(|until| until <= Instant::now()) {
            self.paused_until = None;
            self.watch_listener(READ)?;
        }
        let mut space = [MaybeUninit::uninit(); MAX_READY];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = match epoll::wait(&self.epoll, &mut space, Some(&now)) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => &mut [],
            Err(errno) => return Err(failed("epoll_wait")(errno)),
        };
        let ready: Vec<_> = ready.iter().map(|event| (event.data.u64(), event.flags)).collect();
        for (number, events) in ready {
            if number == LISTENER {
                self.accept(options)?;
            } else if let Err(disconnect) = self.serve(number, events, slots) {
                self.end(ConsumerId(number), disconnect, slots);
            }
        }
        let late = |connection: &ConsumerConnection| {
            connection.joining().is_some_and(|since| since >= options.join_timeout)
        };
        while let Some(connection) = self.connections.iter().find(|connection| late(connection)) {
            let (id, waited) = (connection.id, options.join_timeout);
            let error = Error::Timeout { what: "the joining of a consumer".into(), waited };
            self.end(id, Disconnect::NotJoined(error), slots);
        }
        Ok(())
    }

    fn watch_listener(&self, events: epoll::EventFlags) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::modify(&self.epoll, listener, data, events).map_err(failed("epoll_ctl"))
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
        let mut announce = events.contains(epoll::EventFlags::OUT);
        while let Some(message) = connection.read()? {
            match message {
                ConsumerMessage::Join => announce = true,
                ConsumerMessage::Ready => {
                    let PeerCredentials { pid, uid } = connection.peer;
                    let name = connection.name.clone();
                    self.events.push(Event::Joined { consumer: id, name, pid, uid });
                }
                ConsumerMessage::Release(slot) => slots.released(slot),
            }
        }
        if announce {
            // What is left is sent when the socket has room.
            let all = connection.announce(&self.ring, &self.info)?;
            let events = if all { READ } else { READ | epoll::EventFlags::OUT };
            let data = epoll::EventData::new_u64(number);
            epoll::modify(&self.epoll, &*connection, data, events)
                .map_err(|errno| connection.disconnect(failed("epoll_ctl")(errno)))?;
        }
        Ok(())
    }

    fn accept(&mut self, options: &ProducerOptions) -> Result<()> {
        for _ in 0..MAX_ACCEPTED {
            let Some(listener) = &self.listener else { return Ok(()) };
            let error = match listener.accept() {
                Ok((socket, _)) => {
                    // An error of one connection does not affect others. It is reported as an
                    // event.
                    let _ = self.admit(socket, options);
                    continue;
                }
                Err(error) => error,
            };
            match (error.kind(), Errno::from_io_error(&error)) {
                (ErrorKind::WouldBlock, _) => return Ok(()),
                (ErrorKind::Interrupted | ErrorKind::ConnectionAborted, _) => {}
                // The connection stays in the queue, and the listener stays ready.
                (_, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    tracing::warn!(%error, "no consumer can connect for the moment");
                    self.paused_until = Some(Instant::now() + LISTENER_PAUSE);
                    return self.watch_listener(epoll::EventFlags::empty());
                }
                _ => return Err(Error::io("accept", &error)),
            }
        }
        Ok(())
    }

    /// Adds a connection, or refuses it with the reason.
    pub(super) fn admit(&mut self, socket: UnixStream, options: &ProducerOptions) -> Result<()> {
        let peer = peer::open(&socket)?;
        let (reason, error) = if let Err(error) = options.allowed.check(peer) {
            (LeaveReason::Refused, error)
        } else if self.connections.len() >= options.max_consumers {
            let problem = format!("{} joined already", counted(options.max_consumers, "consumer"));
            (LeaveReason::Full, Invalid::new("options.max_consumers", problem).into())
        } else {
            let data = epoll::EventData::new_u64(self.last + 1);
            match epoll::add(&self.epoll, &socket, data, READ) {
                Ok(()) => {
                    self.last += 1;
                    let slots = self.ring.slots.len();
                    let connection = ConsumerConnection::new(self.last, socket, peer, slots);
                    self.connections.push(connection);
                    return Ok(());
                }
                Err(errno) => (LeaveReason::ProtocolError, failed("epoll_ctl")(errno)),
            }
        };
        peer::close(&socket, Some(reason));
        let PeerCredentials { pid, uid } = peer;
        self.events.push(Event::NotJoined { pid, uid, error: error.clone() });
        Err(error)
    }

    /// Sends a frame to all consumers that are ready and hold fewer than `max_held` slots.
    pub(super) fn send(&mut self, frame: &FrameToken, max_held: usize) -> Sent {
        let mut result = Sent::default();
        for connection in self.connections.iter_mut().filter(|c| c.is_ready()) {
            if connection.held.count() >= max_held {
                result.dropped += 1;
                continue;
            }
            match connection.send(frame) {
                Ok(sent) => result.sent += usize::from(sent),
                Err(disconnect) => result.lost.push((connection.id, disconnect)),
            }
        }
        result
    }

    /// Ends a connection and frees its slots.
    pub(super) fn end(&mut self, id: ConsumerId, disconnect: Disconnect, slots: &mut SlotTable) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let connection = self.connections.remove(at);
        let _ = epoll::delete(&self.epoll, &connection);
        let PeerCredentials { pid, uid } = connection.peer;
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
            Disconnect::Unused => {}
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
