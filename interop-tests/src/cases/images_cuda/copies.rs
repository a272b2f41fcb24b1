//! Family F: copies between a level of a shared image and the host or the device's memory.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::cuda::{Array, ReadMode, TextureOptions};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::{BufferDesc, Error, ImageDesc};

use crate::cases::images_cuda::reads::filled;
use crate::cases::images_cuda::{SHAPES, check_array, name, needs};
use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, TestGpu};
use interop_gpu::image::{SIZES, Shape, parts};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in [Format::Rgba8Unorm, Format::R8Unorm, Format::Rgba16Float, Format::Rgba32Uint] {
        for shape in SHAPES {
            let desc = shape.desc(format, Tiling::Optimal, SIZES[0], USAGE);
            let name = name(format, Tiling::Optimal, &format!("{}_copied", shape.name()));
            let case = Case::new(name, move |test_gpu| every_level(test_gpu, &desc));
            cases.push(case.needs(&needs(&[desc])));
        }
    }
    let desc = Shape::MipChain.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[1], USAGE);
    let linear = Shape::D2.desc(Format::Rgba8Unorm, Tiling::Linear, SIZES[0], USAGE);
    let name = name(desc.format, Tiling::Optimal, "copies_refused");
    let case = Case::new(name, move |test_gpu| refused(test_gpu, &desc, &linear));
    cases.push(case.needs(&needs(&[desc, linear])));
    cases
}

/// The bytes of all parts of a level, in order.
pub(super) fn expected(desc: &ImageDesc, level: u32, seed: u32) -> Vec<u8> {
    let parts = parts(desc).into_iter().filter(|part| part.level == level);
    parts.flat_map(|part| part.filled(desc, seed)).collect()
}

/// Each level is copied to the host and back, to shared memory, and to memory of cudarc's own.
fn every_level(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let (_image, array) = filled(test_gpu, desc)?;
    let stream = &cuda.stream;
    for level in 0..desc.levels {
        let bytes = expected(desc, level, 2);
        ensure!(array.level_bytes(level)? == bytes.len(), "{level}: {}", bytes.len());
        ensure!(array.read(stream, level)? == bytes, "level {level} on the host");
        let shared = BufferDesc::storage(bytes.len() as u64);
        let mut shared = cuda.endpoint.create_buffer(&shared)?;
        array.copy_to(stream, level, &mut shared.as_view_mut::<u8>()?)?;
        ensure!(stream.clone_dtoh(&shared.as_view::<u8>()?)? == bytes, "level {level}, shared");
        let mut private = stream.alloc_zeros::<u8>(bytes.len())?;
        array.copy_to(stream, level, &mut private)?;
        ensure!(stream.clone_dtoh(&private)? == bytes, "level {level}, private");

        array.write(stream, level, &expected(desc, level, 3))?;
        ensure!(array.read(stream, level)? == expected(desc, level, 3), "level {level}, written");
        stream.memcpy_htod(&expected(desc, level, 4), &mut private)?;
        array.copy_from(stream, level, &private)?;
    }
    // The copies are done before a kernel reads, and no level has overwritten another.
    check_array((cuda, &array), 4)?;
    // The drop waits for the copy.
    let last = array.level_bytes(0)?;
    array.copy_from(stream, 0, &stream.alloc_zeros::<u8>(last)?)?;
    drop(array);
    Ok(cuda.cuda.context().check_err()?)
}

/// Wrong lengths, levels that don't exist, and a linear image.
fn refused(test_gpu: &TestGpu, desc: &ImageDesc, linear: &ImageDesc) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let stream = &cuda.stream;
    let (_image, array) = filled(test_gpu, desc)?;
    let (_other, rows): (_, Array) = filled(test_gpu, linear)?;
    let bytes = array.read(stream, 0)?;
    let mut short = stream.alloc_zeros::<u8>(bytes.len() - 1)?;
    let answers = [
        array.read(stream, desc.levels).map(drop),
        array.write(stream, 0, &bytes[1..]),
        array.write(stream, 1, &bytes),
        array.copy_to(stream, 0, &mut short),
        array.copy_from(stream, 0, &short),
        rows.read(stream, 0).map(drop),
        rows.level_bytes(0).map(drop),
    ];
    for answer in answers {
        match answer {
            Err(Error::Invalid(invalid)) => {
                ensure!(invalid.to_string().contains("level") || invalid.help.is_some());
            }
            other => bail!("{other:?}"),
        }
    }
    // Nothing was written.
    ensure!(array.read(stream, 0)? == bytes);
    array.level_texture(0, &TextureOptions::texels())?;
    let part = parts(desc)[0];
    part.check(desc, 2, &cuda.fetch_part(&array, &part, ReadMode::AsFormat)?).context("unchanged")
}
