//! Group B: descriptors that an export makes.

use anyhow::{Result, ensure};

use crate::cases::descriptors::{
    self, Bystanders, is_open, leave_nothing_open, leaves_nothing_open,
};
use crate::cases::support::exporters::{Exportable, for_each_exporter};
use crate::cases::support::importers::{Peer, View, check_aliases, for_each_importer};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("each_export_is_a_new_descriptor/8", each_is_new);
    cases.extend(for_each_importer("buffer/each_export_is_the_same_memory/8a", each_is_the_same));
    cases.push(
        Case::new("cuda→cuda/opaque_fd/buffer/an_export_is_the_same_memory/8b", |machine| {
            cuda_to_itself(machine.cuda()?)
        })
        .needs(&[Need::Cuda]),
    );
    cases.extend(for_each_exporter("dropping_an_export_closes_it_once/9", is_closed_once));
    cases.extend(for_each_exporter("4096_exports/16", many_exports));
    cases
}

/// Each export, and each duplicate of one, has a number of its own, and all are open at once.
fn each_is_new(object: &Exportable) -> Result<()> {
    let mut payloads = vec![object.export()?, object.export()?, object.export()?];
    payloads.push(payloads[0].try_clone()?);
    let mut numbers: Vec<_> = payloads.iter().map(|payload| payload.number()).collect();
    ensure!(numbers.iter().all(|&raw| raw >= 0 && is_open(raw)), "{numbers:?} are not all open");
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.len() == payloads.len(), "not all new: {numbers:?}");
    Ok(())
}

/// Three exports of one buffer, each imported: each view sees what the exporter writes, and the other
/// way round.
fn each_is_the_same(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (buffer, first) = descriptors::export(machine)?;
    let payloads = [first, buffer.export()?, buffer.export()?];
    let mut exporter = View::Vulkan(machine.vulkan(), buffer);
    let mut views = Vec::new();
    for payload in payloads {
        views.push(peer.import_buffer(payload)?);
    }
    for view in &mut views {
        check_aliases(&mut exporter, view)?;
    }
    Ok(())
}

/// What CUDA made and exported is the same memory when CUDA imports it again.
fn cuda_to_itself(gpu: &CudaContext) -> Result<()> {
    let buffer = gpu.endpoint.create_buffer(&descriptors::desc())?;
    let imported = gpu.endpoint.import_buffer(buffer.export()?)?;
    check_aliases(&mut View::Cuda(gpu, buffer), &mut View::Cuda(gpu, imported))
}

/// A payload that nobody imports is closed when it is dropped; what is opened by the same number since
/// is left alone.
fn is_closed_once(object: &Exportable) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = object.export()?;
        let (raw, duplicate) = (payload.number(), payload.try_clone()?);
        drop(payload);
        ensure!(!is_open(raw), "{raw} is still open");
        let bystanders = Bystanders::fill(raw)?;
        ensure!(bystanders.sit_at(raw), "{raw} is not free");
        drop(duplicate);
        bystanders.check()
    })
}

/// 4096 exports, each dropped, leave nothing behind.
fn many_exports(object: &Exportable) -> Result<()> {
    leave_nothing_open(4096, || {
        drop(object.export()?);
        Ok(())
    })
}
