//! Family E: the release to, and the acquire from, `VK_QUEUE_FAMILY_EXTERNAL`, as the validation layer's
//! synchronisation validation sees them.
//!
//! What version 1.3.239 of the layer detects, by measurement: within one command buffer it understands a
//! release followed by an acquire, and reports it if one of them is missing or names other commands than
//! those that ran. It does so for copies and fills only, not for storage buffers in compute shaders (two
//! kernels with nothing between them pass), and not from one submit to the next. It raises no false alarm.
//! So its silence proves something about the transfers in each command buffer; for kernels, the cases
//! compare the content.

use anyhow::{Context, Result, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::vulkan::{Buffer, BufferAccess, BufferOptions};

use crate::harness::{Case, Need, TestGpu, ValidationLog};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan/none/handoff/{what}/62");
    let validation = [Need::Validation];
    vec![
        Case::new(name("release_and_acquire_are_no_hazard"), no_hazard).needs(&validation),
        Case::new(name("a_wrong_or_missing_half_is_a_hazard"), wrong_halves).needs(&validation),
    ]
}

/// The use of the buffer that one half of a handoff names.
type Access = fn(&Buffer) -> BufferAccess<'_>;
const FILLED: Access = |buffer| BufferAccess::transfer(buffer);
const COMPUTED: Access = |buffer| BufferAccess::compute(buffer);

/// Returns how many hazards the layer finds between two fills, with these halves of a handoff in between.
fn hazards(
    test_gpu: &TestGpu,
    released: Option<Access>,
    acquired: Option<Access>,
) -> Result<usize> {
    let log = ValidationLog::default();
    let gpu = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    let buffer =
        gpu.endpoint.create_buffer(&BufferDesc::storage(4096), BufferOptions::default())?;
    let family = gpu.vulkan.queue_family();
    gpu.run(|command| {
        // SAFETY: the command buffer is being recorded for a queue of that family, and the buffer lives
        // until it was executed (`run` waits). A hazard is intended: both fills write the same.
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
    let found = log.take();
    for message in &found {
        ensure!(message.to_string().contains("SYNC-HAZARD-WRITE-AFTER-WRITE"), "{message}");
    }
    Ok(found.len())
}

fn no_hazard(test_gpu: &TestGpu) -> Result<()> {
    let found = hazards(test_gpu, Some(FILLED), Some(FILLED))?;
    ensure!(found == 0, "{found} hazards between a release and its acquire");
    Ok(())
}

fn wrong_halves(test_gpu: &TestGpu) -> Result<()> {
    for (what, released, acquired) in [
        ("nothing", None, None),
        ("no acquire", Some(FILLED), None),
        ("no release", None, Some(FILLED)),
        ("a release after kernels", Some(COMPUTED), Some(FILLED)),
        ("an acquire before kernels", Some(FILLED), Some(COMPUTED)),
    ] {
        let found = hazards(test_gpu, released, acquired).context(what)?;
        ensure!(found > 0, "{what}: no hazard was found");
    }
    Ok(())
}
