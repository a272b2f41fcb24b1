//! Group G: one allocation in several APIs at once, and a payload that goes round all of them.

pub(crate) mod teardown;
pub(crate) mod threads;

use anyhow::{Context, Result};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferPayload, cuda, gl, vulkan};

use crate::cases::support::payload_users::{
    CudaPlayer, GlPlayer, RoundTrip, VulkanPlayer, around, there_and_back,
};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

/// Small, so that a thousand turns are mostly handoffs.
const BYTES: u64 = 16 << 10;
const TURNS: u32 = 1000;

pub(crate) fn cases() -> Vec<Case> {
    use Importer::{Cuda, Gl, SecondDevice, SecondInstance};
    let at_once = |name, importers: &'static [Importer]| {
        Case::new(name, |machine| any_order_of_import(machine, importers))
    };
    vec![
        at_once(
            "vulkan→vulkan+gl/opaque_fd/buffer/any_order_of_import/57",
            &[SecondDevice, SecondInstance, Gl],
        )
        .needs(&[Need::Gl]),
        at_once(
            "vulkan→vulkan+gl+cuda/opaque_fd/buffer/any_order_of_import/57",
            &[SecondDevice, SecondInstance, Gl, Cuda],
        )
        .needs(&[Need::Gl, Need::Cuda]),
        Case::new("vulkan→vulkan→vulkan/opaque_fd/buffer/1000_turns/58", vulkan_vulkan),
        Case::new("vulkan→gl→vulkan/opaque_fd/buffer/1000_turns/58", vulkan_gl).needs(&[Need::Gl]),
        Case::new("vulkan→vulkan→gl→vulkan/opaque_fd/buffer/1000_turns/58", vulkan_vulkan_gl)
            .needs(&[Need::Gl]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/buffer/1000_turns/58", vulkan_cuda)
            .needs(&[Need::Cuda]),
        Case::new("vulkan→cuda→gl→vulkan/opaque_fd/buffer/1000_turns/58", vulkan_cuda_gl)
            .needs(&[Need::Cuda, Need::Gl]),
    ]
}

/// Whatever the order in which the others import an allocation, each sees what any of them writes.
fn any_order_of_import(machine: &TestGpu, importers: &[Importer]) -> Result<()> {
    let desc = BufferDesc::storage(BYTES);
    for (order, seed) in orders(importers.len()).iter().zip((0u32..).step_by(16)) {
        let gpu = machine.vulkan();
        let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
        let mut views = Vec::new();
        for &next in order {
            views.push(importers[next].import(machine, buffer.export()?)?);
        }
        views.push(View::Vulkan(gpu, buffer));
        each_sees_all(&mut views, seed)
            .with_context(|| format!("imported in the order {order:?}"))?;
    }
    Ok(())
}

fn each_sees_all(views: &mut [View<'_>], first_seed: u32) -> Result<()> {
    for (writer, seed) in (0..views.len()).zip(first_seed..) {
        views[writer].write(&oracle::filled(BYTES as usize, seed))?;
        for (reader, view) in views.iter().enumerate() {
            oracle::check(&view.read()?, seed, &Turns::default())
                .with_context(|| format!("view {reader} of what view {writer} wrote"))?;
        }
    }
    Ok(())
}

/// Who imports.
#[derive(Clone, Copy, Debug)]
enum Importer {
    SecondDevice,
    SecondInstance,
    Gl,
    Cuda,
}

impl Importer {
    fn import(self, machine: &TestGpu, payload: BufferPayload) -> Result<View<'_>> {
        let vulkan = |gpu: &'_ VulkanContext, payload| gpu.endpoint.import_buffer(payload);
        Ok(match self {
            Self::SecondDevice => {
                let gpu = machine.second_device()?;
                View::Vulkan(gpu, vulkan(gpu, payload)?)
            }
            Self::SecondInstance => {
                let gpu = machine.second_instance()?;
                View::Vulkan(gpu, vulkan(gpu, payload)?)
            }
            Self::Gl => {
                let gpu = machine.gl()?;
                View::Gl(gpu, gpu.endpoint.import_buffer(payload)?)
            }
            Self::Cuda => {
                let gpu = machine.cuda()?;
                View::Cuda(gpu, gpu.endpoint.import_buffer(payload)?)
            }
        })
    }
}

/// One API's view of the allocation. The host waits after each write.
enum View<'a> {
    Vulkan(&'a VulkanContext, vulkan::Buffer),
    Gl(&'a GlContext, gl::Buffer),
    Cuda(&'a CudaContext, cuda::Buffer),
}

impl View<'_> {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Vulkan(gpu, buffer) => gpu.upload(buffer.handle(), 0, data),
            Self::Gl(gpu, buffer) => {
                gpu.upload(buffer.name(), 0, data)?;
                gpu.finish();
                Ok(())
            }
            Self::Cuda(gpu, buffer) => {
                gpu.stream.memcpy_htod(data, &mut buffer.as_view_mut::<u8>()?)?;
                Ok(gpu.stream.synchronize()?)
            }
        }
    }

    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Vulkan(gpu, buffer) => gpu.download(buffer.handle(), 0, BYTES),
            Self::Gl(gpu, buffer) => {
                gpu.endpoint.memory_barrier()?;
                gpu.download(buffer.name(), 0, BYTES)
            }
            Self::Cuda(gpu, buffer) => {
                let data = gpu.stream.clone_dtoh(&buffer.as_view::<u8>()?)?;
                gpu.stream.synchronize()?;
                Ok(data)
            }
        }
    }
}

fn vulkan_vulkan(machine: &TestGpu) -> Result<()> {
    let mut first = VulkanPlayer::create(machine.vulkan(), BYTES)?;
    let mut second = VulkanPlayer::import(machine.second_device()?, first.export()?)?;
    let owner = &machine.vulkan().endpoint;
    there_and_back(owner, (&mut first, &mut second), RoundTrip::of(TURNS))?;
    Ok(())
}

fn vulkan_gl(machine: &TestGpu) -> Result<()> {
    let mut vulkan = VulkanPlayer::create(machine.vulkan(), BYTES)?;
    let mut gl = GlPlayer::import(machine.gl()?, vulkan.export()?)?;
    there_and_back(&machine.vulkan().endpoint, (&mut vulkan, &mut gl), RoundTrip::of(TURNS))?;
    Ok(())
}

fn vulkan_vulkan_gl(machine: &TestGpu) -> Result<()> {
    let mut first = VulkanPlayer::create(machine.vulkan(), BYTES)?;
    let mut second = VulkanPlayer::import(machine.second_device()?, first.export()?)?;
    let mut gl = GlPlayer::import(machine.gl()?, first.export()?)?;
    let owner = &machine.vulkan().endpoint;
    around(owner, (&mut first, &mut second, &mut gl), RoundTrip::of(TURNS))
}

fn vulkan_cuda(machine: &TestGpu) -> Result<()> {
    let mut vulkan = VulkanPlayer::create(machine.vulkan(), BYTES)?;
    let mut cuda = CudaPlayer::import(machine.cuda()?, vulkan.export()?)?;
    there_and_back(&machine.vulkan().endpoint, (&mut vulkan, &mut cuda), RoundTrip::of(TURNS))?;
    Ok(())
}

fn vulkan_cuda_gl(machine: &TestGpu) -> Result<()> {
    let mut vulkan = VulkanPlayer::create(machine.vulkan(), BYTES)?;
    let mut cuda = CudaPlayer::import(machine.cuda()?, vulkan.export()?)?;
    let mut gl = GlPlayer::import(machine.gl()?, vulkan.export()?)?;
    let owner = &machine.vulkan().endpoint;
    around(owner, (&mut vulkan, &mut cuda, &mut gl), RoundTrip::of(TURNS))
}

/// Every order of `count` things, the given one first.
pub(crate) fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![vec![]], |shorter, next| {
        let insert = |order: Vec<usize>| {
            (0..=next).rev().map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, next);
                longer
            })
        };
        shorter.into_iter().flat_map(insert).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_once() {
        let all = orders(4);
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (24, 24));
        assert_eq!(all[0], [0, 1, 2, 3]);
        assert!(all.iter().all(|order| (0..4).all(|thing| order.contains(&thing))));
    }
}
