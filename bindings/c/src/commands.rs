//! What a release or an acquire is recorded into and covers, and what a Vulkan submit gets.

use std::ffi::c_void;
use std::sync::Arc;

use gpu_interop::ash::vk::{self, Handle as _};
use gpu_interop::cudarc::driver::CudaStream;
use gpu_interop::error::{Api, DriverError, Invalid};
use gpu_interop::handoff::TextureAccess;
use gpu_interop::vulkan::{BufferAccess, ImageAccess, SubmitParts, SubmitSync};
use gpu_interop::{Error, ImageLayout, Result, cuda, gl};

use crate::args::{grows, handle, list, options, required};
use crate::buffer::gi_buffer;
use crate::endpoint::gi_endpoint;
use crate::error::{gi_result, guard, guard_value};
use crate::image::gi_image;

/// How the application uses a buffer or an image at a release or an acquire. Set all unused fields
/// to 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_access {
    /// The buffer, or null.
    pub buffer: *const gi_buffer,
    /// The image, or null. Exactly one of the two is given.
    pub image: *const gi_image,
    /// `VkPipelineStageFlags` of the commands that use it. Default: all commands. Vulkan only.
    pub stage: u32,
    /// `VkAccessFlags` of these commands. Default: memory read and write. Vulkan only.
    pub access: u32,
    /// The `VkImageLayout` before the barrier. Default: that of the other side's release. Vulkan
    /// images only.
    pub old_layout: i32,
    /// The `VkImageLayout` after the barrier; for OpenGL, the layout in which the texture is
    /// handed over. Default: for a release general, for an acquire the layout of the release.
    /// Images only.
    pub new_layout: i32,
    /// Zeros.
    pub reserved: [u32; 4],
}

/// What the slots of a ring are used for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_slot_use {
    /// Any command. Always correct, but commands that don't use the slots wait too.
    Any = 0,
    /// Compute shaders.
    Compute = 1,
    /// Copies and fills.
    Transfer = 2,
}

/// Where a release or an acquire goes, and what it covers. Each API reads its own fields.
///
/// Vulkan has three forms:
/// - `command_buffer` and `queue_family`: records a barrier into a command buffer that is being
///   recorded, outside a render pass. The call returns a `gi_sync`, with which it is submitted.
/// - `queue` and `queue_family`: records and submits a command buffer of the library's own. The
///   queue must not be used by another thread meanwhile. Not for rings.
/// - Neither: the barriers are in command buffers that were recorded before. The call returns a
///   `gi_sync`.
///
/// OpenGL and CUDA enqueue at once: OpenGL in the context, which must be current, CUDA in `stream`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_commands {
    /// `sizeof(gi_commands)`.
    pub struct_size: usize,
    /// The `VkCommandBuffer`.
    pub command_buffer: *mut c_void,
    /// The `VkQueue`.
    pub queue: *mut c_void,
    /// The family of the queue that executes the commands.
    pub queue_family: u32,
    /// A `gi_slot_use`, for a ring's Vulkan stage. Default: any.
    pub slot_use: u32,
    /// The `CUstream`. Default: the default stream.
    pub stream: *mut c_void,
    /// What Vulkan and OpenGL hand over. CUDA and rings need no list.
    pub used: *const gi_access,
    /// The number of elements in `used`.
    pub used_count: usize,
}

grows!(gi_commands);

/// The Vulkan form of `gi_commands`.
pub(crate) enum Target {
    Record(vk::CommandBuffer, u32),
    Queue(vk::Queue, u32),
    Recorded,
}

/// `gi_commands`, checked.
pub(crate) struct Commands<'a> {
    raw: gi_commands,
    used: &'a [gi_access],
}

impl<'a> Commands<'a> {
    /// # Safety
    /// The crate's contract.
    pub(crate) unsafe fn new(commands: *const gi_commands) -> Result<Self> {
        // SAFETY: the caller's promise.
        let (raw, used) = unsafe {
            let raw: gi_commands = options(commands, "commands")?;
            (raw, list(raw.used, raw.used_count, "commands.used")?)
        };
        for access in used {
            if access.buffer.is_null() == access.image.is_null() {
                let problem = "has both a buffer and an image, or neither";
                return Err(Invalid::new("commands.used[]", problem).into());
            }
            if access.reserved != [0; 4] {
                return Err(Invalid::new("commands.used[].reserved", "is not 0").into());
            }
        }
        Ok(Self { raw, used })
    }

    pub(crate) fn target(&self) -> Result<Target> {
        let family = self.raw.queue_family;
        match (self.raw.command_buffer as usize as u64, self.raw.queue as usize as u64) {
            (0, 0) => Ok(Target::Recorded),
            (commands, 0) => Ok(Target::Record(vk::CommandBuffer::from_raw(commands), family)),
            (0, queue) => Ok(Target::Queue(vk::Queue::from_raw(queue), family)),
            _ => Err(Invalid::new("commands", "has both a command_buffer and a queue").into()),
        }
    }

    pub(crate) fn slot_use(
        &self,
    ) -> Result<for<'b> fn(&'b gpu_interop::vulkan::Buffer) -> BufferAccess<'b>> {
        Ok(match self.raw.slot_use {
            0 => |buffer| BufferAccess::any(buffer),
            1 => |buffer| BufferAccess::compute(buffer),
            2 => |buffer| BufferAccess::transfer(buffer),
            other => return Err(crate::buffer::unknown("commands.slot_use", other, "gi_slot_use")),
        })
    }

    /// Returns the list for Vulkan.
    pub(crate) fn vulkan(&self) -> Result<(Vec<BufferAccess<'a>>, Vec<ImageAccess<'a>>)> {
        let (mut buffers, mut images) = (Vec::new(), Vec::new());
        for access in self.used {
            let parameter = "commands.used[]";
            let stage = match access.stage {
                0 => vk::PipelineStageFlags::ALL_COMMANDS,
                bits => vk::PipelineStageFlags::from_raw(bits),
            };
            let used = match access.access {
                0 => vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE,
                bits => vk::AccessFlags::from_raw(bits),
            };
            match (buffer(access), image(access)) {
                (Some(buffer), _) => {
                    let any = BufferAccess::any(buffer.vulkan(parameter)?);
                    buffers.push(BufferAccess { stage, access: used, ..any });
                }
                (_, Some(image)) => images.push(ImageAccess {
                    stage,
                    access: used,
                    old_layout: layout(access.old_layout),
                    new_layout: layout(access.new_layout),
                    ..ImageAccess::any(image.vulkan(parameter)?)
                }),
                _ => {}
            }
        }
        Ok((buffers, images))
    }

    /// Returns the list for OpenGL.
    pub(crate) fn gl(&self) -> Result<(Vec<&'a gl::Buffer>, Vec<TextureAccess>)> {
        let (mut buffers, mut textures) = (Vec::new(), Vec::new());
        for access in self.used {
            match (buffer(access), image(access)) {
                (Some(buffer), _) => buffers.push(buffer.gl("commands.used[]")?),
                (_, Some(image)) => textures.push(TextureAccess {
                    layout: layout(access.new_layout),
                    ..TextureAccess::from(image.gl("commands.used[]")?)
                }),
                _ => {}
            }
        }
        Ok((buffers, textures))
    }

    /// Returns the stream for CUDA.
    pub(crate) fn stream(&self, cuda: &cuda::Endpoint) -> Arc<CudaStream> {
        // SAFETY: the caller promises that it is null or a stream of the context, which lives
        // during the call.
        unsafe { cuda.context().wrap_borrowed_stream(self.raw.stream.cast()) }
    }
}

fn buffer(access: &gi_access) -> Option<&gi_buffer> {
    // SAFETY: the crate's contract, which `Commands::new` requires: null or a valid handle.
    unsafe { access.buffer.as_ref() }
}

fn image(access: &gi_access) -> Option<&gi_image> {
    // SAFETY: as above.
    unsafe { access.image.as_ref() }
}

fn layout(raw: i32) -> Option<ImageLayout> {
    (raw != 0).then(|| ImageLayout::from_raw(raw))
}

/// What a Vulkan submit gets for one or more handoffs: semaphores, and a fence. Dropping it cancels
/// the handoffs.
pub struct gi_sync(pub(crate) SubmitSync);

/// Adds another handoff of the same submit to `sync`, and consumes it.
#[unsafe(no_mangle)]
pub extern "C" fn gi_sync_merge(
    sync: Option<&mut gi_sync>,
    other: Option<&mut Option<Box<gi_sync>>>,
) -> gi_result {
    guard(|| {
        let (sync, other) = (required(sync, "sync")?, handle(other, "other")?);
        if let Some(other) = other.take() {
            sync.0.merge(other.0);
        }
        Ok(())
    })
}

/// Destroys a `gi_sync` that is not submitted, which cancels its handoffs; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_sync_destroy(sync: Option<Box<gi_sync>>) {
    guard_value(|| drop(sync));
}

/// Calls `vkQueueSubmit` with `command_buffers`, an array of `VkCommandBuffer`, and the semaphores
/// and the fence of `sync`.
///
/// Consumes `sync` even if it fails: the handoffs are then cancelled.
///
/// Required: the rules of `vkQueueSubmit`: no other thread uses the queue meanwhile,
/// and the command buffers, and what they use besides the handoffs' resources, live until the work
/// is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_sync_submit(
    sync: Option<&mut Option<Box<gi_sync>>>,
    endpoint: Option<&gi_endpoint>,
    queue: *mut c_void,
    command_buffers: *const *mut c_void,
    command_buffer_count: usize,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        // SAFETY: the caller's promise.
        let commands = unsafe { list(command_buffers, command_buffer_count, "command_buffers") }?;
        let commands: Vec<_> = commands
            .iter()
            .map(|&commands| vk::CommandBuffer::from_raw(commands as usize as u64))
            .collect();
        let queue = queue_of(queue)?;
        let Some(sync) = handle(sync, "sync")?.take() else { return Ok(()) };
        // SAFETY: the caller's promise.
        unsafe { sync.0.submit(vulkan, queue, &commands) }
    })
}

/// The semaphores and the fence of a submit, in the form of `VkSubmitInfo` and
/// `VkTimelineSemaphoreSubmitInfo`. The value of a binary semaphore is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_submit_parts {
    /// `sizeof(gi_submit_parts)` of the library.
    pub struct_size: usize,
    /// The number of semaphores to wait for.
    pub wait_count: usize,
    /// The `VkSemaphore`s to wait for.
    pub wait_semaphores: *const u64,
    /// Their values.
    pub wait_values: *const u64,
    /// Their `VkPipelineStageFlags`.
    pub wait_stages: *const u32,
    /// The number of semaphores to signal.
    pub signal_count: usize,
    /// The `VkSemaphore`s to signal.
    pub signal_semaphores: *const u64,
    /// Their values.
    pub signal_values: *const u64,
    /// The `VkFence` to submit with, or 0.
    pub fence: u64,
}

/// Submits work with all of the parts, and returns the `VkResult`. `user` is the caller's.
pub type gi_submit_callback =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, parts: *const gi_submit_parts) -> i32>;

/// Calls `submit`, which submits work to `queue` with the semaphores and the fence of `sync`: for
/// apps that call `vkQueueSubmit` in one place of their own.
///
/// Consumes `sync` even if it fails: the handoffs are then cancelled. `GI_RESULT_DRIVER` if
/// `submit` returns a negative number.
///
/// Required: if `submit` returns 0 or more, it has made one `vkQueueSubmit` or
/// `vkQueueSubmit2` to `queue` with all of the parts and the commands of the handoffs; otherwise
/// none. No other thread uses the queue meanwhile. What the commands use besides the handoffs'
/// resources lives until the work is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_sync_submit_with(
    sync: Option<&mut Option<Box<gi_sync>>>,
    endpoint: Option<&gi_endpoint>,
    queue: *mut c_void,
    submit: gi_submit_callback,
    user: *mut c_void,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        let submit = required(submit, "submit")?;
        let queue = queue_of(queue)?;
        let Some(sync) = handle(sync, "sync")?.take() else { return Ok(()) };
        let call = |parts: &SubmitParts| {
            // SAFETY: the caller's function, with arrays that live during the call.
            let code = with_parts(parts, |parts| unsafe { submit(user, parts) });
            if code >= 0 {
                return Ok(());
            }
            let name = format!("{:?}", vk::Result::from_raw(code));
            Err(Error::from(DriverError::new(Api::Vulkan, "the submit callback", code, name)))
        };
        // SAFETY: the caller's promise.
        unsafe { sync.0.submit_with(vulkan, queue, call) }
    })
}

fn with_parts<R>(parts: &SubmitParts, run: impl FnOnce(&gi_submit_parts) -> R) -> R {
    let (waits, signals) = (&parts.waits, &parts.signals);
    let wait_semaphores: Vec<_> = waits.iter().map(|w| w.semaphore.handle().as_raw()).collect();
    let wait_values: Vec<_> = waits.iter().map(|wait| wait.value.unwrap_or(0)).collect();
    let wait_stages: Vec<_> = waits.iter().map(|wait| wait.stage.as_raw()).collect();
    let signalled: Vec<_> = signals.iter().map(|s| s.semaphore.handle().as_raw()).collect();
    let signal_values: Vec<_> = signals.iter().map(|signal| signal.value.unwrap_or(0)).collect();
    run(&gi_submit_parts {
        struct_size: size_of::<gi_submit_parts>(),
        wait_count: waits.len(),
        wait_semaphores: wait_semaphores.as_ptr(),
        wait_values: wait_values.as_ptr(),
        wait_stages: wait_stages.as_ptr(),
        signal_count: signals.len(),
        signal_semaphores: signalled.as_ptr(),
        signal_values: signal_values.as_ptr(),
        fence: parts.fence.as_raw(),
    })
}

fn queue_of(queue: *mut c_void) -> Result<vk::Queue> {
    if queue.is_null() {
        return Err(Invalid::new("queue", "is null").into());
    }
    Ok(vk::Queue::from_raw(queue as usize as u64))
}
