//! Handoffs: one way between two endpoints.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::time::Duration;

use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::Invalid;
use gpu_interop::handoff::{self, HandoffOptions, HandoffPeer, Ticket, VulkanCommands, WaitMode};
use gpu_interop::vulkan::Accesses;
use gpu_interop::{Result, cuda, gl, vulkan};

use crate::args::{consume, grows, handle, nanoseconds, options, required};
use crate::buffer::unknown;
use crate::commands::{Commands, Target, gi_commands, gi_sync};
use crate::endpoint::{Endpoint, each_api, gi_endpoint};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::c_text;

/// How two endpoints synchronise.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum gi_sync_method {
    /// The best one that both sides support: the first of the list below.
    #[default]
    Auto = 0,
    /// A timeline semaphore.
    Timeline = 1,
    /// Binary semaphores.
    Binary = 2,
    /// The host waits for the releasing side.
    HostWait = 3,
}

/// How the host waits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_wait_mode {
    /// Sleeps until the driver wakes the thread.
    Block = 0,
    /// Polls without sleeping: reacts sooner, but keeps a core busy.
    Spin = 1,
}

/// How a handoff works. Null means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_handoff_options {
    /// `sizeof(gi_handoff_options)`.
    pub struct_size: usize,
    /// A `gi_sync_method`. Default: the best one that both sides support.
    pub method: u32,
    /// The maximum number of releases that are not acquired yet. Default: 1.
    pub in_flight: u32,
    /// A `gi_wait_mode`. Default: block.
    pub wait: u32,
    /// Timeout of a host wait in nanoseconds. Default: 10 seconds.
    pub timeout_ns: u64,
}

grows!(gi_handoff_options);

impl gi_handoff_options {
    pub(crate) fn get(&self) -> Result<HandoffOptions> {
        let defaults = HandoffOptions::default();
        let method = match self.method {
            0 => None,
            1 => Some(SyncMethod::Timeline),
            2 => Some(SyncMethod::Binary),
            3 => Some(SyncMethod::HostWait),
            other => return Err(unknown("options.method", other, "gi_sync_method")),
        };
        let wait = match self.wait {
            0 => WaitMode::Block,
            1 => WaitMode::Spin,
            other => return Err(unknown("options.wait", other, "gi_wait_mode")),
        };
        let in_flight = if self.in_flight == 0 { defaults.in_flight } else { self.in_flight };
        let timeout: Duration = nanoseconds(self.timeout_ns, defaults.timeout);
        Ok(HandoffOptions { method, in_flight, wait, timeout })
    }
}

/// The end of a handoff that releases. Used by one thread at a time.
pub struct gi_releaser {
    end: Releaser,
    plan: CString,
}

/// The end of a handoff that acquires. Used by one thread at a time.
pub struct gi_acquirer(Acquirer);

/// A release, on its way to the acquire. A ticket that is destroyed without an acquire is lost:
/// `gi_releaser_lost_ticket` returns it again.
pub struct gi_ticket(Ticket);

enum Releaser {
    Vulkan(handoff::Releaser<vulkan::Endpoint>),
    Gl(handoff::Releaser<gl::Endpoint>),
    Cuda(handoff::Releaser<cuda::Endpoint>),
}

enum Acquirer {
    Vulkan(handoff::Acquirer<vulkan::Endpoint>),
    Gl(handoff::Acquirer<gl::Endpoint>),
    Cuda(handoff::Acquirer<cuda::Endpoint>),
}

type Ends = (gi_releaser, gi_acquirer);

fn open_from<A: HandoffPeer>(
    owner: &vulkan::Endpoint,
    (from, releaser): (&A, fn(handoff::Releaser<A>) -> Releaser),
    to: &Endpoint,
    options: HandoffOptions,
) -> Result<Ends> {
    match to {
        Endpoint::Vulkan(to) => open(owner, (from, releaser), (to, Acquirer::Vulkan), options),
        Endpoint::Gl(to) => open(owner, (from, releaser), (to, Acquirer::Gl), options),
        Endpoint::Cuda(to) => open(owner, (from, releaser), (to, Acquirer::Cuda), options),
    }
}

fn open<A: HandoffPeer, B: HandoffPeer>(
    owner: &vulkan::Endpoint,
    (from, releaser): (&A, fn(handoff::Releaser<A>) -> Releaser),
    (to, acquirer): (&B, fn(handoff::Acquirer<B>) -> Acquirer),
    options: HandoffOptions,
) -> Result<Ends> {
    let opened = handoff::open(owner, from, to, options)?;
    let plan = c_text(opened.plan.to_string());
    let release = gi_releaser { end: releaser(opened.release), plan };
    Ok((release, gi_acquirer(acquirer(opened.acquire))))
}

/// Opens a handoff from one endpoint to another. `owner` is the Vulkan endpoint that creates the
/// semaphores. `handoff_options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_handoff_open(
    owner: Option<&gi_endpoint>,
    from: Option<&gi_endpoint>,
    to: Option<&gi_endpoint>,
    handoff_options: *const gi_handoff_options,
    releaser: Option<&mut MaybeUninit<Option<Box<gi_releaser>>>>,
    acquirer: Option<&mut MaybeUninit<Option<Box<gi_acquirer>>>>,
) -> gi_result {
    guard(|| {
        let owner = required(owner, "owner")?.vulkan("owner")?;
        let (from, to) = (&required(from, "from")?.0, &required(to, "to")?.0);
        let outs = (required(releaser, "releaser")?, required(acquirer, "acquirer")?);
        // SAFETY: the caller's promise.
        let options = unsafe { options(handoff_options, "options") }?.get()?;
        let (release, acquire) = match from {
            Endpoint::Vulkan(from) => open_from(owner, (from, Releaser::Vulkan), to, options),
            Endpoint::Gl(from) => open_from(owner, (from, Releaser::Gl), to, options),
            Endpoint::Cuda(from) => open_from(owner, (from, Releaser::Cuda), to, options),
        }?;
        outs.0.write(Some(Box::new(release)));
        outs.1.write(Some(Box::new(acquire)));
        Ok(())
    })
}

/// Returns how the two sides synchronise.
#[unsafe(no_mangle)]
pub extern "C" fn gi_releaser_method(releaser: Option<&gi_releaser>) -> gi_sync_method {
    let method = releaser.map(|releaser| each_api!(Releaser, &releaser.end, end => end.method()));
    match method {
        Some(SyncMethod::Timeline) => gi_sync_method::Timeline,
        Some(SyncMethod::Binary) => gi_sync_method::Binary,
        Some(SyncMethod::HostWait) => gi_sync_method::HostWait,
        _ => gi_sync_method::Auto,
    }
}

/// Returns how the two sides synchronise and why the better methods were rejected, as text. It
/// lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn gi_releaser_plan(releaser: Option<&gi_releaser>) -> *const c_char {
    releaser.map_or(c"".as_ptr(), |releaser| releaser.plan.as_ptr())
}

/// Releases what `commands` lists. After this call, the releasing side doesn't use it until it is
/// acquired back.
///
/// `sync` receives what the submit of the command buffer needs, or null if nothing remains to be
/// submitted; it may be null for OpenGL and CUDA, and with `commands->queue`.
///
/// Required: the queue family owns the resources, and the
/// images are in their old layouts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_release(
    releaser: Option<&mut gi_releaser>,
    commands: *const gi_commands,
    ticket: Option<&mut MaybeUninit<Option<Box<gi_ticket>>>>,
    sync: Option<&mut MaybeUninit<Option<Box<gi_sync>>>>,
) -> gi_result {
    guard(|| {
        let (releaser, out) = (required(releaser, "releaser")?, required(ticket, "ticket")?);
        // SAFETY: the caller's promise.
        let commands = unsafe { Commands::new(commands) }?;
        let mut remains = None;
        let ticket = match &mut releaser.end {
            Releaser::Vulkan(end) => {
                let used = commands.vulkan()?;
                let used = Accesses::from((used.0.as_slice(), used.1.as_slice()));
                let target = commands.target()?;
                if let Target::Queue(queue, family) = target {
                    // SAFETY: the caller's promise.
                    unsafe { end.release_on(queue, family, used) }?
                } else {
                    required(sync.as_ref(), "sync")?;
                    // SAFETY: the caller's promise.
                    let (ticket, sync) = end.release(unsafe { vulkan_commands(target, used) })?;
                    remains = Some(Box::new(gi_sync(sync)));
                    ticket
                }
            }
            Releaser::Gl(end) => {
                let (buffers, textures) = commands.gl()?;
                end.release((buffers.as_slice(), textures.as_slice()))?.0
            }
            Releaser::Cuda(end) => end.release(&*commands.stream(end.endpoint()))?.0,
        };
        out.write(Some(Box::new(gi_ticket(ticket))));
        if let Some(sync) = sync {
            sync.write(remains);
        }
        Ok(())
    })
}

/// Acquires what was released. If it succeeds, it consumes the ticket and sets `*ticket` to null.
/// `sync` is that of `gi_release`.
///
/// Required: the images are those of the release, in the same
/// order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_acquire(
    acquirer: Option<&mut gi_acquirer>,
    ticket: Option<&mut Option<Box<gi_ticket>>>,
    commands: *const gi_commands,
    sync: Option<&mut MaybeUninit<Option<Box<gi_sync>>>>,
) -> gi_result {
    guard(|| {
        let acquirer = required(acquirer, "acquirer")?;
        // SAFETY: the caller's promise.
        let commands = unsafe { Commands::new(commands) }?;
        let mut remains = None;
        let ticket = handle(ticket, "ticket")?;
        match &mut acquirer.0 {
            Acquirer::Vulkan(end) => {
                let used = commands.vulkan()?;
                let used = Accesses::from((used.0.as_slice(), used.1.as_slice()));
                let target = commands.target()?;
                if let Target::Queue(queue, family) = target {
                    // SAFETY: the caller's promise.
                    let acquire =
                        |gi_ticket(ticket)| unsafe { end.acquire_on(ticket, queue, family, used) };
                    consume(ticket, acquire, gi_ticket)?;
                } else {
                    required(sync.as_ref(), "sync")?;
                    // SAFETY: the caller's promise.
                    let commands = unsafe { vulkan_commands(target, used) };
                    let acquire = |gi_ticket(ticket)| end.acquire(ticket, commands);
                    let sync = consume(ticket, acquire, gi_ticket)?;
                    remains = Some(Box::new(gi_sync(sync)));
                }
            }
            Acquirer::Gl(end) => {
                let (buffers, textures) = commands.gl()?;
                let used = (buffers.as_slice(), textures.as_slice());
                consume(ticket, |gi_ticket(ticket)| end.acquire(ticket, used), gi_ticket)?;
            }
            Acquirer::Cuda(end) => {
                let stream = commands.stream(end.endpoint());
                consume(ticket, |gi_ticket(ticket)| end.acquire(ticket, &*stream), gi_ticket)?;
            }
        }
        if let Some(sync) = sync {
            sync.write(remains);
        }
        Ok(())
    })
}

/// # Safety
/// The contract of `gi_commands`.
unsafe fn vulkan_commands(target: Target, used: Accesses<'_>) -> VulkanCommands<'_> {
    match target {
        // SAFETY: the caller's promise; it submits with the `gi_sync` that it gets, or drops it,
        // which cancels the handoff.
        Target::Record(commands, family) => unsafe {
            VulkanCommands::record(commands, family, used)
        },
        _ => VulkanCommands::recorded().covering(used),
    }
}

/// Returns the sequence number of a release, from 1; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_ticket_sequence(ticket: Option<&gi_ticket>) -> u64 {
    ticket.map_or(0, |ticket| ticket.0.sequence())
}

/// Destroys a ticket; null is allowed. The release is then lost; see `gi_releaser_lost_ticket`.
#[unsafe(no_mangle)]
pub extern "C" fn gi_ticket_destroy(ticket: Option<Box<gi_ticket>>) {
    guard_value(|| drop(ticket));
}

/// Returns the oldest ticket that was destroyed without an acquire, to acquire it.
/// `GI_RESULT_INVALID` if no ticket is lost.
#[unsafe(no_mangle)]
pub extern "C" fn gi_releaser_lost_ticket(
    releaser: Option<&mut gi_releaser>,
    ticket: Option<&mut MaybeUninit<Option<Box<gi_ticket>>>>,
) -> gi_result {
    guard(|| {
        let (releaser, out) = (required(releaser, "releaser")?, required(ticket, "ticket")?);
        let lost = each_api!(Releaser, &mut releaser.end, end => end.lost_tickets());
        // Dropping the others makes them lost tickets again.
        let oldest = lost.into_iter().min_by_key(Ticket::sequence);
        let ticket = oldest.ok_or_else(|| Invalid::new("releaser", "has no lost ticket"))?;
        out.write(Some(Box::new(gi_ticket(ticket))));
        Ok(())
    })
}

/// Destroys the releasing end; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_releaser_destroy(releaser: Option<Box<gi_releaser>>) {
    guard_value(|| drop(releaser));
}

/// Destroys the acquiring end; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_acquirer_destroy(acquirer: Option<Box<gi_acquirer>>) {
    guard_value(|| drop(acquirer));
}
