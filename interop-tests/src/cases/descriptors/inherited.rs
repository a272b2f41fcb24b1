//! Family B: descriptors that a child process must not inherit.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use anyhow::{Context, Result, ensure};
use gpu_interop::payload::Payload;
use gpu_interop::{Error, SemaphoreKind};

use crate::cases::support::fds::{self, closes_on_exec};
use crate::cases::support::importers::{
    Exportable, Importer, for_each_exporter, for_each_importer,
};
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, Role, TestGpu, child_arguments};

/// The child that lists the descriptors it inherited.
const LISTS: &str = "lists its descriptors";

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("each_descriptor_closes_on_exec/19", made);
    cases.extend(for_each_importer("buffer/a_returned_descriptor_closes_on_exec/19a", given_back));
    cases.push(Case::new("all/opaque_fd/all/a_child_inherits_no_descriptor/19b", child_gets_none));
    cases
}

/// The children of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(LISTS, list)]
}

fn made(object: &Exportable) -> Result<()> {
    let payload = object.export()?;
    ensure!(closes_on_exec(payload.as_fd())?, "an export does not close on exec");
    ensure!(closes_on_exec(payload.try_clone()?.as_fd())?, "a duplicate does not close on exec");
    ensure!(
        closes_on_exec(payload.try_clone()?.try_clone()?.as_fd())?,
        "the duplicate of a duplicate does not close on exec"
    );
    Ok(())
}

/// A payload that is refused comes back with its flag.
fn given_back(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (_exported, payload) = fds::export(test_gpu)?;
    let junk = fds::with_fd(fds::event_counter()?, &payload)?;
    let refused = peer.import_buffer(junk).err().context("it was imported")?.into_payload();
    ensure!(
        closes_on_exec(refused.memory().as_fd())?,
        "the payload that came back does not close on exec"
    );
    Ok(())
}

/// Exports and imports one of everything: a child has none of it after exec.
///
/// A driver's own descriptors may be inherited, except on the CPU, where they would give the child all
/// the memory.
fn child_gets_none(test_gpu: &TestGpu) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let mut payloads = vec![Payload::from(payload)];
    let mut imported = (Vec::new(), Vec::new());
    for importer in Importer::ALL.into_iter().filter(|importer| importer.is_available(test_gpu)) {
        let peer = importer.open(test_gpu)?;
        imported.0.push(peer.import_buffer(exported.export()?)?);
        for kind in [SemaphoreKind::Binary, SemaphoreKind::Timeline] {
            let semaphore = match test_gpu.vulkan().endpoint.create_semaphore(kind) {
                Err(Error::Missing(_)) => continue,
                other => other?,
            };
            imported.1.push(peer.import_semaphore(semaphore.export()?)?);
            payloads.push(semaphore.export()?.into());
        }
    }
    if Importer::Cuda.is_available(test_gpu) {
        let made = test_gpu.cuda()?.endpoint.create_buffer(&fds::desc())?;
        payloads.push(made.export()?.into());
    }
    payloads.push(payloads[0].try_clone()?);
    let given = given_to_a_child()?;
    for payload in &payloads {
        let own = target(payload.as_fd())?;
        let same = given.get(&payload.as_fd().as_raw_fd()) == Some(&own);
        ensure!(!same, "the child has {} with number {}", own, payload.as_fd().as_raw_fd());
        // On the CPU each memory is a file; look for it at any number.
        let leaked = own.starts_with("/memfd:") && given.values().any(|other| *other == own);
        ensure!(!leaked, "the child has some {own}: {given:?}");
    }
    ensure!(given.contains_key(&0), "the child lists nothing: {given:?}");
    Ok(())
}

/// Runs a child and returns the descriptors it had.
fn given_to_a_child() -> Result<BTreeMap<RawFd, String>> {
    let output = child_arguments(LISTS)?.output().context("starting a child")?;
    let (listed, errors) = (String::from_utf8(output.stdout)?, output.stderr);
    ensure!(output.status.success(), "the child: {}", String::from_utf8_lossy(&errors));
    listed
        .lines()
        .map(|line| {
            let (number, target) = line.split_once(' ').context("no number and target")?;
            Ok((number.parse()?, target.to_owned()))
        })
        .collect()
}

fn target(fd: BorrowedFd<'_>) -> Result<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(link.display().to_string())
}

/// In the child: prints number and target of each descriptor, one per line.
fn list() -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        entries.push((entry.file_name().display().to_string(), fs::read_link(entry.path())?));
    }
    for (number, target) in entries {
        println!("{number} {}", target.display());
    }
    Ok(())
}
