//! The connections that ask for a place among the consumers: accepting them, answering them in turn,
//! and making room for them.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use super::admission::{ACCEPT_INTERVAL, JOIN_GRACE, MAX_ACCEPTED, MAX_UNJOINED};
use super::consumer_connection::{
    ConsumerConnection, ConsumerId, Disconnect, Event, LeaveKind, full,
};
use super::consumers::{Consumers, LISTENER, READ};
use super::options::ProducerOptions;
use super::peer;
use super::ring::SlotTable;
use crate::error::{Error, Result};
use crate::fd::{PeerCredentials, failed, refuse_descriptors};
use crate::ipc::foreign::{self, Foreign};
use crate::ipc::wire::LeaveReason;

/// How long the listener is ignored when this process can't have another descriptor, or too many
/// wait to be closed.
const LISTENER_PAUSE: Duration = Duration::from_millis(50);

impl Consumers {
    /// Uses the listener again if its pause is over. Returns whether it was used again.
    pub(super) fn resume_listener(&mut self) -> Result<bool> {
        let is_over = self.paused_until.is_some_and(|until| until <= Instant::now());
        if is_over {
            self.paused_until = None;
            self.watch_listener(READ)?;
        }
        Ok(is_over)
    }

    fn pause_listener(&mut self, pause: Duration) -> Result<()> {
        self.paused_until = Some(Instant::now() + pause);
        self.watch_listener(epoll::EventFlags::empty())
    }

    fn watch_listener(&self, events: epoll::EventFlags) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::modify(&self.epoll, &**listener, data, events).map_err(failed("epoll_ctl"))
    }

    /// Accepts connections, a limited number in an interval.
    pub(super) fn accept(&mut self, options: &ProducerOptions) -> Result<()> {
        if self.accepted.0.elapsed() >= ACCEPT_INTERVAL {
            self.accepted = (Instant::now(), 0);
        }
        while self.paused_until.is_none() {
            let Some(listener) = &self.listener else { return Ok(()) };
            if foreign::is_congested() {
                tracing::warn!("no consumer can connect while closing descriptors takes long");
                return self.pause_listener(LISTENER_PAUSE);
            }
            if self.accepted.1 == MAX_ACCEPTED {
                return self
                    .pause_listener(ACCEPT_INTERVAL.saturating_sub(self.accepted.0.elapsed()));
            }
            let error = match listener.accept() {
                Ok((socket, _)) => {
                    self.accepted.1 += 1;
                    // An error of one connection does not affect others. It is reported as an
                    // event.
                    let _ = self.admit(socket, options);
                    continue;
                }
                Err(error) => error,
            };
            match (error.kind(), Errno::from_io_error(&error)) {
                (ErrorKind::WouldBlock, _) => return Ok(()),
                (ErrorKind::Interrupted | ErrorKind::ConnectionAborted, _) => self.accepted.1 += 1,
                // The connection stays in the queue, and the listener stays ready.
                (_, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    tracing::warn!(%error, "no consumer can connect for the moment");
                    return self.pause_listener(LISTENER_PAUSE);
                }
                _ => return Err(Error::io("accept", &error)),
            }
        }
        Ok(())
    }

    /// Adds a connection, or refuses it with the reason.
    pub(super) fn admit(&mut self, socket: UnixStream, options: &ProducerOptions) -> Result<()> {
        let socket = Foreign::new(socket);
        let peer = peer::open(&socket)?;
        refuse_descriptors(socket.as_fd());
        let back_off = self.offenders.back_off(peer, Instant::now());
        let (reason, error) = if let Err(error) = options.allowed.check(peer) {
            (LeaveReason::Refused, error)
        } else if let Some(left) = back_off {
            let what = "the time after which a process that was disconnected may join again".into();
            (LeaveReason::Evicted, Error::Timeout { what, waited: left })
        } else {
            let data = epoll::EventData::new_u64(self.last + 1);
            match epoll::add(&self.epoll, &*socket, data, READ) {
                Ok(()) => {
                    self.last += 1;
                    let slots = self.ring.slots.len();
                    let connection = ConsumerConnection::new(self.last, socket, peer, slots);
                    self.connections.push(connection);
                    self.limit_newcomers();
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

    /// Closes a connection that has not joined if there are too many: the oldest one of the process
    /// that has most of them.
    fn limit_newcomers(&mut self) {
        let newcomers = || self.connections.iter().filter(|connection| connection.is_newcomer());
        if newcomers().count() <= MAX_UNJOINED {
            return;
        }
        let of = |pid| newcomers().filter(|connection| connection.peer.pid == pid).count();
        let most = newcomers().max_by_key(|c| (of(c.peer.pid), std::cmp::Reverse(c.id)));
        if let Some(id) = most.map(|connection| connection.id) {
            // It holds no slots.
            self.end(id, Disconnect::NoPlace, &mut SlotTable::new(0));
        }
    }

    /// Sends the ring to consumers that have asked for it, if there is a place for them and it is
    /// their turn. Processes with fewer connections come first.
    pub(super) fn answer_newcomers(&mut self, slots: &mut SlotTable, options: &ProducerOptions) {
        let waiting = self.connections.iter().filter(|c| c.waits_for_ring());
        let of = |pid| self.connections.iter().filter(|c| c.peer.pid == pid).count();
        let mut waiting: Vec<_> = waiting.map(|c| (of(c.peer.pid), c.id, c.peer)).collect();
        waiting.sort_by_key(|(connections, id, _)| (*connections, *id));
        for (_, id, peer) in waiting {
            if !self.offenders.may_join(peer, Instant::now()) {
                continue;
            }
            let result = if self.make_place(slots, options) {
                self.connections.iter_mut().filter(|c| c.id == id).for_each(|c| c.accept());
                self.announce(id)
            } else {
                Err(Disconnect::NotJoined(full(options.max_consumers)))
            };
            if let Err(disconnect) = result {
                self.end(id, disconnect, slots);
            }
        }
    }

    /// Makes room for one more consumer, if necessary by ending one that does not work. Returns
    /// whether there is room.
    fn make_place(&mut self, slots: &mut SlotTable, options: &ProducerOptions) -> bool {
        let placed = || self.connections.iter().filter(|c| !c.is_newcomer());
        if placed().count() < options.max_consumers {
            return true;
        }
        let silent = |c: &ConsumerConnection| c.held.silent().filter(|s| *s >= options.evict_after);
        let longest = |connections: &mut dyn Iterator<Item = (Duration, ConsumerId)>| {
            connections.max_by_key(|(silent, _)| *silent)
        };
        let found = if let Some(deaf) = placed().find(|c| c.is_deaf()) {
            Some((deaf.id, Disconnect::Left(LeaveKind::Died)))
        } else if let Some((silent, id)) = longest(
            &mut placed()
                .filter(|c| !c.is_proven() || c.missed)
                .filter_map(|c| Some((silent(c)?, c.id))),
        ) {
            Some((id, Disconnect::Left(LeaveKind::Evicted { silent })))
        } else {
            let joining = |c: &ConsumerConnection| c.joining().filter(|since| *since >= JOIN_GRACE);
            longest(&mut placed().filter_map(|c| Some((joining(c)?, c.id)))).map(|(waited, id)| {
                let what = "the joining of a consumer, whose place another one needs".into();
                (id, Disconnect::NotJoined(Error::Timeout { what, waited }))
            })
        };
        let Some((id, disconnect)) = found else { return false };
        self.end(id, disconnect, slots);
        true
    }
}
