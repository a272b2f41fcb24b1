//! Group G: the validation layer watches. That it is silent is checked by the harness, case by case;
//! here, that it would not be.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use gpu_interop::BufferPayload;
use gpu_interop::ash::vk;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::headless::{
    GpuSelector, Message, MessageKind, Severity, Validation, Vulkan, VulkanOptions,
};

use crate::cases::support::payload_users::{CudaPlayer, GlPlayer, PayloadUser, VulkanPlayer, pass};
use crate::harness::{Case, Need, Role, TestGpu, child_arguments};
use interop_gpu::Kernel;
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

const BYTES: u64 = 64 << 10;
const ROUNDS: u32 = 20;

pub(crate) fn cases() -> Vec<Case> {
    let validation = [Need::Validation];
    vec![
        Case::new("vulkan/none/validation/a_mistake_is_heard/62", a_mistake_is_heard)
            .needs(&validation),
        Case::new("vulkan/none/validation/a_leak_is_heard/62", a_leak_is_heard).needs(&validation),
        Case::new("vulkan/none/validation/a_hazard_is_heard/62", a_hazard_is_heard)
            .needs(&validation),
        Case::new("vulkan→gl→vulkan/opaque_fd/buffer/no_hazard/62", no_hazard_with_gl)
            .needs(&validation)
            .needs(&[Need::Gl]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/buffer/no_hazard/62", no_hazard_with_cuda)
            .needs(&validation)
            .needs(&[Need::Cuda]),
    ]
}

/// What the layer says of one throwaway device.
#[derive(Clone, Default)]
pub(crate) struct ValidationLog(Arc<Mutex<Vec<Message>>>);

impl ValidationLog {
    /// A device that is watched as those of the suite are, by an ear of its own.
    pub(crate) fn open(&self, machine: &TestGpu, hazards: bool) -> Result<Vulkan> {
        self.open_on(machine.wish(), hazards)
    }

    fn open_on(&self, wish: &GpuSelector, hazards: bool) -> Result<Vulkan> {
        let into = self.clone();
        let keep =
            move |message| into.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        let options = VulkanOptions::default()
            .validation(Validation::Required)
            .synchronisation_validation(hazards)
            .messages(keep);
        Ok(Vulkan::open(wish, &options)?)
    }

    /// The messages about the use of Vulkan; what a driver says of itself is left out.
    pub(crate) fn take(&self) -> Vec<Message> {
        let mut heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        heard.retain(|message| message.kind != MessageKind::General);
        heard
    }

    /// An error by one of these names: they differ from one version of the layer to the next.
    pub(crate) fn require(&self, vuids: &[&str]) -> Result<()> {
        let heard = self.take();
        let is_it = |m: &Message| {
            m.severity == Severity::Error && vuids.iter().any(|vuid| m.to_string().contains(vuid))
        };
        ensure!(heard.iter().any(is_it), "none of {vuids:?} is among {heard:?}");
        Ok(())
    }

    pub(crate) fn require_silence(&self) -> Result<()> {
        let heard = self.take();
        ensure!(heard.is_empty(), "{heard:?}");
        Ok(())
    }
}

/// A buffer without any usage.
fn a_mistake_is_heard(machine: &TestGpu) -> Result<()> {
    let heard = ValidationLog::default();
    let vulkan = heard.open(machine, false)?;
    heard.require_silence()?;
    let info = vk::BufferCreateInfo::default().size(64);
    // SAFETY: not a valid use, on purpose: the layer sees it first, and drivers take it as it is.
    let made = unsafe { vulkan.device().create_buffer(&info, None) };
    if let Ok(buffer) = made {
        // SAFETY: made just now and used by nobody.
        unsafe { vulkan.device().destroy_buffer(buffer, None) };
    }
    heard.require(&[
        "VUID-VkBufferCreateInfo-usage-requiredbitmask",
        "VUID-VkBufferCreateInfo-None-09500",
    ])?;
    drop(vulkan);
    heard.require_silence()
}

/// A fence that is still there when its device goes: the messages of destruction arrive too. In a
/// child, since drivers may leave behind what belongs to the fence: NVIDIA's a descriptor.
fn a_leak_is_heard(machine: &TestGpu) -> Result<()> {
    let device = machine.wish().to_string();
    let output = child_arguments(LEAKS)?.env("INTEROP_DEVICE", device).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const LEAKS: &str = "leaks a fence";

/// What the children of these cases do.
pub(crate) fn roles() -> Vec<Role> {
    vec![(LEAKS, leak)]
}

fn leak() -> Result<()> {
    let heard = ValidationLog::default();
    let wish = std::env::var("INTEROP_DEVICE")?.parse()?;
    let vulkan = heard.open_on(&wish, false)?;
    // SAFETY: a valid device; what is forgotten here is memory of this process, until it ends.
    let _left = unsafe { vulkan.device().create_fence(&vk::FenceCreateInfo::default(), None) }?;
    heard.require_silence()?;
    drop(vulkan);
    heard.require(&["VUID-vkDestroyDevice-device-00378", "VUID-vkDestroyDevice-device-05137"])
}

/// Two fills of one buffer with no barrier between them.
fn a_hazard_is_heard(machine: &TestGpu) -> Result<()> {
    let heard = ValidationLog::default();
    let gpu = VulkanContext::new(heard.open(machine, true)?)?;
    let made = PrivateBuffer::device(&gpu.vulkan, 4096)?;
    let fill_twice = |barrier: bool| {
        gpu.run(|command| {
            for data in [1, 2] {
                // SAFETY: the command buffer is being recorded, and the buffer is that long. The
                // hazard is on purpose; either value would do.
                unsafe { gpu.device().cmd_fill_buffer(command, made.buffer, 0, 4096, data) };
                if barrier {
                    gpu.record_barrier(command);
                }
            }
            Ok(())
        })
    };
    fill_twice(true)?;
    heard.require_silence()?;
    fill_twice(false)?;
    heard.require(&["SYNC-HAZARD-WRITE-AFTER-WRITE"])
}

/// The library's acquires and releases, in one command buffer with a kernel and a copy, leave no
/// hazard to be found.
fn no_hazard<P: PayloadUser>(
    machine: &TestGpu,
    join: impl FnOnce(BufferPayload) -> Result<P>,
) -> Result<()> {
    let heard = ValidationLog::default();
    let gpu = VulkanContext::new(heard.open(machine, true)?)?;
    let copy = PrivateBuffer::device(&gpu.vulkan, BYTES)?;
    let mut vulkan = VulkanPlayer::create(&gpu, BYTES)?;
    let mut other = join(vulkan.export()?)?;
    let (here, options) = (&gpu.endpoint, HandoffOptions::default());
    let mut there = handoff::open(here, here, other.endpoint(), options)?;
    let mut back = handoff::open(here, other.endpoint(), here, options)?;
    for seed in 0..ROUNDS {
        vulkan.work(Kernel::Fill { seed })?;
        vulkan.copy_to(copy.buffer)?;
        pass(&mut there, &mut vulkan, &mut other)?;
        other.work(Kernel::PingPong { step: 1 })?;
        pass(&mut back, &mut other, &mut vulkan)?;
    }
    vulkan.read()?;
    heard.require_silence()
}

fn no_hazard_with_gl(machine: &TestGpu) -> Result<()> {
    let gpu = machine.gl()?;
    no_hazard(machine, |payload| GlPlayer::import(gpu, payload))
}

fn no_hazard_with_cuda(machine: &TestGpu) -> Result<()> {
    let gpu = machine.cuda()?;
    no_hazard(machine, |payload| CudaPlayer::import(gpu, payload))
}
