//! CUDA kernels in a Vulkan queue: what can't be loaded, what is missing, and who outlives whom.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gpu_interop::nvx::Cubin;
use gpu_interop::vulkan::{DeviceInfo, Endpoint, Features};
use gpu_interop::{Api, Error};

use crate::cases::nvx::Table;
use crate::cases::support::fds::leaves_nothing_open;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::Turns;
use interop_gpu::vulkan::VulkanContext;

const FILL: &str = include_str!("../../../../shaders/fill.ptx");

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan/in_queue/module/{name}"), run)
    };
    let (cuda, in_queue) = ([Need::Cuda], [Need::SameQueue]);
    vec![
        case("a_missing_extension_is_told/4a", missing_extension),
        case("a_missing_feature_is_told/4b", missing_feature),
        case("what_is_no_cubin_is_refused/21d", no_cubin),
        case("a_linked_cubin_tells_its_kernels/56e", linked).needs(&cuda),
        case("a_cut_off_cubin_is_refused/21e", cut_off).needs(&cuda),
        case("bad_ptx_is_refused_with_the_linkers_words/21f", bad_ptx).needs(&cuda),
        case("a_missing_function_is_told_with_those_there/21g", missing_function).needs(&in_queue),
        case("a_function_outlives_its_module_and_cubin/59a", outlives).needs(&in_queue),
        case("goes_before_and_after_its_device/59b", any_order).needs(&in_queue),
        case("leaves_no_descriptor/16e", descriptors).needs(&in_queue),
        case("several_modules_of_one_cubin/59c", several).needs(&in_queue),
    ]
}

/// An endpoint over the machine's device that was told less than is enabled.
fn poorer(machine: &TestGpu, extension: bool, features: Features) -> Result<Endpoint> {
    let vulkan = &machine.vulkan().vulkan;
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
    // SAFETY: the handles belong together, all that is listed was enabled, and the owner keeps the
    // device.
    Ok(unsafe { Endpoint::new(&info, Some(Arc::new(vulkan.clone()))) }?)
}

/// The endpoint can't, and says which of Vulkan's parts is missing and what would help.
fn lacks(endpoint: &Endpoint, what: &str) -> Result<()> {
    let missing =
        endpoint.supports_cuda_launch().err().with_context(|| format!("it needs no {what}"))?;
    ensure!(missing.api == Api::Vulkan && missing.what.contains(what), "{missing}");
    ensure!(missing.help.is_some() && missing.needed_for.contains("CUDA"), "{missing}");
    Ok(())
}

fn missing_extension(machine: &TestGpu) -> Result<()> {
    let features = machine.vulkan().endpoint.features();
    lacks(&poorer(machine, false, features)?, "VK_NVX_binary_import")?;
    // What was opened headless is able to where the driver is.
    let enabled = machine.vulkan().vulkan.enabled_extensions();
    let has = enabled.contains(&gpu_interop::ash::nvx::binary_import::NAME);
    match machine.vulkan().endpoint.supports_cuda_launch() {
        Ok(()) => ensure!(has),
        Err(_) if has => ensure!(!features.buffer_device_address),
        Err(_) => lacks(&machine.vulkan().endpoint, "VK_NVX_binary_import")?,
    }
    Ok(())
}

fn missing_feature(machine: &TestGpu) -> Result<()> {
    let endpoint = poorer(machine, true, Features::default())?;
    let enabled = machine.vulkan().vulkan.enabled_extensions();
    let what = match enabled.contains(&gpu_interop::ash::nvx::binary_import::NAME) {
        true => "bufferDeviceAddress",
        false => "VK_NVX_binary_import",
    };
    lacks(&endpoint, what)?;
    let Ok(cuda) = machine.cuda() else { return Ok(()) };
    let error = endpoint.load_module(&cuda.endpoint.link(FILL)?).err();
    ensure!(matches!(&error, Some(Error::Missing(m)) if m.what.contains(what)), "{error:?}");
    Ok(())
}

/// PTX, rubbish and nothing are told apart, and none of them gets as far as a driver.
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
    for (bytes, says) in cases {
        let error = Cubin::new(bytes).err().with_context(|| format!("{says}: taken"))?;
        ensure!(matches!(&error, Error::Invalid(invalid) if invalid.help.is_some()), "{error:?}");
        ensure!(error.to_string().contains(says), "{error}");
    }
    Ok(())
}

/// What the driver's linker makes is understood: names, parameters, architecture.
fn linked(machine: &TestGpu) -> Result<()> {
    let cubin = machine.cuda()?.endpoint.link(FILL)?;
    let kernel = cubin.kernel("fill")?;
    ensure!(cubin.kernels().len() == 1, "{cubin:?}");
    let sizes = kernel.parameters.as_ref().map(|all| all.iter().map(|one| one.size).collect());
    ensure!(sizes == Some(vec![8, 4, 4, 4]), "{cubin:?}");
    ensure!(cubin.architecture().is_some_and(|sm| (50..200).contains(&sm)), "{cubin:?}");
    let again = Cubin::new(cubin.bytes())?;
    ensure!(again == cubin);
    Ok(())
}

/// A file that was not copied whole is refused, wherever it ends.
fn cut_off(machine: &TestGpu) -> Result<()> {
    let cubin = machine.cuda()?.endpoint.link(FILL)?;
    let bytes = cubin.bytes();
    for end in 0..bytes.len() {
        let error = Cubin::new(&bytes[..end]).err();
        ensure!(matches!(error, Some(Error::Invalid(_))), "{end} bytes: {error:?}");
    }
    Ok(())
}

fn bad_ptx(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.cuda()?.endpoint;
    let nonsense = FILL.replace("ret;", "nonsense;");
    let future = FILL.replace(".version 8.0", ".version 99.0");
    let halved = &FILL[..FILL.len() / 2];
    for (ptx, says) in [
        (nonsense.as_str(), "nonsense"),
        (&future, "cuLink"),
        (halved, "cuLink"),
        ("", ".version"),
        ("\0.version 8.0", "zero byte"),
    ] {
        let error = endpoint.link(ptx).err().with_context(|| format!("{says}: linked"))?;
        let typed = matches!(error, Error::Invalid(_) | Error::Missing(_));
        ensure!(typed && error.to_string().contains(says), "{says}: {error:?}");
    }
    // The next one is none the worse.
    endpoint.link(FILL)?.kernel("fill")?;
    Ok(())
}

fn missing_function(machine: &TestGpu) -> Result<()> {
    let module = machine.vulkan().endpoint.load_module(&machine.cuda()?.endpoint.link(FILL)?)?;
    for name in ["fil", "Fill", "", "fill\0"] {
        let error = module.function(name).err().with_context(|| format!("{name:?} was found"))?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains("fill"), "{error}");
    }
    ensure!(module.function("fill")?.name() == "fill");
    Ok(())
}

/// The kernels run when the cubins and modules they are from were dropped, in a device of their own.
fn outlives(machine: &TestGpu) -> Result<()> {
    let gpu = VulkanContext::new(machine.vulkan().vulkan.second_device()?)?;
    let table = Table::of(&gpu, machine)?;
    let buffer = table.buffer(4096)?;
    table.run(Kernel::Fill { seed: 2 }, &buffer, 0)?;
    table.check(&buffer, 2, &Turns::default())
}

/// Whatever goes first, the validation layer finds nothing left when the device goes.
fn any_order(machine: &TestGpu) -> Result<()> {
    let cubin = machine.cuda()?.endpoint.link(FILL)?;
    for order in 0..4 {
        let vulkan = machine.vulkan().vulkan.second_device()?;
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

/// Linking, loading and running, again and again: as many descriptors as before.
fn descriptors(machine: &TestGpu) -> Result<()> {
    leaves_nothing_open(|| {
        for seed in 0..20 {
            let table = Table::new(machine)?;
            let buffer = table.buffer(4096)?;
            table.run(Kernel::Fill { seed }, &buffer, 0)?;
            table.check(&buffer, seed, &Turns::default())?;
        }
        Ok(())
    })
}

/// One cubin in two devices, twice in one of them; each module goes on its own.
fn several(machine: &TestGpu) -> Result<()> {
    let cubin = machine.cuda()?.endpoint.link(FILL)?;
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let one = first.endpoint.load_module(&cubin)?;
    let other = first.endpoint.load_module(&cubin)?;
    let there = second.endpoint.load_module(&cubin)?;
    ensure!(one.handle() != other.handle(), "one module for two");
    let (function, clone) = (one.function("fill")?, one.function("fill")?.clone());
    drop((one, other));
    ensure!(function.module().kernels() == there.kernels());
    drop((function, there));
    let table = Table::new(machine)?;
    let buffer = table.buffer(4096)?;
    table.run(Kernel::Fill { seed: 3 }, &buffer, 0)?;
    drop(clone);
    table.check(&buffer, 3, &Turns::default())
}
