//! Family D: OpenGL's imports of buffers, and those that are refused.

pub(crate) mod bindings;
pub(crate) mod contexts;
pub(crate) mod draw;
pub(crate) mod errors;
pub(crate) mod holders;
pub(crate) mod raw;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::payload::BufferPayload;
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation};
use gpu_interop::{BufferDesc, Error, gl, vulkan};

use crate::cases::opengl::raw::{MemoryObjects, pending_error, raise_users_error};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle::{self, Passes};

const BYTES: usize = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/buffer/{what}"), run).needs(&[Need::Gl])
    };
    vec![
        case("not_dedicated/26", |test_gpu| aliases(test_gpu, DedicatedAllocation::Avoid)),
        case("dedicated/26", |test_gpu| aliases(test_gpu, DedicatedAllocation::Always))
            .expected_failure(
                "llvmpipe",
                "requires 48 bytes after a buffer, and a dedicated allocation ends with the buffer",
                "GL_OUT_OF_MEMORY",
            ),
        case("too_short_a_tail_is_explained/26c", short_tail),
        case("two_at_offsets/30", two_at_offsets).expected_failure(
            "llvmpipe",
            "ignores a buffer's offset, so that the library refuses one (see at_an_offset/30e)",
            "a buffer at offset",
        ),
        case("past_the_end_is_refused_before_gl_sees_it/33", past_the_end),
        case("dedicated_is_as_in_the_payload/34", dedicated_parameter),
        case("mapping_is_refused_and_sub_data_works/35", mapping),
        case("dropped_names_are_deleted/35a", dropped),
        case("without_its_context_the_payload_comes_back/35b", not_current),
    ]
}

/// A buffer that Vulkan creates and exports, and OpenGL's import of it.
pub(crate) fn shared(
    test_gpu: &TestGpu,
    desc: &BufferDesc,
    options: BufferOptions,
) -> Result<(vulkan::Buffer, gl::Buffer)> {
    let exported = test_gpu.vulkan().endpoint.create_buffer(desc, options)?;
    let imported = test_gpu.gl()?.endpoint.import_buffer(exported.export()?)?;
    Ok((exported, imported))
}

/// Each API reads what the other writes. The host waits in between.
fn alias(test_gpu: &TestGpu, ours: &vulkan::Buffer, theirs: &gl::Buffer, seed: u32) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let size = ours.desc().size;
    let bytes = usize::try_from(size)?;
    vulkan.upload(ours.handle(), 0, &oracle::filled(bytes, seed))?;
    gl.endpoint.memory_barrier()?;
    let read = gl.download(theirs.name(), 0, size)?;
    oracle::check(&read, seed, &Passes::default()).context("Vulkan wrote, OpenGL reads")?;
    gl.upload(theirs.name(), 0, &oracle::filled(bytes, seed + 1))?;
    gl.finish();
    let read = vulkan.download(ours.handle(), 0, size)?;
    oracle::check(&read, seed + 1, &Passes::default()).context("OpenGL wrote, Vulkan reads")
}

fn aliases(test_gpu: &TestGpu, dedicated: DedicatedAllocation) -> Result<()> {
    let options = BufferOptions { dedicated, ..BufferOptions::default() };
    let (ours, theirs) = shared(test_gpu, &BufferDesc::storage(BYTES as u64), options)?;
    alias(test_gpu, &ours, &theirs, 1)
}

/// An allocation without space after the buffer is imported, or the error explains the reason and the payload
/// comes back, to be used elsewhere.
fn short_tail(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let dedicated = DedicatedAllocation::Always;
    let options = BufferOptions { dedicated, ..BufferOptions::default() };
    let desc = BufferDesc::storage(BYTES as u64);
    let ours = vulkan.endpoint.create_buffer(&desc, options)?;
    let refused = match gl.endpoint.import_buffer(ours.export()?) {
        Ok(theirs) => return alias(test_gpu, &ours, &theirs, 1),
        Err(refused) => refused,
    };
    let (payload, error) = refused.into_parts();
    let text = error.to_string();
    match error {
        Error::Driver(driver) => {
            ensure!(driver.code == i64::from(glow::OUT_OF_MEMORY), "{driver:?}");
            ensure!(text.contains("llvmpipe requires") && text.contains("allocate more"), "{text}");
        }
        other => bail!("{other:?}"),
    }
    let second = test_gpu.second_device()?;
    let theirs = second.endpoint.import_buffer(payload)?;
    second.upload(theirs.handle(), 0, &oracle::filled(BYTES, 3))?;
    let read = vulkan.download(ours.handle(), 0, desc.size)?;
    Ok(oracle::check(&read, 3, &Passes::default())?)
}

/// Each at its own place of one allocation: writing one doesn't change another.
fn two_at_offsets(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let descs = [100, 70_001, 5_003].map(BufferDesc::storage);
    let ours = vulkan.endpoint.create_buffers(&descs, BufferOptions::default())?;
    let memory = gl.endpoint.import_memory(ours[0].memory().export()?)?;
    let place = |buffer: &vulkan::Buffer| Ok(memory.buffer(buffer.offset(), buffer.desc())?);
    let theirs = ours.iter().map(place).collect::<Result<Vec<_>>>()?;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        alias(test_gpu, ours, theirs, 1)?;
    }
    for (seed, buffer) in (10u32..).zip(&theirs) {
        let bytes = usize::try_from(buffer.desc().size)?;
        gl.upload(buffer.name(), 0, &oracle::filled(bytes, seed))?;
    }
    gl.finish();
    for (seed, buffer) in (10u32..).zip(&ours) {
        let read = vulkan.download(buffer.handle(), 0, buffer.desc().size)?;
        oracle::check(&read, seed, &Passes::default())
            .with_context(|| format!("at offset {}", buffer.offset()))?;
    }
    Ok(())
}

/// A buffer that reaches past the end of its memory is refused before OpenGL is called: a pending error stays
/// pending.
///
/// The library's types rule out row 32, a memory object without memory, because a `gl::Memory` comes only from
/// an import, and row 31, memory object 0, because the name is a `NonZeroU32`. The cases of `raw` check
/// OpenGL's own errors for both.
fn past_the_end(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let desc = BufferDesc::storage(BYTES as u64);
    let ours = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
    let size = memory.info().allocation_size;
    raise_users_error(gl);
    for (what, offset, bytes) in [
        ("longer than the memory", 0, size + 1),
        ("at its end", size, 1),
        ("across its end", size - 1, 2),
        ("at an offset that overflows", u64::MAX, 1),
        ("of a size that overflows", 1, u64::MAX),
        ("of a size that is negative in OpenGL", 0, 1 << 63),
    ] {
        let desc = BufferDesc::storage(bytes);
        match memory.buffer(offset, &desc) {
            Err(Error::Invalid(refused)) => {
                ensure!(refused.to_string().contains(&size.to_string()), "{what}: {refused}");
            }
            other => bail!("a buffer {what}: {other:?}"),
        }
        // A payload can't describe it either: the memory comes back.
        let refused = BufferPayload::new(ours.memory().export()?, offset, desc).err();
        let (payload, error) = refused.context("a payload was made")?.into_parts();
        ensure!(matches!(error, Error::Invalid(_)), "a payload {what}: {error:?}");
        ensure!(payload.info().allocation_size == size, "another payload came back");
    }
    ensure!(pending_error(gl)? == glow::INVALID_ENUM, "OpenGL was called");
    Ok(())
}

/// GL_DEDICATED_MEMORY_OBJECT_EXT is true exactly if the exporter's memory is dedicated to the buffer.
fn dedicated_parameter(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let objects = MemoryObjects::load(gl)?;
    let desc = BufferDesc::storage(BYTES as u64);
    for dedicated in [DedicatedAllocation::Avoid, DedicatedAllocation::Always] {
        let options = BufferOptions { dedicated, ..BufferOptions::default() };
        let ours = vulkan.endpoint.create_buffer(&desc, options)?;
        let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
        let (set, is_dedicated) =
            (objects.is_dedicated(gl, memory.name())?, ours.memory().info().dedicated);
        ensure!(set == is_dedicated, "the payload: {is_dedicated}, OpenGL: {set}");
    }
    Ok(())
}

/// OpenGL maps a buffer of imported memory only if its storage flags allow it (Mesa has only
/// GL_DYNAMIC_STORAGE_BIT). The content is accessible by glBufferSubData.
fn mapping(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let (ours, theirs) =
        shared(test_gpu, &BufferDesc::storage(BYTES as u64), BufferOptions::default())?;
    let (context, target) = (gl.gl.glow(), glow::COPY_READ_BUFFER);
    // SAFETY: the context is current, and the buffer its own.
    let flags = unsafe {
        context.bind_buffer(target, Some(theirs.name()));
        context.get_buffer_parameter_i32(target, glow::BUFFER_STORAGE_FLAGS)
    };
    gl.check("glGetBufferParameteriv(GL_BUFFER_STORAGE_FLAGS)")?;
    for access in [glow::MAP_READ_BIT, glow::MAP_WRITE_BIT] {
        // SAFETY: the context is current, the buffer its own and that long; a mapping is not used, and
        // unmapped.
        let (refused, error) = unsafe {
            let start = context.map_buffer_range(target, 0, i32::try_from(BYTES)?, access);
            let error = context.get_error();
            if !start.is_null() {
                context.unmap_buffer(target);
            }
            (start.is_null(), error)
        };
        let allowed = u32::try_from(flags)? & access != 0;
        ensure!(refused != allowed, "flags {flags:#x}, access {access:#x}, refused: {refused}");
        let expected = if refused { glow::INVALID_OPERATION } else { glow::NO_ERROR };
        ensure!(error == expected, "flags {flags:#x}, access {access:#x}: {error:#06x}");
    }
    alias(test_gpu, &ours, &theirs, 1)?;
    // A part of it, at an offset.
    gl.upload(theirs.name(), 4096, &oracle::filled(8192, 9))?;
    gl.finish();
    let read = test_gpu.vulkan().download(ours.handle(), 0, BYTES as u64)?;
    oracle::check(&read[..4096], 2, &Passes::default())?;
    oracle::check(&read[4096..12_288], 9, &Passes::default())?;
    Ok(oracle::check_from(&read[12_288..], 12_288 / 4, 2, &Passes::default())?)
}

/// Dropping deletes the names: at once if the context is current, otherwise with the next operation. Some
/// drivers require that the memory waits.
fn dropped(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let objects = MemoryObjects::load(gl)?;
    let desc = BufferDesc::storage(BYTES as u64);
    // SAFETY: the context is current when this is called.
    let is_buffer = |name| unsafe { gl.gl.glow().is_buffer(name) };
    for (current, by_barrier) in [(true, false), (false, false), (false, true)] {
        let (_ours, theirs) = shared(test_gpu, &desc, BufferOptions::default())?;
        let (name, memory) = (theirs.name(), theirs.memory().name());
        ensure!(is_buffer(name) && objects.is_memory_object(memory), "not created");
        if !current {
            gl.gl.release_current()?;
        }
        drop(theirs);
        gl.gl.make_current()?;
        if by_barrier {
            gl.endpoint.memory_barrier()?;
        }
        let at_once = current || by_barrier;
        ensure!(is_buffer(name) != at_once, "current: {current}, by a barrier: {by_barrier}");
        let deleted = gl.endpoint.delete_dropped()?;
        ensure!(at_once || deleted >= 2, "{deleted} names were left");
        ensure!(!is_buffer(name) && !objects.is_memory_object(memory), "still there");
    }
    Ok(())
}

/// Without a current context, nothing is done, and the payload comes back.
fn not_current(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let desc = BufferDesc::storage(BYTES as u64);
    let ours = test_gpu.vulkan().endpoint.create_buffer(&desc, BufferOptions::default())?;
    let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
    gl.gl.release_current()?;
    let import = gl.endpoint.import_buffer(ours.export()?);
    let buffer = memory.buffer(0, &desc);
    let fence = gl.endpoint.fence();
    gl.gl.make_current()?;
    for error in [buffer.err(), fence.err()] {
        let error = error.context("done without a context")?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains("make it current"), "{error}");
    }
    let (payload, error) = import.err().context("imported without a context")?.into_parts();
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    let theirs = gl.endpoint.import_buffer(payload)?;
    alias(test_gpu, &ours, &theirs, 1)
}
