//! Rings: several buffers in flight between two endpoints.

use std::mem::MaybeUninit;
use std::time::Duration;

use gpu_interop::ash::vk::Handle as _;
use gpu_interop::error::Invalid;
use gpu_interop::handoff::CudaCommands;
use gpu_interop::ring::{self, Batch, RingOptions, RingPeer, RingStage, SlotCommands, Wait};
use gpu_interop::{BufferDesc, Result, cuda, gl, vulkan};

use crate::args::{grows, handle, options, required, structure};
use crate::buffer::gi_buffer_desc;
use crate::commands::{Commands, Target, gi_commands, gi_sync};
use crate::endpoint::{Endpoint, each_api, gi_endpoint};
use crate::error::{gi_result, guard, guard_value};
use crate::handoff::gi_handoff_options;

/// How a ring works. Null means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_ring_options {
    /// `sizeof(gi_ring_options)`.
    pub struct_size: usize,
    /// The number of slots. Default: 4.
    pub depth: u32,
    /// A `gi_sync_method`. Default: the best one that both sides support.
    pub method: u32,
    /// A `gi_wait_mode`. Default: block.
    pub wait: u32,
    /// Timeout of a host wait in nanoseconds. Default: 10 seconds.
    pub timeout_ns: u64,
}

grows!(gi_ring_options);

impl gi_ring_options {
    fn get(&self) -> Result<RingOptions> {
        let gi_ring_options { depth, method, wait, timeout_ns, .. } = *self;
        let struct_size = size_of::<gi_handoff_options>();
        let handoff = gi_handoff_options { struct_size, method, in_flight: 0, wait, timeout_ns };
        let defaults = RingOptions::default();
        let depth = if depth == 0 { defaults.depth } else { depth };
        Ok(RingOptions { depth, handoff: handoff.get()? })
    }
}

/// One endpoint's part of a ring. Used by one thread at a time.
pub struct gi_stage(Stage);

enum Stage {
    Vulkan(RingStage<vulkan::Endpoint>),
    Gl(RingStage<gl::Endpoint>),
    Cuda(RingStage<cuda::Endpoint>),
}

/// Slots that a stage holds.
pub struct gi_batch(Batch);

fn pair_from<A: RingPeer>(
    owner: &vulkan::Endpoint,
    (first, stage): (&A, fn(RingStage<A>) -> Stage),
    second: &Endpoint,
    desc: &BufferDesc,
    options: RingOptions,
) -> Result<(Stage, Stage)> {
    let first = (first, stage);
    match second {
        Endpoint::Vulkan(second) => pair(owner, first, (second, Stage::Vulkan), desc, options),
        Endpoint::Gl(second) => pair(owner, first, (second, Stage::Gl), desc, options),
        Endpoint::Cuda(second) => pair(owner, first, (second, Stage::Cuda), desc, options),
    }
}

fn pair<A: RingPeer, B: RingPeer>(
    owner: &vulkan::Endpoint,
    (first, first_stage): (&A, fn(RingStage<A>) -> Stage),
    (second, second_stage): (&B, fn(RingStage<B>) -> Stage),
    desc: &BufferDesc,
    options: RingOptions,
) -> Result<(Stage, Stage)> {
    let (first, second, _plans) = ring::pair(owner, first, second, desc, options)?;
    Ok((first_stage(first), second_stage(second)))
}

/// Creates a ring of buffers of `desc` between two endpoints. All slots are at the first stage at
/// first. `owner` is the Vulkan endpoint that creates the buffers and the semaphores.
/// `ring_options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_ring_pair(
    owner: Option<&gi_endpoint>,
    first: Option<&gi_endpoint>,
    second: Option<&gi_endpoint>,
    desc: *const gi_buffer_desc,
    ring_options: *const gi_ring_options,
    first_stage: Option<&mut MaybeUninit<Option<Box<gi_stage>>>>,
    second_stage: Option<&mut MaybeUninit<Option<Box<gi_stage>>>>,
) -> gi_result {
    guard(|| {
        let owner = required(owner, "owner")?.vulkan("owner")?;
        let (first, second) = (&required(first, "first")?.0, &required(second, "second")?.0);
        let outs = (required(first_stage, "first_stage")?, required(second_stage, "second_stage")?);
        // SAFETY: the caller's promise.
        let (desc, options) =
            unsafe { (structure(desc, "desc")?.get(), options(ring_options, "options")?.get()?) };
        let (first, second) = match first {
            Endpoint::Vulkan(first) => {
                pair_from(owner, (first, Stage::Vulkan), second, &desc, options)
            }
            Endpoint::Gl(first) => pair_from(owner, (first, Stage::Gl), second, &desc, options),
            Endpoint::Cuda(first) => pair_from(owner, (first, Stage::Cuda), second, &desc, options),
        }?;
        outs.0.write(Some(Box::new(gi_stage(first))));
        outs.1.write(Some(Box::new(gi_stage(second))));
        Ok(())
    })
}

/// Returns the number of slots of the ring; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_stage_depth(stage: Option<&gi_stage>) -> usize {
    guard_value(|| stage.map_or(0, |stage| each_api!(Stage, &stage.0, stage => stage.depth())))
}

/// Returns the number of slots that have arrived at this stage and are not taken; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_stage_arrived(stage: Option<&gi_stage>) -> usize {
    guard_value(|| stage.map_or(0, |stage| each_api!(Stage, &stage.0, stage => stage.arrived())))
}

/// Returns the API's own handle of a slot's buffer, as `gi_buffer_handle` does; 0 for an index
/// that the ring lacks. Use the buffer only while the stage holds the slot.
#[unsafe(no_mangle)]
pub extern "C" fn gi_stage_buffer_handle(stage: Option<&gi_stage>, slot: usize) -> u64 {
    guard_value(|| {
        let found = match &stage?.0 {
            Stage::Vulkan(stage) => stage.buffers().get(slot)?.handle().as_raw(),
            Stage::Gl(stage) => stage.buffers().get(slot)?.name().0.get().into(),
            Stage::Cuda(stage) => stage.buffers().get(slot)?.device_ptr(),
        };
        Some(found)
    })
    .unwrap_or(0)
}

/// Takes `minimum` to `maximum` slots that have arrived, and acquires them with one wait. Waits up
/// to `timeout_ns` nanoseconds for the minimum. `GI_RESULT_TIMEOUT` if it has not arrived by then:
/// the ring stays usable.
///
/// `sync` receives what a Vulkan submit needs, or null; it may be null for OpenGL and CUDA. If a
/// `gi_sync` is destroyed without a submit, destroy the batch too. `commands` may be null for
/// OpenGL, and for CUDA's default stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_stage_take(
    stage: Option<&mut gi_stage>,
    timeout_ns: u64,
    minimum: usize,
    maximum: usize,
    commands: *const gi_commands,
    batch: Option<&mut MaybeUninit<Option<Box<gi_batch>>>>,
    sync: Option<&mut MaybeUninit<Option<Box<gi_sync>>>>,
) -> gi_result {
    guard(|| {
        let (stage, out) = (required(stage, "stage")?, required(batch, "batch")?);
        // SAFETY: the caller's promise.
        let commands = unsafe { Commands::new(commands) }?;
        let (wait, count) = (Wait::UpTo(Duration::from_nanos(timeout_ns)), minimum..=maximum);
        let mut remains = None;
        let taken = match &mut stage.0 {
            Stage::Vulkan(stage) => {
                required(sync.as_ref(), "sync")?;
                let taken = stage.take(wait, count, slot_commands(&commands)?)?;
                taken.map(|(batch, sync)| {
                    remains = Some(Box::new(gi_sync(sync)));
                    batch
                })
            }
            Stage::Gl(stage) => stage.take(wait, count, ())?.map(|(batch, ())| batch),
            Stage::Cuda(stage) => {
                let stream = commands.stream(stage.endpoint());
                let taken = stage.take(wait, count, CudaCommands { stream: &stream })?;
                taken.map(|(batch, ())| batch)
            }
        };
        // Absent only without a wait.
        let taken = required(taken, "batch")?;
        out.write(Some(Box::new(gi_batch(taken))));
        if let Some(sync) = sync {
            sync.write(remains);
        }
        Ok(())
    })
}

/// Releases a batch to the other stage with one signal. Consumes the batch even if it fails: the
/// slots then return to this stage. `sync` and `commands` are those of `gi_stage_take`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_stage_release(
    stage: Option<&mut gi_stage>,
    batch: Option<&mut Option<Box<gi_batch>>>,
    commands: *const gi_commands,
    sync: Option<&mut MaybeUninit<Option<Box<gi_sync>>>>,
) -> gi_result {
    guard(|| {
        let (stage, batch) = (required(stage, "stage")?, handle(batch, "batch")?);
        // SAFETY: the caller's promise.
        let commands = unsafe { Commands::new(commands) }?;
        let mut remains = None;
        let taken = |batch: &mut Option<Box<gi_batch>>| {
            batch.take().map_or_else(Batch::default, |batch| batch.0)
        };
        match &mut stage.0 {
            Stage::Vulkan(stage) => {
                required(sync.as_ref(), "sync")?;
                let commands = slot_commands(&commands)?;
                remains = Some(Box::new(gi_sync(stage.release(taken(batch), commands)?)));
            }
            Stage::Gl(stage) => stage.release(taken(batch), ())?,
            Stage::Cuda(stage) => {
                let stream = commands.stream(stage.endpoint());
                stage.release(taken(batch), CudaCommands { stream: &stream })?;
            }
        }
        if let Some(sync) = sync {
            sync.write(remains);
        }
        Ok(())
    })
}

fn slot_commands(commands: &Commands<'_>) -> Result<SlotCommands> {
    match commands.target()? {
        Target::Record(buffer, family) => {
            let used = commands.slot_use()?;
            // SAFETY: the contract of `gi_commands`, which the caller promises; it submits with the
            // `gi_sync` that it gets, or drops it.
            Ok(unsafe { SlotCommands::record(buffer, family, used) })
        }
        Target::Recorded => Ok(SlotCommands::recorded()),
        Target::Queue(..) => Err(Invalid::new("commands.queue", "is not for rings")
            .help("give a command_buffer")
            .into()),
    }
}

/// Returns the number of slots in a batch; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_batch_count(batch: Option<&gi_batch>) -> usize {
    batch.map_or(0, |batch| batch.0.len())
}

/// Writes the index in the ring of a batch's slot, and to `is_new` 1 if no stage has used it before.
/// `is_new` may be null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_batch_slot(
    batch: Option<&gi_batch>,
    position: usize,
    slot: Option<&mut MaybeUninit<usize>>,
    is_new: Option<&mut MaybeUninit<u32>>,
) -> gi_result {
    guard(|| {
        let (batch, out) = (required(batch, "batch")?, required(slot, "slot")?);
        let Some(found) = batch.0.iter().nth(position) else {
            let problem = format!("is {position}, but the batch has {}", batch.0.len());
            return Err(Invalid::new("position", problem).into());
        };
        out.write(found.index());
        if let Some(is_new) = is_new {
            is_new.write(found.is_new().into());
        }
        Ok(())
    })
}

/// Destroys a batch, whose slots return to the stage that took them; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_batch_destroy(batch: Option<Box<gi_batch>>) {
    guard_value(|| drop(batch));
}

/// Destroys a stage; null is allowed. Waits for its last work.
#[unsafe(no_mangle)]
pub extern "C" fn gi_stage_destroy(stage: Option<Box<gi_stage>>) {
    guard_value(|| drop(stage));
}
