//! What reaches OpenGL, as calls and arguments, and in which order.

mod context;
mod recorder;

use std::time::Duration;

use context::endpoint;
use recorder::{
    bindings, generate, refuse, set_current, set_tilings, take_calls, take_error, take_names,
    take_reported, warnings,
};

use super::{Buffer, Endpoint, Memory, Semaphore};
use crate::desc::{
    BufferDesc, Extent, ImageDesc, ImageKind, ImageLayout, ImageUsage, ResourceDesc, Tiling,
};
use crate::error::Error;
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::Format;
use crate::identity::{Identity, Uuid};
use crate::payload::{
    BufferPayload, ImagePayload, MemoryInfo, MemoryPayload, SemaphoreInfo, SemaphoreKind,
    SemaphorePayload,
};

/// An endpoint of an OpenGL that records its calls, for the tests of other modules.
#[cfg(feature = "vulkan")]
pub(crate) fn recorded_endpoint() -> Endpoint {
    let gl = endpoint();
    take_calls();
    gl
}

/// Returns the names of the calls since the last time.
#[cfg(feature = "vulkan")]
pub(crate) fn recorded_names() -> Vec<&'static str> {
    take_names()
}

const SIZE: u64 = 1 << 20;
const BUFFER: BufferDesc = BufferDesc::storage(4096);
/// `GL_HANDLE_TYPE_OPAQUE_FD_EXT`.
const OPAQUE_FD: u64 = 0x9586;

fn identity() -> Identity {
    let uuid = |byte| Uuid::from_bytes([byte; 16]);
    let driver = Some(uuid(recorder::DRIVER));
    Identity { device: uuid(recorder::DEVICE), driver, name: "recorder".into() }
}

fn memory_payload(dedicated: bool) -> MemoryPayload {
    let info = MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: SIZE,
        memory_type_index: None,
        dedicated,
        identity: identity(),
    };
    MemoryPayload::new(recorder::memory_fd(SIZE), info).unwrap()
}

fn memory(gl: &Endpoint) -> Memory {
    gl.import_memory(memory_payload(false)).unwrap()
}

fn buffer(gl: &Endpoint) -> Buffer {
    let payload = BufferPayload::new(memory_payload(false), 0, BUFFER).unwrap();
    gl.import_buffer(payload).unwrap()
}

fn semaphore(gl: &Endpoint, kind: SemaphoreKind) -> Semaphore {
    let handle_type = SemaphoreHandleType::OpaqueFd;
    let info = SemaphoreInfo { handle_type, kind, identity: identity() };
    let payload = SemaphorePayload::new(recorder::semaphore_fd(), info).unwrap();
    gl.import_semaphore(payload).unwrap()
}

fn flat() -> ImageDesc {
    ImageDesc::d2(Format::Rgba8Unorm, 16, 16, ImageUsage::SAMPLED)
}

/// One image of each texture target.
fn images() -> Vec<ImageDesc> {
    let row = Extent { width: 16, height: 1, depth: 1 };
    let deep = Extent { width: 16, height: 16, depth: 4 };
    let line = ImageDesc { kind: ImageKind::D1, extent: row, ..flat() };
    vec![
        line,
        ImageDesc { layers: 3, ..line },
        flat(),
        ImageDesc { layers: 3, ..flat() },
        ImageDesc { samples: 4, ..flat() },
        ImageDesc { samples: 4, layers: 3, ..flat() },
        ImageDesc { kind: ImageKind::D3, extent: deep, ..flat() },
        ImageDesc { kind: ImageKind::Cube, layers: 6, ..flat() },
        ImageDesc { kind: ImageKind::Cube, layers: 12, ..flat() },
    ]
}

/// The arguments of the only call of `name`.
fn arguments(name: &str) -> Vec<u64> {
    let mut calls = take_calls().into_iter().filter(|(called, _)| *called == name);
    let (_, arguments) = calls.next().unwrap_or_else(|| panic!("{name} was not called"));
    assert_eq!(calls.next(), None, "{name} was called twice");
    arguments
}

#[test]
fn the_identity_is_opengls() {
    assert_eq!(endpoint().identities(), [identity()]);
}

#[test]
fn bindings_are_put_back() {
    let gl = endpoint();
    let before = bindings();
    let memory = memory(&gl);
    drop(memory.buffer(0, &BUFFER).unwrap());
    drop(buffer(&gl));
    assert_eq!(bindings(), before);
    for desc in images() {
        let texture = memory.texture(0, &desc).unwrap();
        assert_eq!(bindings(), before, "{desc:?}");
        assert!(before.contains_key(&texture.target()), "{desc:?}");
    }
}

#[test]
fn bindings_are_put_back_when_opengl_refuses() {
    let gl = endpoint();
    let (before, memory) = (bindings(), memory(&gl));
    refuse("glBufferStorageMemEXT");
    assert!(matches!(memory.buffer(0, &BUFFER), Err(Error::Driver(_))));
    assert_eq!(bindings(), before);
    for refused in ["glTexParameteri", "glTexStorageMem2DEXT"] {
        refuse(refused);
        assert!(matches!(memory.texture(0, &flat()), Err(Error::Driver(_))));
        assert_eq!(bindings(), before, "{refused}");
    }
    // What was created for them is deleted again.
    let names = take_names();
    let count = |name| names.iter().filter(|called| **called == name).count();
    assert_eq!((count("glGenBuffers"), count("glDeleteBuffers")), (1, 1));
    assert_eq!((count("glGenTextures"), count("glDeleteTextures")), (2, 2));
}

#[test]
fn a_resource_is_placed_at_its_offset() {
    let gl = endpoint();
    let memory = memory(&gl);
    take_calls();
    let buffer = memory.buffer(512, &BUFFER).unwrap();
    let (name, of) = (buffer.name().0.get().into(), memory.name().into());
    assert_eq!(arguments("glBufferStorageMemEXT"), [name, 4096, of, 512]);
    for desc in images() {
        let texture = memory.texture(8192, &desc).unwrap();
        let mut calls = take_calls().into_iter();
        let (_, stored) = calls.find(|(name, _)| name.starts_with("glTexStorageMem")).unwrap();
        assert_eq!(stored, [texture.target().into(), of, 8192], "{desc:?}");
    }
    let payload = BufferPayload::new(memory_payload(false), 1024, BUFFER).unwrap();
    let buffer = gl.import_buffer(payload).unwrap();
    assert_eq!(arguments("glBufferStorageMemEXT")[3], 1024);
    let payload = ImagePayload::new(memory_payload(false), 2048, flat()).unwrap();
    let texture = gl.import_image(payload).unwrap();
    assert_eq!(arguments("glTexStorageMem2DEXT")[2], 2048);
    assert_eq!((buffer.offset(), texture.offset()), (1024, 2048));
}

#[test]
fn parameters_are_set_before_the_import() {
    let gl = endpoint();
    let memory = gl.import_memory(memory_payload(true)).unwrap();
    let name = u64::from(memory.name());
    assert_eq!(
        take_calls(),
        [
            ("glCreateMemoryObjectsEXT", vec![name]),
            ("glMemoryObjectParameterivEXT", vec![name, 0x9581, 1]),
            ("glImportMemoryFdEXT", vec![name, SIZE, OPAQUE_FD]),
        ]
    );
    let timeline = semaphore(&gl, SemaphoreKind::Timeline);
    let name = u64::from(timeline.name());
    assert_eq!(
        take_calls(),
        [
            ("glCreateSemaphoresNV", vec![name]),
            ("glSemaphoreParameterivNV", vec![name, 0x95B3, 0x95B5]),
            ("glImportSemaphoreFdEXT", vec![name, OPAQUE_FD]),
        ]
    );
}

#[test]
fn a_resource_is_deleted_before_its_memory() {
    for current in [true, false] {
        let gl = endpoint();
        let buffer = buffer(&gl);
        let payload = ImagePayload::new(memory_payload(false), 0, flat()).unwrap();
        let texture = gl.import_image(payload).unwrap();
        let (buffers, textures) = (buffer.clone(), texture.clone());
        take_calls();
        set_current(current);
        drop((buffer, texture));
        assert!(take_names().is_empty(), "a clone keeps them");
        drop((buffers, textures));
        set_current(true);
        assert_eq!(gl.delete_dropped(), Ok(if current { 0 } else { 4 }));
        let memory = "glDeleteMemoryObjectsEXT";
        assert_eq!(take_names(), ["glDeleteBuffers", memory, "glDeleteTextures", memory]);
    }
}

/// Runs `each` with every operation and its name.
fn for_each_operation(mut each: impl FnMut(&str, &Buffer, &dyn Fn())) {
    let gl = endpoint();
    let (kept, timeline) = (buffer(&gl), semaphore(&gl, SemaphoreKind::Timeline));
    let fence = gl.fence().unwrap();
    let image = ResourceDesc::Image(flat());
    let value = std::cell::Cell::new(0);
    let signal = || {
        value.set(value.get() + 1);
        gl.signal(&timeline, Some(value.get()), &[&kept], &[]).unwrap();
    };
    let operations: [(&str, &dyn Fn()); 11] = [
        ("memory_barrier", &|| gl.memory_barrier().unwrap()),
        ("fence", &|| drop(gl.fence().unwrap())),
        ("Fence::wait", &|| fence.wait(Duration::ZERO).unwrap()),
        ("wait", &|| gl.wait(&timeline, Some(1), &[&kept], &[]).unwrap()),
        ("signal", &signal),
        ("import_memory", &|| drop(memory(&gl))),
        ("import_buffer", &|| drop(buffer(&gl))),
        ("import_semaphore", &|| drop(semaphore(&gl, SemaphoreKind::Binary))),
        ("Memory::buffer", &|| drop(kept.memory().buffer(0, &BUFFER).unwrap())),
        ("Memory::texture", &|| drop(kept.memory().texture(0, &flat()).unwrap())),
        ("capabilities", &|| drop(gl.capabilities(&image).unwrap())),
    ];
    for (name, operation) in operations {
        each(name, &kept, operation);
    }
}

/// The next operation deletes what was dropped while the context was not current.
#[test]
fn each_operation_deletes_dropped_objects() {
    for_each_operation(|name, kept, operation| {
        let dropped = kept.memory().buffer(0, &BUFFER).unwrap();
        set_current(false);
        drop(dropped);
        set_current(true);
        take_calls();
        operation();
        assert_eq!(take_names().first(), Some(&"glDeleteBuffers"), "{name}");
    });
}

#[test]
fn an_error_of_the_application_stays_pending_in_each_operation() {
    for code in [
        glow::INVALID_ENUM,
        glow::INVALID_VALUE,
        glow::INVALID_OPERATION,
        glow::OUT_OF_MEMORY,
        glow::INVALID_FRAMEBUFFER_OPERATION,
        glow::STACK_OVERFLOW,
        glow::STACK_UNDERFLOW,
    ] {
        for_each_operation(|name, _, operation| {
            let before = bindings();
            generate(code);
            assert!(take_reported());
            operation();
            assert!(!take_reported(), "{name}: the debug callback receives {code:#06x} twice");
            assert_eq!(take_error(), code, "{name}");
            assert_eq!(bindings(), before, "{name}");
        });
    }
}

#[test]
fn a_pending_error_is_not_taken_for_one_of_the_librarys() {
    let gl = endpoint();
    let memory = memory(&gl);
    refuse("glBufferStorageMemEXT");
    generate(glow::INVALID_ENUM);
    match memory.buffer(0, &BUFFER) {
        Err(Error::Driver(driver)) => {
            assert_eq!(driver.call, "glBufferStorageMemEXT");
            assert_eq!(driver.code, i64::from(glow::OUT_OF_MEMORY));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(take_error(), glow::INVALID_ENUM);
    // Dropping queries no errors and generates none.
    generate(glow::INVALID_VALUE);
    drop(memory);
    assert_eq!(take_error(), glow::INVALID_VALUE);
}

#[test]
fn an_image_without_what_opengl_requires_is_imported_with_a_warning() {
    let gl = endpoint();
    let memory = memory(&gl);
    let texts = warnings(|| drop(memory.texture(0, &flat()).unwrap()));
    assert_eq!(texts.len(), 1, "{texts:?}");
    for lacking in ["TRANSFER_SRC, TRANSFER_DST, STORAGE, COLOR_ATTACHMENT", "MUTABLE_FORMAT"] {
        assert!(texts[0].contains(lacking) && texts[0].contains("for_gl"), "{texts:?}");
    }
    let whole = flat().for_gl();
    assert!(warnings(|| drop(memory.texture(0, &whole).unwrap())).is_empty());
}

#[test]
fn an_endpoint_and_its_objects_can_be_sent_to_other_threads() {
    fn check<T: Send + Sync>() {}
    check::<(Endpoint, Memory, Buffer, Semaphore, super::Texture, super::Fence)>();
}

#[test]
fn endpoints_of_a_share_group_delete_each_others_objects() {
    let first = endpoint();
    let mut loader = |name: &std::ffi::CStr| context::address(name);
    // SAFETY: as in `context::endpoint`.
    let second = unsafe { first.new_shared(first.gl().clone(), &mut loader, None) }.unwrap();
    assert!(first.shares_with(&second) && !first.is_same(&second));
    let (kept, timeline) = (buffer(&first), semaphore(&second, SemaphoreKind::Timeline));
    first.signal(&timeline, Some(1), &[&kept], &[]).unwrap();
    second.wait(&timeline, Some(1), &[&kept], &[]).unwrap();
    set_current(false);
    drop(kept);
    drop(first);
    set_current(true);
    assert_eq!(second.delete_dropped(), Ok(2));
    // SAFETY: as above. This endpoint has a share group of its own.
    let alone = unsafe { Endpoint::load(&mut loader, None) }.unwrap();
    let other = alone.wait(&timeline, Some(1), &[], &[]).unwrap_err().to_string();
    assert!(other.contains("another OpenGL endpoint"), "{other}");
}

#[test]
fn nothing_is_called_while_the_context_is_not_current() {
    let gl = endpoint();
    let kept = buffer(&gl);
    take_calls();
    set_current(false);
    assert!(matches!(gl.memory_barrier(), Err(Error::Invalid(_))));
    assert!(matches!(kept.memory().buffer(0, &BUFFER), Err(Error::Invalid(_))));
    let (payload, error) = gl.import_memory(memory_payload(false)).unwrap_err().into_parts();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    drop((payload, kept));
    assert!(take_names().is_empty());
}

#[test]
fn a_fence_follows_a_barrier_and_is_flushed() {
    let gl = endpoint();
    let fence = gl.fence().unwrap();
    assert_eq!(take_names(), ["glMemoryBarrier", "glFenceSync", "glFlush"]);
    fence.wait(Duration::from_secs(1)).unwrap();
    assert_eq!(arguments("glClientWaitSync"), [0, 1_000_000_000]);
}

#[test]
fn a_signal_follows_a_barrier_lists_everything_and_is_flushed() {
    let gl = endpoint();
    let (buffer, timeline) = (buffer(&gl), semaphore(&gl, SemaphoreKind::Timeline));
    let texture = buffer.memory().texture(0, &flat()).unwrap();
    let listed = [texture.in_layout(ImageLayout::TRANSFER_SRC_OPTIMAL)];
    let name = u64::from(timeline.name());
    let lists = vec![name, buffer.name().0.get().into(), texture.name().0.get().into(), 0x9592];
    let value = ("glSemaphoreParameterui64vEXT", vec![name, 0x9595, 7]);
    take_calls();
    gl.signal(&timeline, Some(7), &[&buffer], &listed).unwrap();
    assert_eq!(
        take_calls(),
        [
            ("glMemoryBarrier", vec![u64::from(glow::ALL_BARRIER_BITS)]),
            value.clone(),
            ("glSignalSemaphoreEXT", lists.clone()),
            ("glFlush", vec![]),
        ]
    );
    gl.wait(&timeline, Some(7), &[&buffer], &listed).unwrap();
    assert_eq!(take_calls(), [value, ("glWaitSemaphoreEXT", lists)]);
}

#[test]
fn a_tiling_that_opengl_does_not_list_is_refused() {
    let gl = endpoint();
    for (listed, refused) in [(0x9584, Tiling::Linear), (0x9585, Tiling::Optimal)] {
        set_tilings(&[listed]);
        for tiling in [Tiling::Linear, Tiling::Optimal] {
            let desc = ImageDesc { tiling, ..flat() };
            let capabilities = gl.capabilities(&desc.into()).unwrap();
            let import = &capabilities.memory(MemoryHandleType::OpaqueFd).unwrap().import;
            assert_eq!(import.is_err(), tiling == refused, "{tiling:?}: {import:?}");
        }
    }
}
