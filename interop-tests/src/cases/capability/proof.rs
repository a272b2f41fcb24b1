//! Group A: what the endpoints say they can do, they do.

use anyhow::{Context, Result, ensure};
use gpu_interop::capabilities::{Dedicated, plan};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferUsage, SemaphoreKind};

use crate::cases::support::importers::{
    Importer, Peer, Semaphore, View, check_aliases, check_signals, for_each_importer,
    for_each_semaphore,
};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 20_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = for_each_importer("buffer/each_usage_is_proven_by_bytes/7", opaque_fd);
    cases.extend(for_each_semaphore("a_claim_is_proven_by_signals/7a", signals));
    cases.push(
        Case::new("vulkan→vulkan/dma_buf/buffer/each_usage_is_proven_by_bytes/7b", |machine| {
            let peer = Peer::Vulkan(machine.second_device()?);
            usages(machine.vulkan(), peer, MemoryHandleType::DmaBuf)
        })
        .needs(&[Need::DmaBufExport]),
    );
    cases.extend(Importer::ALL.map(|importer| {
        let name =
            format!("cuda→{}/opaque_fd/buffer/a_claim_is_proven_by_bytes/7c", importer.name());
        Case::new(name, move |machine| from_cuda(machine, importer.open(machine)?))
            .needs(&[Need::Cuda])
            .needs(importer.needs())
    }));
    cases
}

fn opaque_fd(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    usages(machine.vulkan(), peer, MemoryHandleType::OpaqueFd)
}

/// Each usage alone, as both sides claim it.
fn usages(gpu: &VulkanContext, peer: Peer<'_>, handle_type: MemoryHandleType) -> Result<()> {
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
    ensure!(proven > 0, "nothing is claimed");
    Ok(())
}

/// Exports a buffer of `desc` and imports it as that. What can't be copied to and from is looked at
/// through a second buffer at its place, on either side.
fn prove(
    gpu: &VulkanContext,
    peer: Peer<'_>,
    mut desc: BufferDesc,
    handle_type: MemoryHandleType,
    dedicated: bool,
) -> Result<()> {
    let copies = BufferDesc::storage(desc.size);
    if dedicated {
        // Nothing else can lie in its memory.
        desc.usage |= copies.usage;
    }
    let options = BufferOptions { handle_type, ..BufferOptions::default() };
    let exported = gpu.endpoint.create_buffer(&desc, options)?;
    let imported = peer.import_buffer(exported.export()?)?;
    let (mut exported, mut imported) = (View::Vulkan(gpu, exported), imported);
    if dedicated {
        return check_aliases(&mut exported, &mut imported);
    }
    check_aliases(&mut exported.again(&copies)?, &mut imported.again(&copies)?)
}

/// A claim is one kind of semaphore that Vulkan exports and the importer imports.
fn signals(machine: &TestGpu, peer: Peer<'_>, kind: SemaphoreKind) -> Result<()> {
    let gpu = machine.vulkan();
    let exported = gpu.endpoint.create_semaphore(kind)?;
    let imported = peer.import_semaphore(exported.export()?)?;
    let exported = Semaphore::Vulkan(gpu, exported);
    check_signals(&exported, &imported, kind, 1)?;
    check_signals(&imported, &exported, kind, 3)
}

/// CUDA's own memory, as far as both sides claim it.
fn from_cuda(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let gpu = machine.cuda()?;
    let desc = BufferDesc::storage(BYTES);
    let (from, to) = (gpu.endpoint.capabilities(&desc.into())?, peer.capabilities(&desc.into())?);
    plan(&from, &to, &desc.into())?;
    let exported = gpu.endpoint.create_buffer(&desc)?;
    let mut imported = peer.import_buffer(exported.export()?)?;
    check_aliases(&mut View::Cuda(gpu, exported), &mut imported)
}
