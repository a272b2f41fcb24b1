//! The order of work and semaphores in wgpu's queue, while another thread submits to it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpu_interop::vulkan::{BufferOptions, Mapping, MemoryLocation};
use gpu_interop::{BufferDesc, ash};

use super::*;
use crate::request_device;

const BYTES: usize = 4 << 20;
const SOON: Duration = Duration::from_millis(50);
const AT_LAST: Duration = Duration::from_secs(10);

/// A device, a buffer that the host reads directly, and a timeline semaphore.
struct Opened {
    interop: Interop,
    target: SharedBuffer,
    mapping: Mapping,
    semaphore: vk::Semaphore,
}

impl Opened {
    fn new() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            // The validation layer (1.3.239) stalls for 10 seconds now and then when the host
            // signals a timeline semaphore that a queue waits for.
            flags: wgpu::InstanceFlags::empty(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapter = pollster::block_on(instance.request_adapter(&Default::default()))
            .expect("a Vulkan driver: scripts/drivers.sh installs one");
        let (device, queue) = request_device(&adapter, &Default::default()).unwrap();
        let interop = Interop::new(&adapter, &device, &queue).unwrap();
        let visible =
            BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
        let desc = BufferDesc::storage(BYTES as u64);
        let target = interop.wrap(interop.endpoint().create_buffer(&desc, visible).unwrap());
        let mapping = target.vulkan().map().unwrap();
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: an ordinary Vulkan call; wgpu-hal enables timeline semaphores.
        let semaphore =
            unsafe { interop.endpoint().device().create_semaphore(&info, None) }.unwrap();
        Self { interop, target, mapping, semaphore }
    }

    fn raw(&self) -> &ash::Device {
        self.interop.endpoint().device()
    }

    /// Commands that fill the target with `byte`.
    fn fill(&self, byte: u8) -> wgpu::CommandBuffer {
        let (device, queue) = (&self.interop.device, &self.interop.queue);
        let source = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: BYTES as u64,
            usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        queue.write_buffer(&source, 0, &vec![byte; BYTES]);
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&source, 0, &self.target, 0, BYTES as u64);
        encoder.finish()
    }

    /// Returns the last byte of the target.
    fn last_byte(&self) -> u8 {
        let mut seen = [0];
        // SAFETY: the work that fills the target is done, or waits for a semaphore.
        unsafe { self.mapping.read(BYTES - 1, &mut seen) }.unwrap();
        seen[0]
    }

    /// Waits on the host for a value of the semaphore.
    fn wait(&self, value: u64, timeout: Duration) -> Result<(), vk::Result> {
        let (semaphores, values) = ([self.semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: an ordinary Vulkan call; the semaphore is a timeline semaphore of this device.
        unsafe { self.raw().wait_semaphores(&info, timeout.as_nanos() as u64) }
    }

    /// Signals a value of the semaphore from the host.
    fn signal(&self, value: u64) {
        let info = vk::SemaphoreSignalInfo::default().semaphore(self.semaphore).value(value);
        // SAFETY: an ordinary Vulkan call; the value is more than before, and less than that of the
        // signal in the queue.
        unsafe { self.raw().signal_semaphore(&info) }.unwrap();
    }

    /// Runs `test` while another thread submits.
    fn with_noise(&self, test: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    self.interop.queue.submit([]);
                    // Otherwise this thread would nearly always hold wgpu's locks.
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            let result = catch_unwind(AssertUnwindSafe(test));
            stop.store(true, Ordering::Relaxed);
            result
        });
        result.unwrap_or_else(|panic| resume_unwind(panic));
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.interop.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        // SAFETY: no work uses the semaphore any more.
        unsafe { self.raw().destroy_semaphore(self.semaphore, None) };
    }
}

#[test]
fn signals_come_after_the_work() {
    let opened = Opened::new();
    opened.with_noise(|| {
        for round in 1..=100u8 {
            let signal = (opened.semaphore, Some(round.into()));
            submit(&opened.interop.queue, [], [opened.fill(round)], [signal]).unwrap();
            opened.wait(round.into(), AT_LAST).unwrap();
            assert_eq!(opened.last_byte(), round);
        }
    });
}

#[test]
fn work_comes_after_the_waits() {
    let opened = Opened::new();
    opened.with_noise(|| {
        for round in 1..=20u8 {
            let (ready, done) = (u64::from(round) * 2 - 1, u64::from(round) * 2);
            let wait = (opened.semaphore, Some(ready), vk::PipelineStageFlags::ALL_COMMANDS);
            let (work, signal) = (opened.fill(round), (opened.semaphore, Some(done)));
            let seen = std::thread::scope(|scope| {
                // lavapipe blocks in a submit that waits, so another thread signals.
                let signaller = scope.spawn(|| {
                    std::thread::sleep(SOON);
                    let seen = opened.last_byte();
                    opened.signal(ready);
                    seen
                });
                submit(&opened.interop.queue, [wait], [work], [signal]).unwrap();
                signaller.join().unwrap()
            });
            assert_eq!(seen, round - 1, "the work did not wait");
            opened.wait(done, AT_LAST).unwrap();
            assert_eq!(opened.last_byte(), round);
        }
    });
}
