//! Giving and taking: releases and acquires in wgpu's queue.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpu_interop::ash::vk;
use gpu_interop::error::Invalid;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket, VulkanCommands};
use gpu_interop::vulkan::{BufferAccess, Endpoint, ImageAccess, SubmitParts};
use gpu_interop::{ImageLayout, Result};
use wgpu::hal::api::Vulkan;

use crate::device::not_vulkan;
use crate::interop::Interop;
use crate::shared::{Shared, SharedBuffer, SharedTexture};

impl Interop {
    /// Gives `shared` to the acquiring side of a handoff. Everything submitted to the queue before
    /// is done when the other side gets it.
    ///
    /// Doesn't wait for the GPU.
    ///
    /// # Safety
    /// - Until the resources are taken back, wgpu commands don't use them, and they are not
    ///   destroyed with `destroy`.
    /// - `to` belongs to a handoff of [`endpoint`](Self::endpoint), and wgpu has the resources: they
    ///   are new, or were taken back.
    ///
    /// # Errors
    /// Same as [`Releaser::release`]; [`Invalid`] for a resource that was destroyed with `destroy`,
    /// and if called in a callback that runs within another `give` or `take`. After an error nothing
    /// is given.
    ///
    /// # References
    /// `vkQueueSubmit`, "Queue Family Ownership Transfer".
    #[doc(alias = "release")]
    pub unsafe fn give<'a>(
        &self,
        to: &mut Releaser<Endpoint>,
        shared: impl Into<Shared<'a>>,
    ) -> Result<Ticket> {
        let shared = shared.into();
        check_alive(&shared)?;
        let _handoff = Handoff::begin(&self.handoffs)?;
        let buffers: Vec<_> = buffers(&shared).collect();
        let images: Vec<_> = images(&shared)
            .map(|(used, home)| used.with_layouts(home, ImageLayout::GENERAL))
            .collect();
        let (encoder, commands) = self.raw_encoder()?;
        // SAFETY: the command buffer is being recorded for the family of wgpu's queue, outside a
        // render pass. The caller promises that wgpu has the resources, and the commands submitted
        // with it bring the textures home.
        let release = unsafe {
            VulkanCommands::record(commands, self.queue_family, (&buffers[..], &images[..]))
        };
        let (ticket, sync) = to.release(release)?;
        let work = [self.bring_home(shared.textures), encoder.finish()];
        // SAFETY: `submit` submits the commands with the waits before and the signals after, and
        // wgpu synchronises its queue. The endpoint or wgpu keeps what the commands use.
        unsafe {
            sync.submit_with(&self.endpoint, self.raw_queue, |parts| self.submit(parts, work))
        }?;
        Ok(ticket)
    }

    /// Takes `shared` from the releasing side of a handoff. Work submitted to the queue afterwards
    /// sees what the other side wrote. Textures are in their home.
    ///
    /// Doesn't wait for the GPU, unless the handoff's method is a host wait.
    ///
    /// # Safety
    /// - `shared` lists what the other side released, in the same order. wgpu gave its textures
    ///   before.
    /// - `from` belongs to a handoff of [`endpoint`](Self::endpoint).
    /// - A release by Vulkan names [`SharedTexture::home_layout`] as the new layout of each texture;
    ///   a release by CUDA leaves them in `VK_IMAGE_LAYOUT_GENERAL`, in which they were given.
    ///
    /// # Errors
    /// Same as [`Acquirer::acquire`]; [`Invalid`] as for [`give`](Self::give). After an error
    /// nothing is taken; [`Acquirer::lost_tickets`] returns the ticket.
    ///
    /// # References
    /// `vkQueueSubmit`, "Queue Family Ownership Transfer".
    #[doc(alias = "acquire")]
    pub unsafe fn take<'a>(
        &self,
        from: &mut Acquirer<Endpoint>,
        ticket: Ticket,
        shared: impl Into<Shared<'a>>,
    ) -> Result<()> {
        let shared = shared.into();
        check_alive(&shared)?;
        let _handoff = Handoff::begin(&self.handoffs)?;
        let buffers: Vec<_> = buffers(&shared).collect();
        let images: Vec<_> =
            images(&shared).map(|(used, home)| used.with_new_layout(home)).collect();
        let (encoder, commands) = self.raw_encoder()?;
        // SAFETY: the command buffer is being recorded for the family of wgpu's queue, outside a
        // render pass; the caller promises the rest.
        let acquire = unsafe {
            VulkanCommands::record(commands, self.queue_family, (&buffers[..], &images[..]))
        };
        let sync = from.acquire(ticket, acquire)?;
        let work = [encoder.finish(), self.bring_home(shared.textures)];
        // SAFETY: as in `give`.
        unsafe {
            sync.submit_with(&self.endpoint, self.raw_queue, |parts| self.submit(parts, work))
        }
    }

    /// Submits `work` with the semaphores of a handoff.
    fn submit(&self, parts: &SubmitParts, work: [wgpu::CommandBuffer; 2]) -> Result<()> {
        if parts.fence != vk::Fence::null() {
            return Err(Invalid::new("sync", "needs a VkFence, which wgpu can't signal").into());
        }
        let waits =
            parts.waits.iter().map(|wait| (wait.semaphore.handle(), wait.value, wait.stage));
        let signals = parts.signals.iter().map(|signal| (signal.semaphore.handle(), signal.value));
        submit(&self.queue, waits, work, signals)
    }
}

/// Submits `work`, which starts after `waits` and ends before `signals`.
///
/// wgpu-hal adds the semaphores to its next submit, which may be another thread's. The waits are
/// therefore submitted with `work` or before it, and the signals after it. Since wgpu-hal makes each
/// submit wait for the one before, that has the same effect as semaphores of `work` itself.
fn submit(
    queue: &wgpu::Queue,
    waits: impl IntoIterator<Item = (vk::Semaphore, Option<u64>, vk::PipelineStageFlags)>,
    work: impl IntoIterator<Item = wgpu::CommandBuffer>,
    signals: impl IntoIterator<Item = (vk::Semaphore, Option<u64>)>,
) -> Result<()> {
    // SAFETY: nothing is destroyed through the guard.
    let raw = unsafe { queue.as_hal::<Vulkan>() }.ok_or_else(not_vulkan)?;
    for (semaphore, value, stage) in waits {
        raw.add_wait_semaphore(semaphore, value, stage);
    }
    queue.submit(work);
    for (semaphore, value) in signals {
        raw.add_signal_semaphore(semaphore, value);
    }
    // With the signals, unless another thread's submit already has them.
    queue.submit([]);
    Ok(())
}

/// A handoff that is being recorded and submitted.
struct Handoff<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

thread_local! {
    static IN_HANDOFF: Cell<bool> = const { Cell::new(false) };
}

impl<'a> Handoff<'a> {
    /// Waits for those of other threads.
    fn begin(handoffs: &'a Mutex<()>) -> Result<Self> {
        if IN_HANDOFF.get() {
            // wgpu runs callbacks in a submit.
            return Err(Invalid::new("self", "is giving or taking already on this thread")
                .help("don't give or take in callbacks that wgpu calls in a submit")
                .into());
        }
        let guard = handoffs.lock().unwrap_or_else(PoisonError::into_inner);
        IN_HANDOFF.set(true);
        Ok(Self(guard))
    }
}

impl Drop for Handoff<'_> {
    fn drop(&mut self) {
        IN_HANDOFF.set(false);
    }
}

/// Every use that wgpu may have made or may make of the buffers.
fn buffers<'a>(shared: &Shared<'a>) -> impl Iterator<Item = BufferAccess<'a>> {
    shared.buffers.iter().map(|buffer| BufferAccess::any(&buffer.vulkan))
}

/// The same for the textures, with the layouts of their homes.
fn images<'a>(shared: &Shared<'a>) -> impl Iterator<Item = (ImageAccess<'a>, ImageLayout)> {
    let any = |texture: &'a SharedTexture| ImageAccess::any(&texture.vulkan);
    shared.textures.iter().map(move |texture| (any(texture), texture.home_layout()))
}

/// Rejects resources that wgpu would reject in a submit, when it is too late to return an error.
fn check_alive(shared: &Shared<'_>) -> Result<()> {
    let refuse = |what| Invalid::new(what, "one of them was destroyed with `destroy`");
    // SAFETY: nothing is destroyed through these guards.
    let is_alive = |buffer: &SharedBuffer| unsafe { buffer.wgpu.as_hal::<Vulkan>().is_some() };
    if !shared.buffers.iter().all(is_alive) {
        return Err(refuse("buffers").into());
    }
    // SAFETY: as above.
    let is_alive = |texture: &SharedTexture| unsafe { texture.wgpu.as_hal::<Vulkan>().is_some() };
    if !shared.textures.iter().all(is_alive) {
        return Err(refuse("textures").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
