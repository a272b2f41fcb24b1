//! A fake driver for unit tests. It records the calls that reach it, per thread.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::{mem, ptr};

use ash::vk::{self, Handle};

use super::memory::Memory;
use super::resource::Unbound;
use super::{Buffer, DeviceInfo, Endpoint, Features, Image};
use crate::capabilities::Dedicated;
use crate::desc::{BufferDesc, ImageDesc, ImageUsage};
use crate::error::Result;
use crate::fd::MemoryHandleType;
use crate::format::Format;
use crate::payload::MemoryInfo;

/// A call that reached the driver.
#[derive(Debug)]
pub(crate) enum Call {
    Barrier(RecordedBarrier),
    /// The semaphores that are signalled, with their values, and the fence.
    Submit(Vec<(vk::Semaphore, u64)>, vk::Fence),
    DestroyFence(vk::Fence),
    DestroySemaphore(vk::Semaphore),
}

/// The arguments of `vkCmdPipelineBarrier`.
#[derive(Debug, Default)]
pub(crate) struct RecordedBarrier {
    pub(crate) stages: (vk::PipelineStageFlags, vk::PipelineStageFlags),
    pub(crate) buffers: Vec<vk::BufferMemoryBarrier<'static>>,
    pub(crate) images: Vec<vk::ImageMemoryBarrier<'static>>,
}

thread_local! {
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
    static LACKS: Cell<Option<&'static CStr>> = const { Cell::new(None) };
    static WORK_IS_DONE: Cell<bool> = const { Cell::new(false) };
    static SUBMITS_FAIL: Cell<bool> = const { Cell::new(false) };
    static NEXT_HANDLE: Cell<u64> = const { Cell::new(1000) };
}

/// Returns the calls since the last time.
pub(crate) fn take_calls() -> Vec<Call> {
    CALLS.take()
}

/// Sets whether the driver reports that all work is done.
pub(crate) fn set_work_done(is_done: bool) {
    WORK_IS_DONE.set(is_done);
}

/// Sets whether the driver refuses submits.
pub(crate) fn set_submits_fail(fail: bool) {
    SUBMITS_FAIL.set(fail);
}

fn next_handle() -> u64 {
    NEXT_HANDLE.set(NEXT_HANDLE.get() + 1);
    NEXT_HANDLE.get()
}

/// Sets the function that the driver lacks.
pub(super) fn set_lacking(function: Option<&'static CStr>) {
    LACKS.set(function);
}

/// The address of the driver's `vkGetInstanceProcAddr`.
pub(super) fn get_instance_proc_addr() -> *const c_void {
    instance_proc_addr as vk::PFN_vkGetInstanceProcAddr as *const c_void
}

/// An endpoint with timeline semaphores.
pub(crate) fn endpoint() -> Endpoint {
    endpoint_of(1, true)
}

/// An endpoint over the device with this handle.
pub(super) fn endpoint_of(device: u64, timeline_semaphore: bool) -> Endpoint {
    open(device, Features::default().timeline_semaphore(timeline_semaphore), &[]).unwrap()
}

pub(super) fn open(device: u64, features: Features, extensions: &[&CStr]) -> Result<Endpoint> {
    open_with(device, vk::API_VERSION_1_2, features, extensions)
}

/// An endpoint of this Vulkan version.
pub(super) fn open_with(
    device: u64,
    version: u32,
    features: Features,
    extensions: &[&CStr],
) -> Result<Endpoint> {
    // SAFETY: each function has the signature of its name.
    let (instance, device) = unsafe {
        (
            ash::Instance::load_with(instance_function, vk::Instance::from_raw(1)),
            ash::Device::load_with(device_function, vk::Device::from_raw(device)),
        )
    };
    let physical_device = vk::PhysicalDevice::from_raw(1);
    let info = DeviceInfo::new(&instance, physical_device, &device, version)
        .enabled_extensions(extensions)
        .features(features);
    // SAFETY: the driver dereferences no handle.
    unsafe { Endpoint::new(&info, None) }
}

fn memory(endpoint: &Endpoint) -> Memory {
    let info = MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: 1 << 20,
        memory_type_index: Some(0),
        dedicated: false,
        identity: endpoint.identity().clone(),
    };
    Memory::adopted(endpoint, vk::DeviceMemory::from_raw(1), info, false)
}

pub(crate) fn buffer(endpoint: &Endpoint, handle: u64) -> Buffer {
    let raw = Unbound::adopted(endpoint, vk::Buffer::from_raw(handle), Dedicated::NotNeeded);
    Buffer(raw.bound(memory(endpoint), 0, BufferDesc::storage(4096)))
}

pub(super) fn image(endpoint: &Endpoint, handle: u64, format: Format, usage: ImageUsage) -> Image {
    let raw = Unbound::adopted(endpoint, vk::Image::from_raw(handle), Dedicated::NotNeeded);
    Image(raw.bound(memory(endpoint), 0, ImageDesc::d2(format, 16, 16, usage)))
}

/// Returns the function of this name, or null.
macro_rules! functions {
    ($name:expr, { $($known:literal => $function:ident: $ty:ty,)* }) => {
        match $name.to_bytes() {
            $($known => $function as $ty as *const c_void,)*
            _ => ptr::null(),
        }
    };
}

fn instance_function(name: &CStr) -> *const c_void {
    functions!(name, {
        b"vkGetPhysicalDeviceProperties2" => get_properties: vk::PFN_vkGetPhysicalDeviceProperties2,
        b"vkGetPhysicalDeviceMemoryProperties" => get_memory_properties: vk::PFN_vkGetPhysicalDeviceMemoryProperties,
        b"vkEnumerateDeviceExtensionProperties" => enumerate_extensions: vk::PFN_vkEnumerateDeviceExtensionProperties,
        b"vkGetPhysicalDeviceExternalSemaphoreProperties" => semaphore_properties: vk::PFN_vkGetPhysicalDeviceExternalSemaphoreProperties,
        b"vkGetDeviceProcAddr" => get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr,
    })
}

fn device_function(name: &CStr) -> *const c_void {
    functions!(name, {
        b"vkCreateCommandPool" => create_command_pool: vk::PFN_vkCreateCommandPool,
        b"vkDestroyCommandPool" => destroy_command_pool: vk::PFN_vkDestroyCommandPool,
        b"vkResetCommandPool" => reset_command_pool: vk::PFN_vkResetCommandPool,
        b"vkAllocateCommandBuffers" => allocate_command_buffers: vk::PFN_vkAllocateCommandBuffers,
        b"vkBeginCommandBuffer" => begin_command_buffer: vk::PFN_vkBeginCommandBuffer,
        b"vkEndCommandBuffer" => end_command_buffer: vk::PFN_vkEndCommandBuffer,
        b"vkCmdPipelineBarrier" => pipeline_barrier: vk::PFN_vkCmdPipelineBarrier,
        b"vkQueueSubmit" => queue_submit: vk::PFN_vkQueueSubmit,
        b"vkCreateFence" => create_fence: vk::PFN_vkCreateFence,
        b"vkDestroyFence" => destroy_fence: vk::PFN_vkDestroyFence,
        b"vkGetFenceStatus" => get_fence_status: vk::PFN_vkGetFenceStatus,
        b"vkWaitForFences" => wait_for_fences: vk::PFN_vkWaitForFences,
        b"vkCreateSemaphore" => create_semaphore: vk::PFN_vkCreateSemaphore,
        b"vkDestroySemaphore" => destroy_semaphore: vk::PFN_vkDestroySemaphore,
        b"vkFreeMemory" => free_memory: vk::PFN_vkFreeMemory,
        b"vkGetSemaphoreCounterValue" => get_semaphore_counter_value: vk::PFN_vkGetSemaphoreCounterValue,
        b"vkWaitSemaphores" => wait_semaphores: vk::PFN_vkWaitSemaphores,
    })
}

extern "system" fn free_memory(
    _: vk::Device,
    _: vk::DeviceMemory,
    _: *const vk::AllocationCallbacks<'_>,
) {
}

extern "system" fn get_properties(
    _: vk::PhysicalDevice,
    _: *mut vk::PhysicalDeviceProperties2<'_>,
) {
}

unsafe extern "system" fn get_memory_properties(
    _: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties,
) {
    // SAFETY: the caller passes a pointer to a writable structure, which may be uninitialised.
    unsafe { properties.write(vk::PhysicalDeviceMemoryProperties::default()) };
}

/// Sync fds only.
unsafe extern "system" fn semaphore_properties(
    _: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalSemaphoreInfo<'_>,
    properties: *mut vk::ExternalSemaphoreProperties<'_>,
) {
    // SAFETY: the caller passes both structures.
    unsafe {
        if (*info).handle_type == vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD {
            (*properties).external_semaphore_features =
                vk::ExternalSemaphoreFeatureFlags::EXPORTABLE
                    | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
        }
    }
}

unsafe extern "system" fn enumerate_extensions(
    _: vk::PhysicalDevice,
    _: *const c_char,
    count: *mut u32,
    _: *mut vk::ExtensionProperties,
) -> vk::Result {
    // SAFETY: the count is an output of the call.
    unsafe { *count = 0 };
    vk::Result::SUCCESS
}

/// Every function, except the one of [`set_lacking`]. Those that the driver doesn't have are never
/// called.
///
/// # Safety
/// `name` is a terminated string, and `known` returns functions or null.
unsafe fn find(name: *const c_char, known: fn(&CStr) -> *const c_void) -> vk::PFN_vkVoidFunction {
    unsafe extern "system" fn never_called() {}
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    if LACKS.get() == Some(name) {
        return None;
    }
    // SAFETY: null is `None`, and anything else is a function.
    let found = unsafe { mem::transmute::<*const c_void, vk::PFN_vkVoidFunction>(known(name)) };
    found.or(Some(never_called))
}

unsafe extern "system" fn instance_proc_addr(
    _: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the call's rule.
    unsafe { find(name, instance_function) }
}

unsafe extern "system" fn get_device_proc_addr(
    _: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the call's rule.
    unsafe { find(name, device_function) }
}

/// Functions that create an object.
macro_rules! creates {
    ($($function:ident($info:ident) -> $handle:ident;)*) => { $(
        unsafe extern "system" fn $function(
            _: vk::Device,
            _: *const vk::$info<'_>,
            _: *const vk::AllocationCallbacks<'_>,
            created: *mut vk::$handle,
        ) -> vk::Result {
            // SAFETY: the handle is an output of the call.
            unsafe { *created = vk::$handle::from_raw(next_handle()) };
            vk::Result::SUCCESS
        }
    )* };
}

creates! {
    create_command_pool(CommandPoolCreateInfo) -> CommandPool;
    create_fence(FenceCreateInfo) -> Fence;
    create_semaphore(SemaphoreCreateInfo) -> Semaphore;
}

extern "system" fn destroy_command_pool(
    _: vk::Device,
    _: vk::CommandPool,
    _: *const vk::AllocationCallbacks<'_>,
) {
}

extern "system" fn reset_command_pool(
    _: vk::Device,
    _: vk::CommandPool,
    _: vk::CommandPoolResetFlags,
) -> vk::Result {
    vk::Result::SUCCESS
}

unsafe extern "system" fn allocate_command_buffers(
    _: vk::Device,
    _: *const vk::CommandBufferAllocateInfo<'_>,
    command_buffer: *mut vk::CommandBuffer,
) -> vk::Result {
    // SAFETY: the command buffer is an output of the call; the library allocates one at a time.
    unsafe { *command_buffer = vk::CommandBuffer::from_raw(next_handle()) };
    vk::Result::SUCCESS
}

extern "system" fn begin_command_buffer(
    _: vk::CommandBuffer,
    _: *const vk::CommandBufferBeginInfo<'_>,
) -> vk::Result {
    vk::Result::SUCCESS
}

extern "system" fn end_command_buffer(_: vk::CommandBuffer) -> vk::Result {
    vk::Result::SUCCESS
}

unsafe extern "system" fn pipeline_barrier(
    _: vk::CommandBuffer,
    src: vk::PipelineStageFlags,
    dst: vk::PipelineStageFlags,
    _: vk::DependencyFlags,
    _: u32,
    _: *const vk::MemoryBarrier<'_>,
    buffer_count: u32,
    buffers: *const vk::BufferMemoryBarrier<'_>,
    image_count: u32,
    images: *const vk::ImageMemoryBarrier<'_>,
) {
    // SAFETY: the call's rules: as many structures as the counts say. They have no chains.
    let (buffers, images) = unsafe {
        (
            copies(buffers.cast::<vk::BufferMemoryBarrier<'static>>(), buffer_count),
            copies(images.cast::<vk::ImageMemoryBarrier<'static>>(), image_count),
        )
    };
    let barrier = RecordedBarrier { stages: (src, dst), buffers, images };
    CALLS.with_borrow_mut(|calls| calls.push(Call::Barrier(barrier)));
}

/// # Safety
/// There are `count` structures at `first`.
unsafe fn copies<T: Copy>(first: *const T, count: u32) -> Vec<T> {
    // SAFETY: the caller's promise.
    (0..count as usize).map(|i| unsafe { *first.add(i) }).collect()
}

unsafe extern "system" fn queue_submit(
    _: vk::Queue,
    _: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    if SUBMITS_FAIL.get() {
        return vk::Result::ERROR_OUT_OF_HOST_MEMORY;
    }
    // SAFETY: the call's rules: one structure, with as many semaphores and values as it says. The
    // chain has the values and nothing else.
    let signals = unsafe {
        let submit = &*submits;
        let timeline = submit.p_next.cast::<vk::TimelineSemaphoreSubmitInfo<'_>>();
        let count = submit.signal_semaphore_count;
        let semaphores = copies(submit.p_signal_semaphores, count);
        let values = match timeline.as_ref() {
            Some(timeline) => copies(timeline.p_signal_semaphore_values, count),
            None => vec![0; count as usize],
        };
        semaphores.into_iter().zip(values).collect()
    };
    CALLS.with_borrow_mut(|calls| calls.push(Call::Submit(signals, fence)));
    vk::Result::SUCCESS
}

extern "system" fn destroy_fence(
    _: vk::Device,
    fence: vk::Fence,
    _: *const vk::AllocationCallbacks<'_>,
) {
    CALLS.with_borrow_mut(|calls| calls.push(Call::DestroyFence(fence)));
}

extern "system" fn get_fence_status(_: vk::Device, _: vk::Fence) -> vk::Result {
    if WORK_IS_DONE.get() { vk::Result::SUCCESS } else { vk::Result::NOT_READY }
}

extern "system" fn wait_for_fences(
    _: vk::Device,
    _: u32,
    _: *const vk::Fence,
    _: vk::Bool32,
    _: u64,
) -> vk::Result {
    if WORK_IS_DONE.get() { vk::Result::SUCCESS } else { vk::Result::TIMEOUT }
}

extern "system" fn destroy_semaphore(
    _: vk::Device,
    semaphore: vk::Semaphore,
    _: *const vk::AllocationCallbacks<'_>,
) {
    CALLS.with_borrow_mut(|calls| calls.push(Call::DestroySemaphore(semaphore)));
}

unsafe extern "system" fn get_semaphore_counter_value(
    _: vk::Device,
    _: vk::Semaphore,
    value: *mut u64,
) -> vk::Result {
    // SAFETY: the value is an output of the call.
    unsafe { *value = if WORK_IS_DONE.get() { u64::MAX } else { 0 } };
    vk::Result::SUCCESS
}

extern "system" fn wait_semaphores(
    _: vk::Device,
    _: *const vk::SemaphoreWaitInfo<'_>,
    _: u64,
) -> vk::Result {
    if WORK_IS_DONE.get() { vk::Result::SUCCESS } else { vk::Result::TIMEOUT }
}
