//! The parent's side of a batch's process.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::batch::{Closed, Event, ROLE};
use super::fixture::About;
use super::process::child_arguments;
use super::report::{Entry, Verdict};

/// How much of its output is shown for a failed case: the last bytes.
const SHOWN: u64 = 16 << 10;

/// A process that runs cases.
pub(super) struct Worker {
    child: Child,
    socket: BufReader<UnixStream>,
    /// What the process writes to its standard output and error. `None` if it inherits ours.
    output: Option<File>,
    limit: Duration,
}

/// How a case ended.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    /// What the process wrote while the case ran.
    pub(super) output: String,
    /// Whether the process can run another case.
    pub(super) alive: bool,
}

impl Outcome {
    /// A case that could not run, for a reason of the harness.
    pub(super) fn failed(name: String, error: &anyhow::Error) -> Self {
        let (verdict, reason) = (Verdict::Failed, Some(format!("{error:#}")));
        let entry = Entry { name, verdict, reason, seconds: 0.0, descriptors: None };
        Self { entry, output: String::new(), alive: false }
    }
}

/// Why there is no next event.
enum End {
    Exited(ExitStatus),
    TimedOut(Duration),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "its process ended: {status}"),
            Self::TimedOut(limit) => write!(f, "still running after {limit:?}; it was killed"),
        }
    }
}

impl Worker {
    /// Starts a process, which opens the fixture. Each of its steps may take as long as `limit`.
    pub(super) fn start(limit: Duration, capture: bool) -> Result<(Self, About)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(limit))?;
        let mut command = child_arguments(ROLE)?;
        // A group of its own, so that the children of its cases can be killed with it.
        command.stdin(OwnedFd::from(theirs)).process_group(0);
        let output = if capture { Some(tempfile::tempfile()?) } else { None };
        if let Some(file) = &output {
            command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        }
        let child = command.spawn().context("can't start a process")?;
        // The command holds the process's end of the socket.
        drop(command);
        let mut worker = Self { child, socket: BufReader::new(ours), output, limit };
        match worker.event()? {
            Ok(Event::Opened(about)) => Ok((worker, about)),
            other => Err(worker.unexpected("opening the GPU", other, 0)),
        }
    }

    /// Runs one case.
    pub(super) fn run(&mut self, name: &str) -> Result<Outcome> {
        let (start, position) = (Instant::now(), self.position()?);
        // If the process has ended, the next event reports it.
        let _ = self.socket.get_ref().write_all(format!("{name}\n").as_bytes());
        let (verdict, end) = match self.event()? {
            Ok(Event::Finished(entry)) if entry.name == name => {
                return Ok(Outcome { entry, output: self.output(position), alive: true });
            }
            Ok(other) => bail!("{name}: the process answers {other:?}"),
            Err(end @ End::Exited(_)) => (Verdict::Crashed, end),
            Err(end @ End::TimedOut(_)) => (Verdict::TimedOut, end),
        };
        let seconds = start.elapsed().as_millis() as f64 / 1000.0;
        let entry = Entry {
            name: name.into(),
            verdict,
            reason: Some(end.to_string()),
            seconds,
            descriptors: None,
        };
        Ok(Outcome { entry, output: self.output(position), alive: false })
    }

    /// Has the process close the fixture, and waits until it has ended.
    pub(super) fn close(mut self) -> Result<Closed> {
        let position = self.position()?;
        self.socket.get_ref().shutdown(Shutdown::Write)?;
        let closed = match self.event()? {
            Ok(Event::Closed(closed)) => closed,
            other => return Err(self.unexpected("closing the GPU", other, position)),
        };
        match self.event()? {
            Err(End::Exited(status)) if status.success() => Ok(closed),
            other => Err(self.unexpected("ending its process", other, position)),
        }
    }

    /// Waits for the next event. Otherwise the process has ended when this returns.
    fn event(&mut self) -> Result<Result<Event, End>> {
        let mut line = Vec::new();
        match self.socket.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Ok(Ok(serde_json::from_slice(&line)?)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.end()?;
                Ok(Err(End::TimedOut(self.limit)))
            }
            // The socket closes when the process ends, and is reset if it left a name unread.
            Ok(_) => Ok(Err(End::Exited(self.end()?))),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                Ok(Err(End::Exited(self.end()?)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An error of a process that did something else than was asked for.
    fn unexpected(
        &mut self,
        step: &str,
        found: Result<Event, End>,
        position: u64,
    ) -> anyhow::Error {
        let found = match found {
            Ok(event) => format!("unexpected {event:?}"),
            Err(end) => end.to_string(),
        };
        anyhow!("{step}: {found}\n{}", self.output(position))
    }

    /// Kills the process, unless it has ended, and the children that its cases left.
    fn end(&mut self) -> Result<ExitStatus> {
        // The group's number can't be used again before the process has been waited for. A process whose
        // socket has closed keeps the status it exits with.
        let group = Pid::from_raw(self.child.id().cast_signed()).context("a process without id")?;
        let killed = kill_process_group(group, Signal::KILL);
        killed.or_else(|error| if error == Errno::SRCH { Ok(()) } else { Err(error) })?;
        Ok(self.child.wait()?)
    }

    /// Where the output ends now.
    fn position(&self) -> Result<u64> {
        Ok(self.output.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?)
    }

    /// What the process wrote from `position` on.
    fn output(&self, position: u64) -> String {
        let Some(file) = &self.output else { return String::new() };
        let end = file.metadata().map_or(position, |found| found.len());
        let start = position.max(end.saturating_sub(SHOWN));
        let mut bytes = vec![0; end.saturating_sub(start) as usize];
        // Not by seeking: the process writes at the file's position, which both sides share.
        match file.read_exact_at(&mut bytes, start) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("its output can't be read: {error}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.end();
        }
    }
}
