//! Family F: the life of shared images in CUDA. Offsets, order of drops, several importers, and what is refused
//! and given back.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk::ImageLayout;
use gpu_interop::cuda::{ReadMode, TextureOptions};
use gpu_interop::desc::{Extent, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions, MemoryOptions};
use gpu_interop::{Api, Error, ImageDesc, ImagePayload, MemoryPayload, ResourceDesc, Uuid};

use crate::cases::images_cuda::reads::filled;
use crate::cases::images_cuda::{check_array, needs, pass};
use crate::cases::images_vulkan::USAGE;
use crate::cases::support::fds::{given_back, leave_nothing_open};
use crate::harness::{Case, TestGpu};
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
        case("repeated_imports_leave_nothing", repeated_imports),
        case("what_cuda_lacks_is_named", lacks),
        case("payloads_refused_and_given_back", refused_payloads),
        case("invalid_texture_objects_are_refused", refused_objects),
        case("misplaced_arrays_are_refused", refused_places),
        case("memory_that_cuda_made_refused", own_memory),
    ]
}

fn image() -> ImageDesc {
    Shape::MipChain.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE)
}

/// Three images at offsets of one allocation: CUDA finds each at its place.
fn several_in_one(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
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
    // Each still has what was written last: none overlaps another.
    for (image, array) in images.iter().zip(&arrays) {
        vulkan.check_image(image, 2, ImageLayout::TRANSFER_SRC_OPTIMAL)?;
        check_array((test_gpu.cuda()?, array), 2)?;
    }
    Ok(())
}

fn volume() -> ImageDesc {
    Shape::D3.desc(Format::R32Uint, Tiling::Optimal, SIZES[0], USAGE)
}

/// Two arrays of one image see each other's writes.
fn imported_twice(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(&image(), ImageOptions::default())?;
    let one = cuda.endpoint.import_image(image.export()?)?;
    let other = cuda.endpoint.import_image(image.export()?)?;
    pass((vulkan, &image), (cuda, &one))?;
    check_array((test_gpu.cuda()?, &other), 2)?;
    for part in parts(image.desc()) {
        cuda.store_part(&other, &part, 3)?;
    }
    check_array((test_gpu.cuda()?, &one), 3)
}

/// CUDA's array keeps the memory after Vulkan has freed it.
fn outlives_vulkan(test_gpu: &TestGpu) -> Result<()> {
    let vulkan = test_gpu.vulkan();
    let desc = image();
    let (image, array) = filled(test_gpu, &desc)?;
    drop(image);
    // This would get the memory if it were free.
    let next = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
    let layouts = (ImageLayout::UNDEFINED, ImageLayout::TRANSFER_SRC_OPTIMAL);
    vulkan.fill_image(&next, 9, layouts)?;
    check_array((test_gpu.cuda()?, &array), 2)
}

/// A texture object keeps its array and the memory; so does a surface object.
fn objects_outlive(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, SIZES[0], USAGE);
    let (image, array) = filled(test_gpu, &desc)?;
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

/// The drop of an object right after a launch that uses it waits for the kernel.
fn dropped_in_use(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let desc = Shape::D2.desc(Format::Rgba32Uint, Tiling::Optimal, (2048, 2048), USAGE);
    let (_image, array) = filled(test_gpu, &desc)?;
    let part = parts(&desc)[0];
    for seed in 3..20 {
        let mut surface = array.surface(0)?;
        cuda.store_through(&mut surface, &part, seed)?;
        drop(surface);
        // This would replace the dropped object.
        let other = array.surface(0)?;
        drop(other);
    }
    part.check(&desc, 19, &cuda.fetch_part(&array, &part, ReadMode::AsFormat)?)
}

/// Hundreds of imports with objects leave no descriptor open and no error recorded.
fn repeated_imports(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(&image(), ImageOptions::default())?;
    leave_nothing_open(200, || {
        let array = cuda.endpoint.import_image(image.export()?)?;
        let texture = array.texture(&TextureOptions::sampled())?;
        let surfaces = (0..array.desc().levels).map(|level| array.surface(level));
        let surfaces = surfaces.collect::<Result<Vec<_>, _>>()?;
        drop(array);
        drop(texture);
        drop(surfaces);
        Ok(cuda.cuda.context().check_err()?)
    })
}

/// Formats, a number of samples, a shape and a size that CUDA doesn't support: named in the capabilities, and
/// refused by the import with the same text.
fn lacks(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
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
    let blocks = Shape::D3.desc(Format::Bc7Unorm, Tiling::Optimal, SIZES[0], USAGE);
    bad.push((blocks, blocks.format.name()));
    ensure!(bad.len() > 5, "{bad:?}");
    for (desc, text) in bad {
        let capabilities = cuda.endpoint.capabilities(&ResourceDesc::Image(desc))?;
        let import = capabilities.memory(MemoryHandleType::OpaqueFd)?.import.clone();
        match import {
            Err(missing) => {
                ensure!(missing.api == Api::Cuda, "{missing}");
                ensure!(missing.to_string().contains(text), "'{text}' is not in: {missing}");
            }
            Ok(()) => bail!("{desc:?} is reported as supported"),
        }
        let buffer = test_gpu
            .vulkan()
            .endpoint
            .create_buffer(&gpu_interop::BufferDesc::storage(64 << 20), MemoryOptions::default())?;
        let payload = ImagePayload::new(buffer.memory().export()?, 0, desc)?;
        let error = given_back(payload, |payload| cuda.endpoint.import_image(payload))?;
        ensure!(matches!(&error, Error::Missing(m) if m.to_string().contains(text)), "{error:?}");
    }
    Ok(())
}

/// A valid image with wrong information: another GPU, a handle type that CUDA doesn't support, an allocation
/// that is too short.
fn refused_payloads(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
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
    // The image is still usable.
    cuda.endpoint.import_image(image.export()?)?;
    Ok(())
}

/// Levels that an image doesn't have, and options that CUDA would ignore.
fn refused_objects(test_gpu: &TestGpu) -> Result<()> {
    let (_image, array) = filled(test_gpu, &image())?;
    let levels = array.desc().levels;
    let past = array.level_texture(levels, &TextureOptions::texels()).map(drop);
    let far = array.surface(u32::MAX).map(drop);
    let handle = array.level(levels).map(drop);
    // A texture of all levels requires normalized coordinates.
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
    // The array is still usable.
    check_array((test_gpu.cuda()?, &array), 2)
}

/// An image that reaches past the end of its memory.
fn refused_places(test_gpu: &TestGpu) -> Result<()> {
    let (_image, array) = filled(test_gpu, &image())?;
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
    check_array((test_gpu.cuda()?, &array), 2)
}

/// No image can be placed in memory that CUDA allocated.
fn own_memory(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let made = cuda.endpoint.create_buffer(&gpu_interop::BufferDesc::storage(1 << 20))?;
    let refused = made.memory().array(0, &image()).map(drop);
    let missing = match refused {
        Err(Error::Missing(missing)) => missing,
        other => bail!("{other:?}"),
    };
    ensure!(missing.help.as_deref().context("no help")?.contains("Vulkan"), "{missing}");
    Ok(())
}
