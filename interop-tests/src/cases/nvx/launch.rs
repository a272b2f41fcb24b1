//! Family K: CUDA kernels in a Vulkan queue. Parameters of every size, grids and blocks of three dimensions,
//! dynamic shared memory, and launches that are refused before the driver sees them.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::nvx::Parameter;
use gpu_interop::nvx::{Argument, Function, Launch, MemoryUse, Module};
use gpu_interop::vulkan::workarounds::NVIDIA_KEEPS_SHARED_MEMORY_BYTES;
use gpu_interop::vulkan::{Buffer, BufferOptions};
use gpu_interop::{BufferDesc, Error};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle;
use interop_gpu::vulkan::VulkanContext;
use interop_gpu::vulkan::in_queue::{desc, load};

const LAUNCH: &str = include_str!("../../../../shaders/launch.ptx");

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan/in_queue/launch/{name}"), run).needs(&[Need::SameQueue])
    };
    vec![
        case("parameters/56b", parameters),
        case("grid_and_block/56c", grid_and_block),
        case("dynamic_shared_memory/56d", shared_memory),
        case("too_large_or_empty_is_refused/21a", too_large),
        case("wrong_arguments_are_refused/21b", wrong_arguments),
        case("another_devices_buffer_is_refused/21c", another_devices),
    ]
}

fn module(test_gpu: &TestGpu) -> Result<Module> {
    load(&test_gpu.vulkan().endpoint, test_gpu.cuda()?, LAUNCH)
}

fn buffer(gpu: &VulkanContext, bytes: u64) -> Result<Buffer> {
    Ok(gpu.endpoint.create_buffer(&desc(bytes), BufferOptions::default())?)
}

fn limits(gpu: &VulkanContext) -> vk::PhysicalDeviceLimits {
    let physical = gpu.vulkan.physical_device();
    // SAFETY: a valid instance and its physical device.
    unsafe { gpu.vulkan.instance().get_physical_device_properties(physical) }.limits
}

/// Launches and waits; if the library refuses, nothing is recorded.
fn launch(
    gpu: &VulkanContext,
    function: &Function,
    launch: &Launch,
    arguments: &[Argument<'_>],
) -> Result<()> {
    gpu.run(|command| {
        // SAFETY: the command buffer is being recorded; the arguments match the kernel, or are refused; all
        // live until they were executed (`run` waits).
        unsafe {
            function.launch(command, launch, arguments)?;
            let after = MemoryUse::KERNEL | MemoryUse::TRANSFER;
            gpu.endpoint.record_barrier(command, MemoryUse::KERNEL, after);
        }
        Ok(())
    })
}

/// Each parameter arrives unchanged, for any size and position.
fn parameters(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let function = module(test_gpu)?.function("parameters")?;
    if let Some(parameters) = function.parameters() {
        let sizes: Vec<_> = parameters.iter().map(|Parameter { size, .. }| *size).collect();
        ensure!(sizes == [8, 1, 2, 4, 8, 4, 8, 12, 1, 4], "{parameters:?}");
    }
    let words = buffer(gpu, 88)?;
    let triple: Vec<u8> = [1u32, 2, 0xdead_beef].iter().flat_map(|x| x.to_ne_bytes()).collect();
    let arguments = [
        (&words).into(),
        0xfeu8.into(),
        0xfedcu16.into(),
        0xfedc_ba98u32.into(),
        0xfedc_ba98_7654_3210u64.into(),
        1.5f32.into(),
        (-2.25f64).into(),
        Argument::bytes(&triple),
        7u8.into(),
        (-5i32).into(),
    ];
    launch(gpu, &function, &Launch::linear(1, 1), &arguments)?;
    let expected: [u64; 11] = [
        0xfe,
        0xfedc,
        0xfedc_ba98,
        0xfedc_ba98_7654_3210,
        1.5f32.to_bits().into(),
        (-2.25f64).to_bits(),
        1,
        2,
        0xdead_beef,
        7,
        0xffff_fffb,
    ];
    let read = gpu.download(words.handle(), 0, 88)?;
    let read: Vec<_> = read
        .chunks_exact(8)
        .map(|word| word.try_into().map(u64::from_le_bytes))
        .collect::<Result<_, _>>()?;
    ensure!(read == expected, "{read:x?}, not {expected:x?}");
    Ok(())
}

/// Every thread of every block runs at its place, in all three dimensions.
fn grid_and_block(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let function = module(test_gpu)?.function("places")?;
    for (grid, block) in [([3, 4, 5], [2, 3, 4]), ([1, 1, 1], [1, 1, 64]), ([7, 1, 2], [128, 8, 1])]
    {
        let order = |[x, y, z]: [u32; 3]| {
            (0..z).flat_map(move |z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])))
        };
        let packed = |[x, y, z]: [u32; 3]| x | y << 8 | z << 16;
        let expected: Vec<u8> = order(grid)
            .flat_map(|b| order(block).map(move |t| [b, t, grid, block].map(packed)))
            .flat_map(|words| words.map(u32::to_le_bytes))
            .flatten()
            .collect();
        let places = buffer(gpu, expected.len() as u64)?;
        let shape = Launch { grid, block, dynamic_shared_bytes: 0 };
        launch(gpu, &function, &shape, &[Argument::buffer(&places)])?;
        let read = gpu.download(places.handle(), 0, places.desc().size)?;
        ensure!(read == expected, "{shape:?}");
    }
    Ok(())
}

/// Any size of dynamic shared memory, up to a block's limit.
fn shared_memory(test_gpu: &TestGpu) -> Result<()> {
    const BLOCKS: u32 = 5;
    let gpu = test_gpu.vulkan();
    let function = module(test_gpu)?.function("reversed")?;
    let all = limits(gpu).max_compute_shared_memory_size - NVIDIA_KEEPS_SHARED_MEMORY_BYTES;
    let sizes = [(32, 128), (256, 1024), (1024, 4096), (1024, all / 2), (1024, all)];
    for (threads, dynamic_shared_bytes) in sizes {
        let bytes = BLOCKS * threads * 4;
        let words = buffer(gpu, bytes.into())?;
        let data = oracle::filled(bytes as usize, threads);
        gpu.upload(words.handle(), 0, &data)?;
        let shape = Launch { dynamic_shared_bytes, ..Launch::linear(BLOCKS, threads) };
        launch(gpu, &function, &shape, &[Argument::buffer(&words)])
            .with_context(|| format!("{shape:?}"))?;
        let block = |block: &[u8]| block.chunks_exact(4).rev().flatten().copied().collect();
        let expected: Vec<Vec<u8>> = data.chunks_exact(threads as usize * 4).map(block).collect();
        let read = gpu.download(words.handle(), 0, bytes.into())?;
        ensure!(read == expected.concat(), "{shape:?}");
    }
    Ok(())
}

/// Returns the error of a launch that must be refused; it is never recorded.
fn refused(
    test_gpu: &TestGpu,
    function: &Function,
    shape: &Launch,
    arguments: &[Argument<'_>],
) -> Result<Error> {
    let refused = launch(test_gpu.vulkan(), function, shape, arguments).err();
    let refused = refused.with_context(|| format!("{shape:?} with {arguments:?} was launched"))?;
    refused.downcast().context("not an error of the library")
}

fn too_large(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let function = module(test_gpu)?.function("places")?;
    let places = buffer(gpu, 4096)?;
    let usual = Launch::linear(1, 32);
    let limits = limits(gpu);
    let [x, y, z] = limits.max_compute_work_group_size;
    let all_shared = limits.max_compute_shared_memory_size;
    for (shape, text) in [
        (Launch { grid: [0, 1, 1], ..usual }, "launch.grid"),
        (Launch { grid: [1, 1, 0], ..usual }, "launch.grid"),
        (Launch { grid: [1, u32::MAX, 1], ..usual }, "launch.grid"),
        (Launch { block: [1, 0, 1], ..usual }, "launch.block"),
        (Launch { block: [x + 1, 1, 1], ..usual }, "launch.block"),
        (Launch { block: [1, 1, z + 1], ..usual }, "launch.block"),
        (Launch { block: [x, y, 1], ..usual }, "threads; the limit is"),
        (Launch { dynamic_shared_bytes: 1 << 20, ..usual }, "launch.dynamic_shared_bytes"),
        // It would lose the device.
        (Launch { dynamic_shared_bytes: all_shared, ..usual }, "launch.dynamic_shared_bytes"),
    ] {
        let error = refused(test_gpu, &function, &shape, &[Argument::buffer(&places)])?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains(text), "{shape:?}: {error}");
    }
    launch(gpu, &function, &usual, &[Argument::buffer(&places)])
}

/// Too few, too many, of the wrong size; a place after the end of the buffer; a buffer without an address.
fn wrong_arguments(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let function = module(test_gpu)?.function("places")?;
    let places = buffer(gpu, 4096)?;
    let made = gpu.endpoint.create_buffer(&BufferDesc::storage(4096), BufferOptions::default())?;
    let usual = Launch::linear(1, 32);
    let place = Argument::buffer(&places);
    let check = |arguments: &[Argument<'_>], text: &str| -> Result<()> {
        let error = refused(test_gpu, &function, &usual, arguments)?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains(text), "{error}");
        Ok(())
    };
    check(&[Argument::buffer_at(&places, 4096)], "4096, but the buffer has 4096 bytes")?;
    check(&[Argument::buffer(&made)], "BufferUsage::DEVICE_ADDRESS")?;
    ensure!(function.parameters().is_some(), "the linker's cubin lacks the parameters");
    check(&[], "0 for a kernel with 1 parameter")?;
    check(&[place, 1u32.into()], "2 for a kernel with 1 parameter")?;
    check(&[1u32.into()], "arguments[0]: 4 bytes for a parameter of 8")?;
    launch(gpu, &function, &usual, &[place])
}

fn another_devices(test_gpu: &TestGpu) -> Result<()> {
    let function = module(test_gpu)?.function("places")?;
    let usual = Launch::linear(1, 32);
    for other in [test_gpu.second_device()?, test_gpu.second_instance()?] {
        let theirs = buffer(other, 4096)?;
        let error = refused(test_gpu, &function, &usual, &[Argument::buffer(&theirs)])?;
        ensure!(
            matches!(&error, Error::Mismatch(mismatch) if mismatch.help.is_some()),
            "{error:?}"
        );
        let imported = test_gpu.vulkan().endpoint.import_buffer(theirs.export()?)?;
        launch(test_gpu.vulkan(), &function, &usual, &[Argument::buffer(&imported)])?;
    }
    Ok(())
}
