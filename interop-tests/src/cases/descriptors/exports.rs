//! Family B: descriptors that an export creates.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Result, ensure};

use crate::cases::support::fds::{
    self, Bystanders, is_open, leave_nothing_open, leaves_nothing_open,
};
use crate::cases::support::importers::{Exportable, for_each_exporter, for_each_importer};
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("each_export_is_a_new_descriptor/8", each_is_new);
    cases.extend(for_each_importer("buffer/each_export_is_the_same_memory/8a", each_is_the_same));
    cases.push(
        Case::new("cuda→cuda/opaque_fd/buffer/an_export_is_the_same_memory/8b", |test_gpu| {
            cuda_to_itself(test_gpu.cuda()?)
        })
        .needs(&[Need::Cuda]),
    );
    cases.extend(for_each_exporter("dropping_an_export_closes_it_once/9", is_closed_once));
    cases.extend(for_each_exporter("4096_exports/16", many_exports));
    cases
}

/// Each export and each duplicate has a number of its own, and all are open at once.
fn each_is_new(object: &Exportable) -> Result<()> {
    let mut payloads = vec![object.export()?, object.export()?, object.export()?];
    payloads.push(payloads[0].try_clone()?);
    let mut numbers: Vec<_> = payloads.iter().map(|payload| payload.as_fd().as_raw_fd()).collect();
    ensure!(numbers.iter().all(|&raw| raw >= 0 && is_open(raw)), "{numbers:?} are not all open");
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.len() == payloads.len(), "not all new: {numbers:?}");
    Ok(())
}

/// Imports three exports of one buffer: each view reads what the exporter writes, and the reverse.
fn each_is_the_same(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (buffer, first) = fds::export(test_gpu)?;
    let payloads = [first, buffer.export()?, buffer.export()?];
    let mut exporter = View::new(test_gpu.vulkan(), buffer);
    let mut views = Vec::new();
    for payload in payloads {
        views.push(peer.import_buffer(payload)?);
    }
    for view in &mut views {
        check_aliases(&mut exporter, view)?;
    }
    Ok(())
}

/// CUDA exports memory and imports it again: it is the same memory.
fn cuda_to_itself(gpu: &CudaContext) -> Result<()> {
    let buffer = gpu.endpoint.create_buffer(&fds::desc())?;
    let imported = gpu.endpoint.import_buffer(buffer.export()?)?;
    check_aliases(&mut View::new(gpu, buffer), &mut View::new(gpu, imported))
}

/// Dropping a payload that was not imported closes its descriptor once: a file that gets the same number
/// afterwards stays open.
fn is_closed_once(object: &Exportable) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = object.export()?;
        let (raw, duplicate) = (payload.as_fd().as_raw_fd(), payload.try_clone()?);
        drop(payload);
        ensure!(!is_open(raw), "{raw} is still open");
        let bystanders = Bystanders::fill(raw)?;
        ensure!(bystanders.include(raw), "{raw} is not free");
        drop(duplicate);
        bystanders.check()
    })
}

/// 4096 exports, each dropped, leave no descriptor open.
fn many_exports(object: &Exportable) -> Result<()> {
    leave_nothing_open(4096, || {
        drop(object.export()?);
        Ok(())
    })
}
