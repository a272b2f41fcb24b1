//! Group E: the release to, and the acquire from, `VK_QUEUE_FAMILY_EXTERNAL`, as the layer's
//! synchronisation validation sees them.
//!
//! What version 1.3.239 of the layer is good for, measured: within one command buffer it takes a
//! release followed by an acquire for what they are, and hears it where either is missing or names
//! other commands than those that ran; but only of copies and fills, not of what compute shaders do to
//! storage buffers (two kernels with nothing between them pass), and nothing at all from one submit to
//! the next. It raises no false alarm. So its silence over a game proves something of the transfers in
//! each command buffer, and the kernels are left to the content.

use anyhow::{Context, Result, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::vulkan::{Buffer, BufferAccess, BufferOptions};

use crate::harness::{Case, Need, TestGpu, ValidationLog};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan/none/handoff/{what}/62");
    let validation = [Need::Validation];
    vec![
        Case::new(name("release_and_acquire_are_no_hazard"), silent).needs(&validation),
        Case::new(name("a_wrong_or_missing_half_is_a_hazard"), heard).needs(&validation),
    ]
}

/// How one half of a handoff says that the buffer is used.
type Access = fn(&Buffer) -> BufferAccess<'_>;
const FILLED: Access = |buffer| BufferAccess::transfer(buffer);
const COMPUTED: Access = |buffer| BufferAccess::compute(buffer);

/// How often the layer finds a hazard between two fills, with these halves of a handoff in between.
fn hazards(machine: &TestGpu, released: Option<Access>, acquired: Option<Access>) -> Result<usize> {
    let heard = ValidationLog::default();
    let gpu = VulkanContext::new(heard.open(machine.selector(), true)?)?;
    let buffer =
        gpu.endpoint.create_buffer(&BufferDesc::storage(4096), BufferOptions::default())?;
    let family = gpu.vulkan.queue_family();
    gpu.run(|command| {
        // SAFETY: the command buffer is being recorded for a queue of that family, and the buffer
        // lives until it was executed (`run` waits). A hazard is on purpose: all write the same.
        unsafe {
            gpu.device().cmd_fill_buffer(command, buffer.handle(), 0, 4096, 1);
            if let Some(access) = released {
                gpu.endpoint.record_release(command, family, &[access(&buffer)])?;
            }
            if let Some(access) = acquired {
                gpu.endpoint.record_acquire(command, family, &[access(&buffer)])?;
            }
            gpu.device().cmd_fill_buffer(command, buffer.handle(), 0, 4096, 1);
        }
        Ok(())
    })?;
    let found = heard.take();
    for message in &found {
        ensure!(message.to_string().contains("SYNC-HAZARD-WRITE-AFTER-WRITE"), "{message}");
    }
    Ok(found.len())
}

fn silent(machine: &TestGpu) -> Result<()> {
    let found = hazards(machine, Some(FILLED), Some(FILLED))?;
    ensure!(found == 0, "{found} hazards between a release and its acquire");
    Ok(())
}

fn heard(machine: &TestGpu) -> Result<()> {
    for (what, released, acquired) in [
        ("nothing", None, None),
        ("no acquire", Some(FILLED), None),
        ("no release", None, Some(FILLED)),
        ("a release of what kernels did", Some(COMPUTED), Some(FILLED)),
        ("an acquire for what kernels will do", Some(FILLED), Some(COMPUTED)),
    ] {
        let found = hazards(machine, released, acquired).context(what)?;
        ensure!(found > 0, "{what}: no hazard was found");
    }
    Ok(())
}
