//! The producer's side of all connections: who is there, and what they say.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::address::{self, SocketFile};
use super::consumer_connection::{Link, Over, Said, say_leave};
use super::credentials::Credentials;
use super::epoll::{Epoll, OUT_OF_BAND, READ, WRITE};
use super::event::{ConsumerId, Event, Events, Left};
use super::options::ProducerOptions;
use super::ring::Ring;
use super::slot_table::SlotTable;
use crate::error::{Error, Invalid, Result};
use crate::ipc::socket;
use crate::ipc::wire::{FrameToken, LeaveReason, RingInfo};

/// What the listener is called where links have their numbers, which begin at 1.
const LISTENER: u64 = 0;

/// How many connections are accepted at a time, so that a flood of them holds nobody up.
const ACCEPTS: usize = 16;

/// How long the listener rests where this process is out of descriptors.
const REST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Consumers {
    pub(super) events: Events,
    // The file goes before the listener, so that nobody finds a file without one.
    file: Option<SocketFile>,
    listener: Option<UnixListener>,
    /// When the listener is asked again.
    rests_until: Option<Instant>,
    epoll: Epoll,
    links: Vec<Link>,
    /// The number of the last link.
    last: u64,
    ring: Ring,
    info: RingInfo,
}

impl Consumers {
    pub(super) fn new(path: Option<&Path>, ring: Ring, info: RingInfo) -> Result<Self> {
        let epoll = Epoll::new().map_err(|error| Error::io("epoll_create1", &error))?;
        let (listener, file) = match path.map(address::listen).transpose()? {
            Some((listener, file)) => (Some(listener), Some(file)),
            None => (None, None),
        };
        if let Some(listener) = &listener {
            epoll.add(listener, LISTENER, READ).map_err(control)?;
        }
        let (events, links) = Default::default();
        Ok(Self { events, file, listener, rests_until: None, epoll, links, last: 0, ring, info })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    pub(super) fn ready(&self) -> usize {
        self.links.iter().filter(|link| link.is_ready()).count()
    }

    pub(super) fn stop_listening(&mut self) {
        self.file = None;
        if let Some(listener) = self.listener.take() {
            let _ = self.epoll.remove(&listener);
        }
    }

    /// Waits until there is something to do, or `timeout` has passed.
    pub(super) fn wait(&self, timeout: Duration, options: &ProducerOptions) -> Result<()> {
        let joining = self.links.iter().filter_map(Link::joining);
        let joins = joining.map(|since| options.join_timeout.saturating_sub(since));
        let rest = self.rests_until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = joins.chain(rest).fold(timeout, Duration::min);
        // A poll of the set has finer timeouts than epoll_wait. Never 0: what is due is due in a moment.
        let timeout = timeout.max(Duration::from_micros(50));
        socket::wait(self.epoll.as_fd(), libc::POLLIN, Some(timeout))
            .map_err(|error| Error::io("ppoll", &error))?;
        Ok(())
    }

    /// Does what can be done without waiting.
    pub(super) fn turn(&mut self, ledger: &mut SlotTable, options: &ProducerOptions) -> Result<()> {
        if self.rests_until.is_some_and(|until| until <= Instant::now()) {
            self.rests_until = None;
            if let Some(listener) = &self.listener {
                self.epoll.modify(listener, LISTENER, READ).map_err(control)?;
            }
        }
        let ready = self.epoll.ready().map_err(|error| Error::io("epoll_wait", &error))?;
        for (token, events) in ready {
            if token == LISTENER {
                self.accept(options)?;
            } else if let Err(over) = self.serve(token, events, ledger) {
                self.end(ConsumerId(token), over, ledger);
            }
        }
        let late = |link: &Link| link.joining().is_some_and(|since| since >= options.join_timeout);
        while let Some(link) = self.links.iter().find(|link| late(link)) {
            let (id, waited) = (link.id, options.join_timeout);
            let error = Error::Timeout { what: "the joining of a consumer".into(), waited };
            self.end(id, Over::NotJoined(error), ledger);
        }
        Ok(())
    }

    /// Hears what a consumer says, and answers.
    fn serve(&mut self, token: u64, events: u32, ledger: &mut SlotTable) -> Result<(), Over> {
        let Some(link) = self.links.iter_mut().find(|link| link.id == ConsumerId(token)) else {
            return Ok(());
        };
        // They make a socket ready without anything to read: waiting would spin.
        if events & OUT_OF_BAND != 0 {
            let problem = "has out-of-band data, which the format knows nothing of";
            return Err(link.over(Invalid::new("socket", problem).into()));
        }
        let mut announce = events & WRITE != 0;
        while let Some(said) = link.read()? {
            match said {
                Said::Join => announce = true,
                Said::Ready => {
                    let (consumer, name) = (link.id, link.name.clone());
                    let Credentials { pid, uid } = link.peer;
                    self.events.push(Event::Joined { consumer, name, pid, uid });
                }
                Said::Release(slot) => ledger.given_back(slot),
            }
        }
        if announce {
            // The rest goes when there is room.
            let all = link.announce(&self.ring, &self.info)?;
            let events = if all { READ } else { READ | WRITE };
            self.epoll.modify(&*link, token, events).map_err(|e| link.over(control(e)))?;
        }
        Ok(())
    }

    fn accept(&mut self, options: &ProducerOptions) -> Result<()> {
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return Ok(()) };
            match listener.accept() {
                // What is wrong with one connection is no reason to stop.
                Ok((socket, _)) => {
                    let _ = self.admit(socket, options);
                }
                Err(error) => match (error.kind(), error.raw_os_error()) {
                    (ErrorKind::WouldBlock, _) => return Ok(()),
                    (ErrorKind::Interrupted | ErrorKind::ConnectionAborted, _) => {}
                    // The connection stays, and the listener ready: asked again at once it would spin.
                    (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => {
                        tracing::warn!(%error, "no consumer can connect for the moment");
                        self.rests_until = Some(Instant::now() + REST);
                        return self.epoll.modify(listener, LISTENER, 0).map_err(control);
                    }
                    _ => return Err(Error::io("accept", &error)),
                },
            }
        }
        Ok(())
    }

    /// Takes a connection, or tells it why not.
    pub(super) fn admit(&mut self, socket: UnixStream, options: &ProducerOptions) -> Result<()> {
        let nonblocking = socket.set_nonblocking(true);
        nonblocking.map_err(|error| Error::io("ioctl(FIONBIO)", &error))?;
        let peer = Credentials::of_peer(socket.as_fd())?;
        let full = || {
            let problem = format!("{} are there already", options.max_consumers);
            Err(Error::from(Invalid::new("options.max_consumers", problem)))
        };
        let admitted = match options.allowed.check(peer) {
            Err(error) => Err((LeaveReason::Refused, error)),
            Ok(()) if self.links.len() < options.max_consumers => Ok(()),
            Ok(()) => full().map_err(|error| (LeaveReason::Full, error)),
        };
        let opened = admitted.and_then(|()| {
            let added = self.epoll.add(&socket, self.last + 1, READ);
            added.map_err(|error| (LeaveReason::Broke, control(error)))
        });
        if let Err((reason, error)) = opened {
            say_leave(&socket, reason);
            let Credentials { pid, uid } = peer;
            self.events.push(Event::NotJoined { pid, uid, error: error.clone() });
            return Err(error);
        }
        self.last += 1;
        self.links.push(Link::new(self.last, socket, peer, self.ring.slots.len()));
        Ok(())
    }

    /// Sends a frame to all that are ready and have fewer than `most` slots. Returns how many have it,
    /// how many were left out, and who is lost.
    pub(super) fn send(
        &mut self,
        frame: &FrameToken,
        most: usize,
    ) -> (usize, usize, Vec<(ConsumerId, Over)>) {
        let (mut sent, mut left_out, mut lost) = (0, 0, Vec::new());
        for link in self.links.iter_mut().filter(|link| link.is_ready()) {
            if link.held.count() >= most {
                left_out += 1;
                continue;
            }
            match link.send(frame) {
                Ok(is_there) => sent += usize::from(is_there),
                Err(over) => lost.push((link.id, over)),
            }
        }
        (sent, left_out, lost)
    }

    /// Ends a link: what it has is free.
    pub(super) fn end(&mut self, id: ConsumerId, over: Over, ledger: &mut SlotTable) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let link = self.links.remove(at);
        let _ = self.epoll.remove(&link);
        let (reason, held) = (over.reason(), link.held.count());
        let Credentials { pid, uid } = link.peer;
        let slots: Vec<_> = link.held.slots().collect();
        // Before its slots are free, so that it knows when it looks again after they were written to.
        link.close(reason);
        slots.into_iter().for_each(|slot| ledger.given_back(slot));
        match over {
            Over::Left(how) => self.events.push(Event::Left { consumer: id, how, held }),
            Over::NotJoined(error) => self.events.push(Event::NotJoined { pid, uid, error }),
            Over::Nothing => {}
        }
    }

    pub(super) fn end_all(&mut self, reason: LeaveReason) {
        self.stop_listening();
        for link in self.links.drain(..) {
            link.close(Some(reason));
        }
    }

    pub(super) fn evict(&mut self, consumer: ConsumerId, ledger: &mut SlotTable) -> bool {
        let Some(link) = self.links.iter().find(|link| link.id == consumer) else { return false };
        let silent = link.held.silent().unwrap_or_default();
        self.end(consumer, Over::Left(Left::Evicted { silent }), ledger);
        true
    }

    /// Evicts those that have slots and have given none back for `patience`; whether there were any.
    pub(super) fn evict_silent(&mut self, patience: Duration, ledger: &mut SlotTable) -> bool {
        let silent = |link: &Link| link.held.silent().is_some_and(|silent| silent >= patience);
        let silent: Vec<_> = self.links.iter().filter(|l| silent(l)).map(|l| l.id).collect();
        for id in &silent {
            self.evict(*id, ledger);
        }
        !silent.is_empty()
    }

    /// How long until the next one is to be evicted.
    pub(super) fn until_silent(&self, patience: Duration) -> Option<Duration> {
        let silent = self.links.iter().filter_map(|link| link.held.silent());
        silent.map(|silent| patience.saturating_sub(silent)).min()
    }
}

impl AsFd for Consumers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn control(error: std::io::Error) -> Error {
    Error::io("epoll_ctl", &error)
}
