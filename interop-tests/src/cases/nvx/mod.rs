//! Family K: CUDA kernels in a Vulkan queue. What they compute, and that barriers order them with shaders,
//! copies and each other.

pub(crate) mod launch;
pub(crate) mod life;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, BufferOptions, DedicatedAllocation};

use crate::cases::support::contexts::ApiContext as _;
use crate::cases::support::importers::Place;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::in_queue::desc;
use interop_gpu::vulkan::{Bound, PrivateBuffer, SameQueue, VulkanContext};

const BYTES: u64 = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, run: fn(&TestGpu) -> Result<()>| {
        let name = format!("vulkan/in_queue/buffer/{name}");
        cases.push(Case::new(name, run).needs(&[Need::SameQueue]));
    };
    case("kernel/56a", kernel);
    case("at_an_offset/50a", at_an_offset);
    case("seen_by_cuda/57a", seen_by_cuda);
    case("alternates_with_shaders_in_one_submit/46a", in_one_submit);
    case("alternates_with_shaders_in_many_submits/46b", in_many_submits);
    case("submitted_again/46c", submitted_again);
    let control = "vulkan/in_queue/buffer/fails_without_a_barrier/49b";
    cases.push(Case::new(control, without_a_barrier).needs(&[Need::SameQueue, Need::Hardware]));
    for (name, first, second) in [
        ("kernel_then_kernel", Step::Kernel, Step::Kernel),
        ("kernel_then_shader", Step::Kernel, Step::Shader),
        ("shader_then_kernel", Step::Shader, Step::Kernel),
        ("kernel_then_copy", Step::Kernel, Step::Copy),
        ("copy_then_kernel", Step::Copy, Step::Kernel),
    ] {
        let name = format!("vulkan/in_queue/buffer/slow_{name}_in_order/49a");
        let run = move |test_gpu: &TestGpu| in_order(test_gpu, first, second);
        cases.push(Case::new(name, run).needs(&[Need::SameQueue, Need::Hardware]));
    }
    cases.extend(Place::ALL.map(|place| {
        let name = format!("vulkan→vulkan/in_queue/buffer/imported/{}/50b", place.name());
        Case::new(name, move |test_gpu| imported(test_gpu, place)).needs(&[Need::SameQueue])
    }));
    cases
}

/// A Vulkan device with CUDA kernels loaded into it.
pub(crate) struct Kernels<'a> {
    gpu: &'a VulkanContext,
    in_queue: SameQueue,
}

impl<'a> Kernels<'a> {
    pub(crate) fn new(test_gpu: &'a TestGpu) -> Result<Self> {
        Self::of(test_gpu.vulkan(), test_gpu)
    }

    pub(crate) fn of(gpu: &'a VulkanContext, test_gpu: &TestGpu) -> Result<Self> {
        Ok(Self { gpu, in_queue: SameQueue::new(gpu, test_gpu.cuda()?)? })
    }

    pub(crate) fn buffer(&self, bytes: u64) -> Result<Buffer> {
        Ok(self.gpu.endpoint.create_buffer(&desc(bytes), BufferOptions::default())?)
    }

    /// Runs one kernel over all of `buffer`, and waits.
    pub(crate) fn run(&self, kernel: Kernel, buffer: &Buffer, groups: u32) -> Result<()> {
        self.gpu.run(|command| {
            self.in_queue.record(command, kernel, buffer, groups)?;
            self.in_queue.record_barrier(command);
            Ok(())
        })
    }

    pub(crate) fn check(&self, buffer: &Buffer, seed: u32, passes: &Passes) -> Result<()> {
        let read = self.gpu.download(buffer.handle(), 0, buffer.desc().size)?;
        Ok(oracle::check(&read, seed, passes)?)
    }
}

/// The expected content after passes with the steps 1 to `count`.
fn passes(count: u32) -> Passes {
    let mut passes = Passes::default();
    (1..=count).for_each(|step| passes.then(step));
    passes
}

/// Each byte is what the CPU computes, for any size, number of blocks and allocation.
fn kernel(test_gpu: &TestGpu) -> Result<()> {
    let kernels = Kernels::new(test_gpu)?;
    for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
        for (bytes, groups) in [(16, 0), (4096, 1), (64 << 10, 0), (3 << 20, 7), (64 << 20, 0)] {
            let options = BufferOptions { dedicated, ..BufferOptions::default() };
            let buffer = kernels.gpu.endpoint.create_buffer(&desc(bytes), options)?;
            kernels.run(Kernel::Fill { seed: groups }, &buffer, groups)?;
            kernels.check(&buffer, groups, &Passes::default())?;
            kernels.run(Kernel::PingPong { step: 1 }, &buffer, groups)?;
            kernels.check(&buffer, groups, &passes(1))?;
        }
    }
    Ok(())
}

/// A buffer between two others of one allocation, and a part of it: the neighbours are unchanged.
fn at_an_offset(test_gpu: &TestGpu) -> Result<()> {
    const PART: usize = 4096;
    let kernels = Kernels::new(test_gpu)?;
    let descs = [4 << 10, BYTES, 4 << 10].map(desc);
    let buffers = kernels.gpu.endpoint.create_buffers(&descs, BufferOptions::default())?;
    for (buffer, seed) in buffers.iter().zip(1..) {
        kernels.run(Kernel::Fill { seed }, buffer, 0)?;
    }
    let middle = &buffers[1];
    ensure!(middle.offset() > 0, "{middle:?}");
    kernels.gpu.run(|command| {
        let (at, bytes) = (PART as u64, PART as u64);
        kernels.in_queue.record_part(command, Kernel::Fill { seed: 9 }, middle, at, bytes, 0)?;
        kernels.in_queue.record_barrier(command);
        Ok(())
    })?;
    let mut expected = oracle::filled(BYTES as usize, 2);
    expected[PART..2 * PART].copy_from_slice(&oracle::filled(PART, 9));
    ensure!(kernels.gpu.download(middle.handle(), 0, BYTES)? == expected);
    kernels.check(&buffers[0], 1, &Passes::default())?;
    kernels.check(&buffers[2], 3, &Passes::default())
}

/// The kernel works on a buffer that another device has exported, at an address of its own.
fn imported(test_gpu: &TestGpu, place: Place) -> Result<()> {
    let exporter = test_gpu.vulkan();
    let kernels = Kernels::of(place.gpu(test_gpu)?, test_gpu)?;
    let descs = [BYTES, BYTES].map(desc);
    let made = exporter.endpoint.create_buffers(&descs, BufferOptions::default())?;
    for exported in &made {
        exporter.upload(exported.handle(), 0, &oracle::filled(BYTES as usize, 1))?;
        let imported = kernels.gpu.endpoint.import_buffer(exported.export()?)?;
        ensure!(imported.device_address()? != 0, "no address");
        kernels.run(Kernel::PingPong { step: 1 }, &imported, 0)?;
        let read = exporter.download(exported.handle(), 0, BYTES)?;
        oracle::check(&read, 1, &passes(1))?;
    }
    Ok(())
}

/// CUDA's own context sees what kernels wrote in Vulkan's queue, and the other way round.
fn seen_by_cuda(test_gpu: &TestGpu) -> Result<()> {
    let (kernels, own) = (Kernels::new(test_gpu)?, test_gpu.cuda()?);
    let buffer = kernels.buffer(BYTES)?;
    let mut imported = own.endpoint.import_buffer(buffer.export()?)?;
    kernels.run(Kernel::Fill { seed: 5 }, &buffer, 0)?;
    for step in 1..=20 {
        if step % 2 == 0 {
            kernels.run(Kernel::PingPong { step }, &buffer, 0)?;
        } else {
            own.launch(Kernel::PingPong { step }, &mut imported.as_view_mut::<u8>()?, 0)?;
            own.stream.synchronize()?;
        }
        oracle::check(&own.read(&imported)?, 5, &passes(step))
            .with_context(|| format!("pass {step}"))?;
    }
    kernels.check(&buffer, 5, &passes(20))
}

/// Records passes with these steps, alternating between a CUDA kernel and a shader, each after the one
/// before.
fn record_passes(
    kernels: &Kernels<'_>,
    command: vk::CommandBuffer,
    (buffer, bound): (&Buffer, &Bound),
    steps: std::ops::RangeInclusive<u32>,
) -> Result<()> {
    for step in steps {
        let pass = Kernel::PingPong { step };
        match step % 2 {
            0 => kernels.gpu.record(command, pass, bound, 0),
            _ => kernels.in_queue.record(command, pass, buffer, 0)?,
        }
        kernels.in_queue.record_barrier(command);
    }
    Ok(())
}

/// 255 pairs of a kernel and a shader in one command buffer.
fn in_one_submit(test_gpu: &TestGpu) -> Result<()> {
    let kernels = Kernels::new(test_gpu)?;
    for bytes in [BYTES, 16 << 20] {
        let buffer = kernels.buffer(bytes)?;
        let bound = kernels.gpu.bind(buffer.handle(), bytes)?;
        kernels.gpu.run(|command| {
            kernels.in_queue.record(command, Kernel::Fill { seed: 3 }, &buffer, 0)?;
            kernels.in_queue.record_barrier(command);
            record_passes(&kernels, command, (&buffer, &bound), 1..=510)
        })?;
        kernels.gpu.unbind(bound);
        kernels.check(&buffer, 3, &passes(510))?;
    }
    Ok(())
}

/// The same with one submit per pair; the content is checked in between.
fn in_many_submits(test_gpu: &TestGpu) -> Result<()> {
    let kernels = Kernels::new(test_gpu)?;
    let buffer = kernels.buffer(BYTES)?;
    let bound = kernels.gpu.bind(buffer.handle(), BYTES)?;
    kernels.run(Kernel::Fill { seed: 4 }, &buffer, 0)?;
    for pair in 0..200 {
        let first = 2 * pair + 1;
        kernels.gpu.run(|command| {
            record_passes(&kernels, command, (&buffer, &bound), first..=first + 1)
        })?;
        if pair % 50 == 0 {
            kernels.check(&buffer, 4, &passes(first + 1))?;
        }
    }
    kernels.gpu.unbind(bound);
    kernels.check(&buffer, 4, &passes(400))
}

/// A command buffer that was recorded once runs its kernel on each submit.
fn submitted_again(test_gpu: &TestGpu) -> Result<()> {
    const TIMES: u32 = 20;
    let kernels = Kernels::new(test_gpu)?;
    let (device, gpu) = (kernels.gpu.device(), kernels.gpu);
    let buffer = kernels.buffer(BYTES)?;
    kernels.run(Kernel::Fill { seed: 6 }, &buffer, 0)?;
    let commands = gpu.command_buffers(1)?;
    // SAFETY: the command buffer is new, of a pool that this thread alone uses.
    unsafe { device.begin_command_buffer(commands[0], &vk::CommandBufferBeginInfo::default()) }?;
    kernels.in_queue.record(commands[0], Kernel::PingPong { step: 7 }, &buffer, 0)?;
    kernels.in_queue.record_barrier(commands[0]);
    // SAFETY: it is being recorded.
    unsafe { device.end_command_buffer(commands[0]) }?;
    for _ in 0..TIMES {
        let info = vk::SubmitInfo::default().command_buffers(&commands);
        // SAFETY: the queue is locked; what was recorded lives until the work is done.
        gpu.vulkan.with_queue(|queue| unsafe {
            device.queue_submit(queue, &[info], vk::Fence::null())
        })?;
        gpu.vulkan.wait_idle()?;
    }
    gpu.free_command_buffers(&commands);
    let mut expected = Passes::default();
    (0..TIMES).for_each(|_| expected.then(7));
    kernels.check(&buffer, 6, &expected)
}

/// A step of a command buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Kernel,
    Shader,
    /// To another buffer and back.
    Copy,
}

/// A slow step before a fast one, which shows a missing or too weak barrier.
///
/// The slow one is a single block or work group, so that the fast one, if it ran too early, would find most
/// of the payload unchanged. Copies can't be slowed down.
fn in_order(test_gpu: &TestGpu, first: Step, second: Step) -> Result<()> {
    const BYTES: u64 = 16 << 20;
    let kernels = Kernels::new(test_gpu)?;
    let buffer = kernels.buffer(BYTES)?;
    let aside = PrivateBuffer::device(&kernels.gpu.vulkan, BYTES)?;
    let bound = kernels.gpu.bind(buffer.handle(), BYTES)?;
    let record = |command, step, number, groups| -> Result<()> {
        let pass = Kernel::PingPong { step: number };
        match step {
            Step::Kernel => kernels.in_queue.record(command, pass, &buffer, groups)?,
            Step::Shader => kernels.gpu.record(command, pass, &bound, groups),
            Step::Copy => {
                let region = vk::BufferCopy::default().size(BYTES);
                let device = kernels.gpu.device();
                let regions = [(buffer.handle(), aside.buffer), (aside.buffer, buffer.handle())];
                for (from, to) in regions {
                    // SAFETY: the command buffer is being recorded; both buffers are that long.
                    unsafe { device.cmd_copy_buffer(command, from, to, &[region]) };
                    kernels.in_queue.record_barrier(command);
                }
            }
        }
        kernels.in_queue.record_barrier(command);
        Ok(())
    };
    for round in 0..10 {
        kernels.gpu.run(|command| {
            kernels.in_queue.record(command, Kernel::Fill { seed: round }, &buffer, 0)?;
            kernels.in_queue.record_barrier(command);
            record(command, first, 1, 1)?;
            record(command, second, 2, 0)
        })?;
        let mut expected = Passes::default();
        for (step, number) in [(first, 1), (second, 2)] {
            if step != Step::Copy {
                expected.then(number);
            }
        }
        kernels.check(&buffer, round, &expected).with_context(|| format!("round {round}"))?;
    }
    kernels.gpu.unbind(bound);
    Ok(())
}

/// The control of [`in_order`]: without the barrier, the fast kernel runs before the slow one is done, and
/// the check fails.
fn without_a_barrier(test_gpu: &TestGpu) -> Result<()> {
    const BYTES: u64 = 16 << 20;
    let kernels = Kernels::new(test_gpu)?;
    let buffer = kernels.buffer(BYTES)?;
    let mut seen = 0;
    for round in 0..10 {
        kernels.gpu.run(|command| {
            kernels.in_queue.record(command, Kernel::Fill { seed: round }, &buffer, 0)?;
            kernels.in_queue.record_barrier(command);
            kernels.in_queue.record(command, Kernel::PingPong { step: 1 }, &buffer, 1)?;
            kernels.in_queue.record(command, Kernel::PingPong { step: 2 }, &buffer, 0)?;
            kernels.in_queue.record_barrier(command);
            Ok(())
        })?;
        seen += u32::from(kernels.check(&buffer, round, &passes(2)).is_err());
    }
    ensure!(seen > 0, "ten times, the kernels kept their order without a barrier");
    Ok(())
}
