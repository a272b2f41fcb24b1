//! Group F: the life of shared images in CUDA. Offsets, order of dropping, several importers, and what
//! is refused and given back.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk::ImageLayout;
use gpu_interop::cuda::{Array, ReadMode, TextureOptions};
use gpu_interop::desc::{Extent, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions, MemoryOptions};
use gpu_interop::{Api, Error, ImageDesc, ImagePayload, MemoryPayload, ResourceDesc, Uuid};

use crate::cases::images_cuda::reads::filled;
use crate::cases::images_cuda::{needs, pass};
use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, TestGpu, open_descriptors};
use interop_gpu::image::{SIZES, Shape, parts};

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→cuda/opaque_fd/image/{what}/54"), run).needs(&needs(&[image()]))
    };
    vec![
        case("several_in_one_allocation", several_in_one),
        case("imported_twice", imported_twice),
        case("array_outlives_vulkan's_image", outlives_vulkan),
        case("objects_outlive_their_array", objects_outlive),
        case("dropped_while_a_kernel_reads", dropped_in_use),
        case("again_and_again_leaves_nothing", again_and_again),
        case("what_cuda_lacks_is_named", lacks),
        case("payloads_refused_and_given_back", refused_payloads),
        case("objects_refused", refused_objects),
        case("places_refused", refused_places),
        case("memory_that_cuda_made_refused", own_memory),
    ]
}

fn image() -> ImageDesc {
    Shape::MipChain.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE)
}

/// Three images at offsets of one allocation: each is where CUDA finds it.
fn several_in_one(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let descs =
        [image(), volume(), Shape::D2.desc(Format::Rgba16Float, Tiling::Optimal, SIZES[1], USAGE)];
    let options =
        MemoryOptions { dedicated: DedicatedAllocation::Avoid, ..MemoryOptions::default() };
    let images = vulkan.endpoint.create_images(&descs, options)?;
    let memory = cuda.endpoint.import_memory(images[0].memory().export()?)?;
    let arrays = images.iter().map(|image| memory.array(image.offset(), image.desc()));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    drop(memory);
    ensure!(arrays[2].offset() > arrays[1].offset() && arrays[1].offset() > 0, "{arrays:?}");
    for (image, array) in images.iter().zip(&arrays) {
        pass((vulkan, image), (cuda, array))?;
    }
    // What was written last to each is still there: none lies where another does.
    for (image, array) in images.iter().zip(&arrays) {
        vulkan.check_image(image, 2, ImageLayout::TRANSFER_SRC_OPTIMAL)?;
        check(machine, array, 2)?;
    }
    Ok(())
}

fn volume() -> ImageDesc {
    Shape::D3.desc(Format::R32Uint, Tiling::Optimal, SIZES[0], USAGE)
}

/// Checks that every part of `array` holds what `seed` fills it with.
fn check(machine: &TestGpu, array: &Array, seed: u32) -> Result<()> {
    let cuda = machine.cuda()?;
    for part in parts(array.desc()) {
        let found = cuda.fetch_part(array, &part, ReadMode::AsFormat)?;
        part.check(array.desc(), seed, &found)?;
    }
    Ok(())
}

/// Two arrays of one image see each other's writes.
fn imported_twice(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let image = vulkan.endpoint.create_image(&image(), ImageOptions::default())?;
    let one = cuda.endpoint.import_image(image.export()?)?;
    let other = cuda.endpoint.import_image(image.export()?)?;
    pass((vulkan, &image), (cuda, &one))?;
    check(machine, &other, 2)?;
    for part in parts(image.desc()) {
        cuda.store_part(&other, &part, 3)?;
    }
    check(machine, &one, 3)
}

/// CUDA's array keeps the memory when Vulkan has let go of it.
fn outlives_vulkan(machine: &TestGpu) -> Result<()> {
    let vulkan = machine.vulkan();
    let desc = image();
    let (image, array) = filled(machine, &desc)?;
    drop(image);
    // Whatever takes the place, should it have been given away.
    let next = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
    let layouts = (ImageLayout::UNDEFINED, ImageLayout::TRANSFER_SRC_OPTIMAL);
    vulkan.fill_image(&next, 9, layouts)?;
    check(machine, &array, 2)
}

/// A texture object alone keeps its array and the memory, a surface object too.
fn objects_outlive(machine: &TestGpu) -> Result<()> {
    let cuda = machine.cuda()?;
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, SIZES[0], USAGE);
    let (image, array) = filled(machine, &desc)?;
    let texture = array.level_texture(0, &TextureOptions::texels())?;
    let mut surface = array.surface(0)?;
    ensure!(texture.array().desc() == &desc && surface.array().desc() == &desc);
    drop((image, array));
    let part = parts(&desc)[0];
    cuda.store_through(&mut surface, &part, 5)?;
    drop(surface);
    let found = cuda.fetch_through(&texture, &part, "2d", ReadMode::AsFormat)?;
    let bytes: Vec<u8> = found.iter().flat_map(|texel| texel[0].to_le_bytes()).collect();
    part.check(&desc, 5, &bytes)
}

/// An object that is dropped right after the launch that took it waits for the kernel.
fn dropped_in_use(machine: &TestGpu) -> Result<()> {
    let cuda = machine.cuda()?;
    let desc = Shape::D2.desc(Format::Rgba32Uint, Tiling::Optimal, (2048, 2048), USAGE);
    let (_image, array) = filled(machine, &desc)?;
    let part = parts(&desc)[0];
    for seed in 3..20 {
        let mut surface = array.surface(0)?;
        cuda.store_through(&mut surface, &part, seed)?;
        drop(surface);
        // Whatever takes the dropped object's place.
        let other = array.surface(0)?;
        drop(other);
    }
    part.check(&desc, 19, &cuda.fetch_part(&array, &part, ReadMode::AsFormat)?)
}

/// Hundreds of imports, with objects, leave no descriptor open and no error recorded.
fn again_and_again(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let image = vulkan.endpoint.create_image(&image(), ImageOptions::default())?;
    let once = || -> Result<()> {
        let array = cuda.endpoint.import_image(image.export()?)?;
        let texture = array.texture(&TextureOptions::sampled())?;
        let surfaces = (0..array.desc().levels).map(|level| array.surface(level));
        let surfaces = surfaces.collect::<Result<Vec<_>, _>>()?;
        drop(array);
        drop(texture);
        drop(surfaces);
        Ok(cuda.cuda.context().check_err()?)
    };
    once()?;
    let before = open_descriptors();
    for _ in 0..200 {
        once()?;
    }
    before.require_same(&open_descriptors())
}

/// A format, a number of samples, a shape and a size that CUDA hasn't: named in the capabilities, with what
/// would help, and refused alike by the import.
fn lacks(machine: &TestGpu) -> Result<()> {
    let cuda = machine.cuda()?;
    let plain = Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE);
    let wide = Extent { width: 1 << 20, height: 1, depth: 1 };
    let mut bad = vec![
        (Shape::Multisample.desc(plain.format, Tiling::Optimal, SIZES[0], USAGE), "samples"),
        (ImageDesc { extent: wide, ..plain }, "1048576"),
        (Shape::MipArray.desc(plain.format, Tiling::Optimal, SIZES[0], USAGE), "layers and levels"),
    ];
    for &format in Format::ALL {
        if format.cuda().is_err() {
            bad.push((ImageDesc { format, ..plain }, format.name()));
        }
    }
    ensure!(bad.len() > 5, "{bad:?}");
    for (desc, word) in bad {
        let told = cuda.endpoint.capabilities(&ResourceDesc::Image(desc))?;
        let import = told.memory(MemoryHandleType::OpaqueFd)?.import.clone();
        match import {
            Err(missing) => {
                ensure!(missing.api == Api::Cuda, "{missing}");
                ensure!(missing.to_string().contains(word), "no word of {word}: {missing}");
            }
            Ok(()) => bail!("{desc:?} is said to be supported"),
        }
        let buffer = machine
            .vulkan()
            .endpoint
            .create_buffer(&gpu_interop::BufferDesc::storage(64 << 20), MemoryOptions::default())?;
        let payload = ImagePayload::new(buffer.memory().export()?, 0, desc)?;
        let error = given_back(payload, |payload| cuda.endpoint.import_image(payload))?;
        ensure!(matches!(&error, Error::Missing(m) if m.to_string().contains(word)), "{error:?}");
    }
    Ok(())
}

/// Wrong words about an image that is right: another GPU, a handle type that CUDA hasn't, an
/// allocation that is too short for it.
fn refused_payloads(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let image = vulkan.endpoint.create_image(&image(), ImageOptions::default())?;
    let with = |change: fn(&mut MemoryInfo)| -> Result<Error> {
        let (memory, offset, desc) = image.export()?.into_parts();
        let (fd, mut info) = memory.into_parts();
        change(&mut info);
        let payload = ImagePayload::new(MemoryPayload::new(fd, info)?, offset, desc)?;
        given_back(payload, |payload| cuda.endpoint.import_image(payload))
    };
    let foreign = with(|info| info.identity.device = Uuid::from_bytes([0x5a; 16]))?;
    ensure!(matches!(foreign, Error::Mismatch(_)), "{foreign:?}");
    let short = with(|info| info.allocation_size = 4096)?;
    ensure!(matches!(&short, Error::Invalid(i) if i.help.is_some()), "{short:?}");
    let dma_buf = with(|info| info.handle_type = MemoryHandleType::DmaBuf)?;
    ensure!(matches!(dma_buf, Error::Missing(_) | Error::Invalid(_)), "{dma_buf:?}");
    // None of this has hurt the image.
    cuda.endpoint.import_image(image.export()?)?;
    Ok(())
}

/// What was refused, after a look that the payload came back with its descriptor, still open.
fn given_back<T: std::fmt::Debug>(
    payload: ImagePayload,
    import: impl FnOnce(ImagePayload) -> gpu_interop::ImportResult<T, ImagePayload>,
) -> Result<Error> {
    let before = open_descriptors();
    let (number, linear) = (payload.memory().as_fd().as_raw_fd(), payload.linear().copied());
    let Err(refused) = import(payload).map(|imported| format!("{imported:?}")) else {
        bail!("it was imported");
    };
    let (payload, error) = refused.into_parts();
    ensure!(payload.memory().as_fd().as_raw_fd() == number, "another descriptor came back");
    ensure!(payload.linear().copied() == linear, "the layout got lost");
    before.require_same(&open_descriptors())?;
    drop(payload);
    ensure!(open_descriptors().count() + 1 == before.count(), "it was not closed");
    Ok(error)
}

/// Levels that an image hasn't, and options that CUDA would not do as they say.
fn refused_objects(machine: &TestGpu) -> Result<()> {
    let (_image, array) = filled(machine, &image())?;
    let levels = array.desc().levels;
    let past = array.level_texture(levels, &TextureOptions::texels()).map(drop);
    let far = array.surface(u32::MAX).map(drop);
    let handle = array.level(levels).map(drop);
    // All levels at once have normalized coordinates.
    let texels = array.texture(&TextureOptions::texels()).map(drop);
    let filtered = TextureOptions { read: ReadMode::Stored, ..TextureOptions::sampled() };
    let integers = array.texture(&filtered).map(drop);
    for refused in [past, far, handle, texels, integers] {
        match refused {
            Err(Error::Invalid(invalid)) => {
                ensure!(invalid.to_string().contains("level") || invalid.help.is_some());
            }
            other => bail!("{other:?}"),
        }
    }
    ensure!(array.linear().is_none() && array.handle().is_some());
    let bytes = array.buffer().map(drop);
    ensure!(matches!(&bytes, Err(Error::Invalid(i)) if i.help.is_some()), "{bytes:?}");
    // None of this has hurt the array.
    check(machine, &array, 2)
}

/// An image that reaches past the end of its memory.
fn refused_places(machine: &TestGpu) -> Result<()> {
    let (_image, array) = filled(machine, &image())?;
    let (memory, desc) = (array.memory(), array.desc());
    let end = memory.info().allocation_size;
    for offset in [end, end - 1, end / 2 + 4096, u64::MAX] {
        match memory.array(offset, desc) {
            Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
            other => bail!("at {offset} of {end}: {other:?}"),
        }
    }
    let nothing = ImageDesc { layers: 0, ..*desc };
    let refused = memory.array(0, &nothing);
    ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    check(machine, &array, 2)
}

/// Memory that CUDA has made to be exported holds no images.
fn own_memory(machine: &TestGpu) -> Result<()> {
    let cuda = machine.cuda()?;
    let made = cuda.endpoint.create_buffer(&gpu_interop::BufferDesc::storage(1 << 20))?;
    let refused = made.memory().array(0, &image()).map(drop);
    let missing = match refused {
        Err(Error::Missing(missing)) => missing,
        other => bail!("{other:?}"),
    };
    ensure!(missing.help.as_deref().context("no help")?.contains("Vulkan"), "{missing}");
    Ok(())
}
