//! Group C: memory aliasing, Vulkan to Vulkan.

use anyhow::Result;
use gpu_interop::BufferDesc;
use gpu_interop::vulkan::BufferOptions;

use crate::rig::oracle;
use crate::suite::{Case, Machine};

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("vulkan→vulkan/opaque_fd/buffer/imported_twice/22", imported_twice)]
}

/// Exported once, imported by a second device and a second instance: each view sees what the others
/// write.
fn imported_twice(machine: &Machine) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let third = machine.second_instance()?;
    let desc = BufferDesc::storage(64 << 10);
    let exported = first.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let payload = exported.export()?;
    let there = second.endpoint.import_buffer(payload.try_clone()?)?;
    let yonder = third.endpoint.import_buffer(payload)?;
    let views = [(first, exported.handle()), (second, there.handle()), (third, yonder.handle())];
    for (seed, (writer, buffer)) in (1u32..).zip(views) {
        let data = oracle::filled(64 << 10, seed);
        writer.upload(buffer, 0, &data)?;
        for (reader, buffer) in views {
            let read = reader.download(buffer, 0, desc.size)?;
            oracle::check(&read, seed, &oracle::Turns::default())?;
        }
    }
    Ok(())
}
