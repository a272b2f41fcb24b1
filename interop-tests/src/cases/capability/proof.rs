//! Family A: what the endpoints report as supported works.

use anyhow::{Context, Result, ensure};
use gpu_interop::capabilities::{Dedicated, plan};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferUsage, SemaphoreKind};

use crate::cases::support::importers::{Importer, for_each_importer, for_each_semaphore};
use crate::cases::support::views::{AnyContext, Semaphore, View, check_aliases, check_signals};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 20_000;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = for_each_importer("buffer/each_usage_is_proven_by_bytes/7", opaque_fd);
    cases.extend(for_each_semaphore("a_claim_is_proven_by_signals/7a", signals));
    cases.push(
        Case::new("vulkan→vulkan/dma_buf/buffer/each_usage_is_proven_by_bytes/7b", |test_gpu| {
            usages(test_gpu.vulkan(), test_gpu.second_device()?, MemoryHandleType::DmaBuf)
        })
        .needs(&[Need::DmaBufExport]),
    );
    cases.extend(Importer::ALL.map(|importer| {
        let name =
            format!("cuda→{}/opaque_fd/buffer/a_claim_is_proven_by_bytes/7c", importer.name());
        Case::new(name, move |test_gpu| from_cuda(test_gpu, importer.open(test_gpu)?))
            .needs(&[Need::Cuda])
            .needs(importer.needs())
    }));
    cases
}

fn opaque_fd(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    usages(test_gpu.vulkan(), peer, MemoryHandleType::OpaqueFd)
}

/// Proves each usage that both sides report.
fn usages(gpu: &VulkanContext, peer: &dyn AnyContext, handle_type: MemoryHandleType) -> Result<()> {
    let mut proven = 0;
    for usage in BufferUsage::all().iter() {
        let desc = BufferDesc { size: BYTES, usage };
        let (from, to) =
            (gpu.endpoint.capabilities(&desc.into())?, peer.capabilities(&desc.into())?);
        let (from, to) = (from.memory(handle_type)?, to.memory(handle_type)?);
        if from.export.is_ok() && to.import.is_ok() {
            let required = from.dedicated.max(to.dedicated) == Dedicated::Required;
            prove(gpu, peer, desc, handle_type, required).with_context(|| format!("{usage:?}"))?;
            proven += 1;
        }
    }
    ensure!(proven > 0, "no usage is reported as supported");
    Ok(())
}

/// Exports and imports a buffer of `desc`. Its usage may not allow copies, so each side reads and writes
/// through a second buffer at the same offset.
fn prove(
    gpu: &VulkanContext,
    peer: &dyn AnyContext,
    mut desc: BufferDesc,
    handle_type: MemoryHandleType,
    dedicated: bool,
) -> Result<()> {
    let copies = BufferDesc::storage(desc.size);
    if dedicated {
        // The memory can't hold a second buffer.
        desc.usage |= copies.usage;
    }
    let options = BufferOptions { handle_type, ..BufferOptions::default() };
    let exported = gpu.endpoint.create_buffer(&desc, options)?;
    let mut imported = peer.import_buffer(exported.export()?)?;
    let mut exported = View::new(gpu, exported);
    if dedicated {
        return check_aliases(&mut exported, &mut imported);
    }
    check_aliases(&mut exported.again(&copies)?, &mut imported.again(&copies)?)
}

/// Proves a kind of semaphore that Vulkan exports and the importer imports.
fn signals(test_gpu: &TestGpu, peer: &dyn AnyContext, kind: SemaphoreKind) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let exported = gpu.endpoint.create_semaphore(kind)?;
    let imported = peer.import_semaphore(exported.export()?)?;
    let exported = Semaphore::new(gpu, exported);
    check_signals(&exported, &imported, kind, 1)?;
    check_signals(&imported, &exported, kind, 3)
}

/// Proves that CUDA's own memory can be imported.
fn from_cuda(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let gpu = test_gpu.cuda()?;
    let desc = BufferDesc::storage(BYTES);
    let (from, to) = (gpu.endpoint.capabilities(&desc.into())?, peer.capabilities(&desc.into())?);
    plan(&from, &to, &desc.into())?;
    let exported = gpu.endpoint.create_buffer(&desc)?;
    let mut imported = peer.import_buffer(exported.export()?)?;
    check_aliases(&mut View::new(gpu, exported), &mut imported)
}
