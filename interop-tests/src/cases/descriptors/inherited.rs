//! Group B: descriptors that a child must not get.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use anyhow::{Context, Result, ensure};
use gpu_interop::SemaphoreKind;

use crate::cases::descriptors::{self, closes_on_exec};
use crate::cases::support::exporters::{Exportable, Payload, for_each_exporter};
use crate::cases::support::importers::{Importer, Peer, for_each_importer};
use crate::harness::{Case, Role, TestGpu, child_arguments};

/// The child that tells which descriptors it was given.
const LISTS: &str = "lists its descriptors";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("each_descriptor_closes_on_exec/19", made);
    cases.extend(for_each_importer("buffer/one_given_back_closes_on_exec/19a", given_back));
    cases.push(Case::new("all/opaque_fd/all/a_child_gets_none/19b", child_gets_none));
    cases
}

/// What the children of these cases do.
pub(crate) fn roles() -> Vec<Role> {
    vec![(LISTS, list)]
}

fn made(object: &Exportable) -> Result<()> {
    let payload = object.export()?;
    ensure!(closes_on_exec(payload.as_fd())?, "an export doesn't");
    ensure!(closes_on_exec(payload.try_clone()?.as_fd())?, "a duplicate doesn't");
    ensure!(closes_on_exec(payload.try_clone()?.try_clone()?.as_fd())?, "nor does its duplicate");
    Ok(())
}

/// A payload that is refused comes back with the flag it had.
fn given_back(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (_exported, payload) = descriptors::export(machine)?;
    let junk = descriptors::with_fd(descriptors::eventfd()?, &payload)?;
    let refused = peer.import_buffer(junk).err().context("it was imported")?.into_payload();
    ensure!(closes_on_exec(refused.memory().as_fd())?, "what came back doesn't");
    Ok(())
}

/// With everything exported and imported that there is, a child after exec sees none of it.
///
/// A driver's own descriptors are its own affair, except on the CPU, where all the memory there is
/// would be in the child's hands.
fn child_gets_none(machine: &TestGpu) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let mut payloads = vec![Payload::Memory(payload.into_parts().0)];
    let mut imported = (Vec::new(), Vec::new());
    for importer in Importer::ALL.into_iter().filter(|importer| importer.is_there(machine)) {
        let peer = importer.open(machine)?;
        imported.0.push(peer.import_buffer(exported.export()?)?);
        for kind in [SemaphoreKind::Binary, SemaphoreKind::Timeline] {
            let Ok(semaphore) = machine.vulkan().endpoint.create_semaphore(kind) else { continue };
            imported.1.push(peer.import_semaphore(semaphore.export()?)?);
            payloads.push(Payload::Semaphore(semaphore.export()?));
        }
    }
    if let Ok(gpu) = machine.cuda() {
        let made = gpu.endpoint.create_buffer(&descriptors::desc())?;
        payloads.push(Payload::Memory(made.export()?.into_parts().0));
    }
    payloads.push(payloads[0].try_clone()?);
    let given = given_to_a_child()?;
    for payload in &payloads {
        let own = target(payload.as_fd())?;
        let same = given.get(&payload.number()) == Some(&own);
        ensure!(!same, "the child has {} by number {}", own, payload.number());
        // On the CPU each memory is a file of its own kind, by whatever number.
        let leaked = own.starts_with("/memfd:") && given.values().any(|other| *other == own);
        ensure!(!leaked, "the child has some {own}: {given:?}");
    }
    ensure!(given.contains_key(&0), "the child lists nothing: {given:?}");
    Ok(())
}

/// Starts a child, waits for its end, and returns what descriptors it had.
fn given_to_a_child() -> Result<BTreeMap<RawFd, String>> {
    let output = child_arguments(LISTS)?.output().context("starting a child")?;
    let (said, errors) = (String::from_utf8(output.stdout)?, output.stderr);
    ensure!(output.status.success(), "the child: {}", String::from_utf8_lossy(&errors));
    said.lines()
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

/// In the child: number and target of each descriptor, a line each.
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
