//! Family K: CUDA kernels in a Vulkan queue. What is refused or missing, and in which order objects may be
//! dropped.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gpu_interop::nvx::Cubin;
use gpu_interop::vulkan::{DeviceInfo, Endpoint, Features};
use gpu_interop::{Api, Error};

use crate::cases::nvx::Kernels;
use crate::cases::support::fds::leaves_nothing_open;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::Passes;
use interop_gpu::vulkan::VulkanContext;

const FILL: &str = include_str!("../../../../shaders/fill.ptx");

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan/in_queue/module/{name}"), run)
    };
    let (cuda, in_queue) = ([Need::Cuda], [Need::SameQueue]);
    vec![
        case("a_missing_extension_is_named/4a", missing_extension),
        case("a_missing_feature_is_named/4b", missing_feature),
        case("a_module_without_a_feature_is_refused/4b", module_without_feature).needs(&cuda),
        case("no_cubin_is_refused/21d", no_cubin),
        case("a_linked_cubin_lists_its_kernels/56e", linked).needs(&cuda),
        case("a_truncated_cubin_is_refused/21e", cut_off).needs(&cuda),
        case("bad_ptx_is_refused_with_the_linkers_log/21f", bad_ptx).needs(&cuda),
        case("a_missing_function_is_named_with_those_present/21g", missing_function)
            .needs(&in_queue),
        case("a_function_outlives_its_module_and_cubin/59a", outlives).needs(&in_queue),
        case("dropped_before_and_after_its_device/59b", any_order).needs(&in_queue),
        case("leaves_no_descriptor/16e", descriptors).needs(&in_queue),
        case("several_modules_of_one_cubin/59c", several).needs(&in_queue),
    ]
}

/// An endpoint over the suite's first device that knows of less than is enabled.
fn limited(test_gpu: &TestGpu, extension: bool, features: Features) -> Result<Endpoint> {
    let vulkan = &test_gpu.vulkan().vulkan;
    let mut extensions = vulkan.enabled_extensions().to_vec();
    extensions.retain(|&name| extension || name != gpu_interop::ash::nvx::binary_import::NAME);
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(&extensions)
    .features(features);
    // SAFETY: the handles belong together, all that is listed was enabled, and the owner keeps the device
    // alive.
    Ok(unsafe { Endpoint::new(&info, Some(Arc::new(vulkan.clone()))) }?)
}

/// Checks that the endpoint can't launch kernels, and that the error names `what` and what would help.
fn check_lacks(endpoint: &Endpoint, what: &str) -> Result<()> {
    let missing =
        endpoint.supports_cuda_launch().err().with_context(|| format!("{what} is not needed"))?;
    ensure!(missing.api == Api::Vulkan && missing.what.contains(what), "{missing}");
    ensure!(missing.help.is_some() && missing.needed_for.contains("CUDA"), "{missing}");
    Ok(())
}

fn missing_extension(test_gpu: &TestGpu) -> Result<()> {
    let features = test_gpu.vulkan().endpoint.features();
    check_lacks(&limited(test_gpu, false, features)?, "VK_NVX_binary_import")?;
    // `headless` enables all that the driver has.
    let enabled = test_gpu.vulkan().vulkan.enabled_extensions();
    let has = enabled.contains(&gpu_interop::ash::nvx::binary_import::NAME);
    match test_gpu.vulkan().endpoint.supports_cuda_launch() {
        Ok(()) => ensure!(has),
        Err(_) if has => ensure!(!features.buffer_device_address),
        Err(_) => check_lacks(&test_gpu.vulkan().endpoint, "VK_NVX_binary_import")?,
    }
    Ok(())
}

fn missing_feature(test_gpu: &TestGpu) -> Result<()> {
    check_lacks(&limited(test_gpu, true, Features::default())?, without_features(test_gpu))
}

/// What a device without features lacks first.
fn without_features(test_gpu: &TestGpu) -> &'static str {
    let enabled = test_gpu.vulkan().vulkan.enabled_extensions();
    match enabled.contains(&gpu_interop::ash::nvx::binary_import::NAME) {
        true => "bufferDeviceAddress",
        false => "VK_NVX_binary_import",
    }
}

fn module_without_feature(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = limited(test_gpu, true, Features::default())?;
    let what = without_features(test_gpu);
    let error = endpoint.load_module(&test_gpu.cuda()?.endpoint.link(FILL)?).err();
    ensure!(matches!(&error, Some(Error::Missing(m)) if m.what.contains(what)), "{error:?}");
    Ok(())
}

/// PTX, other files and an empty file are distinguished, and none of them reaches a driver.
fn no_cubin(_: &TestGpu) -> Result<()> {
    let fat = [0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    let library = std::fs::read("/proc/self/exe")?;
    let cases: [(&[u8], &str); 5] = [
        (FILL.as_bytes(), "cuda::Endpoint::link"),
        (&fat, "fat binary"),
        (b"", "empty"),
        (b"\0asm", "ELF"),
        (&library[..4096], "not CUDA"),
    ];
    for (bytes, text) in cases {
        let error = Cubin::new(bytes).err().with_context(|| format!("{text}: accepted"))?;
        ensure!(matches!(&error, Error::Invalid(invalid) if invalid.help.is_some()), "{error:?}");
        ensure!(error.to_string().contains(text), "{error}");
    }
    Ok(())
}

/// The output of the driver's linker is understood: names, parameters, architecture.
fn linked(test_gpu: &TestGpu) -> Result<()> {
    let cubin = test_gpu.cuda()?.endpoint.link(FILL)?;
    let kernel = cubin.kernel("fill")?;
    ensure!(cubin.kernels().len() == 1, "{cubin:?}");
    let sizes = kernel.parameters.as_ref().map(|all| all.iter().map(|one| one.size).collect());
    ensure!(sizes == Some(vec![8, 4, 4, 4]), "{cubin:?}");
    ensure!(cubin.architecture().is_some_and(|sm| (50..200).contains(&sm)), "{cubin:?}");
    let again = Cubin::new(cubin.bytes())?;
    ensure!(again == cubin);
    Ok(())
}

/// A truncated file is refused, wherever it ends.
fn cut_off(test_gpu: &TestGpu) -> Result<()> {
    let cubin = test_gpu.cuda()?.endpoint.link(FILL)?;
    let bytes = cubin.bytes();
    for end in 0..bytes.len() {
        let error = Cubin::new(&bytes[..end]).err();
        ensure!(matches!(error, Some(Error::Invalid(_))), "{end} bytes: {error:?}");
    }
    Ok(())
}

fn bad_ptx(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.cuda()?.endpoint;
    let nonsense = FILL.replace("ret;", "nonsense;");
    let future = FILL.replace(".version 8.0", ".version 99.0");
    let halved = &FILL[..FILL.len() / 2];
    for (ptx, text) in [
        (nonsense.as_str(), "nonsense"),
        (&future, "cuLink"),
        (halved, "cuLink"),
        ("", ".version"),
        ("\0.version 8.0", "zero byte"),
    ] {
        let error = endpoint.link(ptx).err().with_context(|| format!("{text}: linked"))?;
        let typed = matches!(error, Error::Invalid(_) | Error::Missing(_));
        ensure!(typed && error.to_string().contains(text), "{text}: {error:?}");
    }
    // The next one is not affected.
    endpoint.link(FILL)?.kernel("fill")?;
    Ok(())
}

fn missing_function(test_gpu: &TestGpu) -> Result<()> {
    let module = test_gpu.vulkan().endpoint.load_module(&test_gpu.cuda()?.endpoint.link(FILL)?)?;
    for name in ["fil", "Fill", "", "fill\0"] {
        let error = module.function(name).err().with_context(|| format!("{name:?} was found"))?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains("fill"), "{error}");
    }
    ensure!(module.function("fill")?.name() == "fill");
    Ok(())
}

/// Kernels run after their cubins and modules were dropped, in a device of their own.
fn outlives(test_gpu: &TestGpu) -> Result<()> {
    let gpu = VulkanContext::new(test_gpu.vulkan().vulkan.second_device()?)?;
    let kernels = Kernels::of(&gpu, test_gpu)?;
    let buffer = kernels.buffer(4096)?;
    kernels.run(Kernel::Fill { seed: 2 }, &buffer, 0)?;
    kernels.check(&buffer, 2, &Passes::default())
}

/// In any order of drops, the validation layer finds nothing left when the device is destroyed.
fn any_order(test_gpu: &TestGpu) -> Result<()> {
    let cubin = test_gpu.cuda()?.endpoint.link(FILL)?;
    for order in 0..4 {
        let vulkan = test_gpu.vulkan().vulkan.second_device()?;
        let endpoint = vulkan.endpoint()?;
        let module = endpoint.load_module(&cubin)?;
        let function = module.function("fill")?;
        match order {
            0 => drop((vulkan, endpoint, module, function)),
            1 => drop((function, module, endpoint, vulkan)),
            2 => drop((module, vulkan, endpoint, function)),
            _ => drop((endpoint, function.clone(), vulkan, function, module)),
        }
    }
    Ok(())
}

/// Linking, loading and running repeatedly leaves as many descriptors as before.
fn descriptors(test_gpu: &TestGpu) -> Result<()> {
    leaves_nothing_open(|| {
        for seed in 0..20 {
            let kernels = Kernels::new(test_gpu)?;
            let buffer = kernels.buffer(4096)?;
            kernels.run(Kernel::Fill { seed }, &buffer, 0)?;
            kernels.check(&buffer, seed, &Passes::default())?;
        }
        Ok(())
    })
}

/// One cubin in two devices, twice in one of them; each module is dropped separately.
fn several(test_gpu: &TestGpu) -> Result<()> {
    let cubin = test_gpu.cuda()?.endpoint.link(FILL)?;
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let one = first.endpoint.load_module(&cubin)?;
    let other = first.endpoint.load_module(&cubin)?;
    let there = second.endpoint.load_module(&cubin)?;
    ensure!(one.handle() != other.handle(), "one module for two");
    let (function, clone) = (one.function("fill")?, one.function("fill")?.clone());
    drop((one, other));
    ensure!(function.module().kernels() == there.kernels());
    drop((function, there));
    let kernels = Kernels::new(test_gpu)?;
    let buffer = kernels.buffer(4096)?;
    kernels.run(Kernel::Fill { seed: 3 }, &buffer, 0)?;
    drop(clone);
    kernels.check(&buffer, 3, &Passes::default())
}
