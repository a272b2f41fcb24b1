//! The process of one batch: runs the cases that its parent names, and reports each result.
//!
//! Standard input is a socket. The parent sends names, one per line, and closes its direction after the last.
//! The process answers in JSON, one [`Event`] per line. Its standard output and error belong to the cases and
//! the drivers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::case::CaseOn;
use super::fixture::{About, Fixture};
use super::judge::judge;
use super::process::open_descriptors;
use super::report::{DescriptorCounts, Entry};
use super::validation;

/// The role of such a process.
pub(super) const ROLE: &str = "batch";

/// What the process reports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The fixture is open.
    Opened(About),
    /// A case is done.
    Finished(Entry),
    /// The fixture is closed; the process ends.
    Closed(Closed),
}

/// What was found after the fixture was closed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) descriptors: DescriptorCounts,
    /// Descriptors that the cases left open or closed, and what the validation layer reported.
    pub(super) problems: Vec<String>,
}

/// Runs the cases that the parent names.
pub(super) fn serve<F: Fixture>(cases: Vec<CaseOn<F>>) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let cases: HashMap<_, _> = cases.into_iter().map(|case| (case.name.clone(), case)).collect();
    // Never closed: the parent takes its end for the end of the process, exit handlers included.
    let socket = ManuallyDrop::new(take_stdin()?);
    let send = |event: &Event| -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        Ok((&*socket).write_all(&line)?)
    };

    // Drivers keep descriptors of their own from the first opening on, and NVIDIA's (580.159) sometimes
    // keeps one until the next opening. These are not counted: both counts follow the same steps.
    drop(F::open()?);
    let before = open_descriptors();
    let fixture = F::open()?;
    send(&Event::Opened(fixture.about()))?;
    for name in BufReader::new(&*socket).lines() {
        let name = name?;
        let case = cases.get(&name).with_context(|| format!("no case has the name '{name}'"))?;
        send(&Event::Finished(judge(case, &fixture)))?;
    }
    let _ = validation::take();
    fixture.free_finished();
    drop(fixture);
    drop(F::open()?);
    let after = open_descriptors();
    let mut problems = validation::take();
    if let Err(error) = before.require_same(&after) {
        problems.push(format!("descriptors are left open: {error}"));
    }
    let descriptors =
        DescriptorCounts { before: before.count(), after: after.count(), processes: 1 };
    send(&Event::Closed(Closed { descriptors, problems }))?;
    Ok(())
}

/// Takes the socket that is standard input, which the children of cases must not inherit.
fn take_stdin() -> Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}
