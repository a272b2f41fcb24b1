//! Family F: linear images in CUDA, as pitched memory.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::cuda::{Array, ReadMode, TextureOptions};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::payload::LinearLayout;
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions};
use gpu_interop::{Api, Error, ImageDesc, ImagePayload};

use crate::cases::images_cuda::reads::filled;
use crate::cases::images_cuda::{InCuda, formats, name, needs, pass_by};
use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, TestGpu};
use interop_gpu::image::{Part, SIZES, Shape, parts};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats() {
        for shape in [Shape::D1, Shape::D2] {
            let descs = SIZES.map(|size| shape.desc(format, Tiling::Linear, size, USAGE));
            let name = name(format, Tiling::Linear, shape.name());
            let case = Case::new(name, move |test_gpu| rows(test_gpu, &descs));
            cases.push(case.needs(&needs(&descs)));
        }
    }
    let desc = linear();
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(name(desc.format, Tiling::Linear, what), run).needs(&needs(&[desc]))
    };
    cases.push(case("without_its_layout_refused", without_layout));
    cases.push(case("what_linear_images_lack_is_refused", not_an_array));
    cases
}

fn linear() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Linear, SIZES[0], USAGE)
}

/// Read through a texture object and by address, written by address, in dedicated memory and not.
fn rows(test_gpu: &TestGpu, descs: &[ImageDesc; 2]) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    for desc in descs {
        for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
            let options = ImageOptions { dedicated, ..ImageOptions::default() };
            let image = vulkan.endpoint.create_image(desc, options)?;
            let payload = image.export()?;
            let layout = *payload.linear().context("the payload has no linear layout")?;
            let array = cuda.endpoint.import_image(payload)?;
            ensure!(array.linear() == Some(&layout) && array.handle().is_none(), "{array:?}");
            let store =
                |(cuda, array): InCuda<'_>, part: &Part, seed| cuda.store_rows(array, part, seed);
            pass_by((vulkan, &image), (cuda, &array), check_rows, store)
                .with_context(|| format!("{:?}, {dedicated:?}", desc.extent))?;
        }
    }
    Ok(())
}

fn check_rows((cuda, array): InCuda<'_>, part: &Part, seed: u32) -> Result<()> {
    let desc = array.desc();
    let by_address = cuda.fetch_rows(array, part)?;
    part.check(desc, seed, &by_address).context("by address")?;
    let read = ReadMode::AsFormat;
    // For a texture object, rows are two-dimensional, even a single one.
    let texture = array.level_texture(0, &TextureOptions::texels())?;
    let texels = cuda.fetch_through(&texture, part, "2d", read)?;
    let by_texture = interop_gpu::cuda::texels::pack(desc.format, read, &texels)?;
    part.check(desc, seed, &by_texture).context("by texture")
}

/// A payload without its linear layout is refused, and comes back.
fn without_layout(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(&linear(), ImageOptions::default())?;
    let payload = image.export()?;
    let layout = *payload.linear().context("the payload has no linear layout")?;
    let (memory, offset, desc) = payload.into_parts();
    let refused = cuda.endpoint.import_image(ImagePayload::new(memory, offset, desc)?);
    let (payload, error) = refused.err().context("it was imported")?.into_parts();
    match error {
        Error::Invalid(invalid) => {
            ensure!(invalid.parameter.contains("linear") && invalid.help.is_some(), "{invalid}");
        }
        other => bail!("{other:?}"),
    }
    // With the layout, it is accepted.
    cuda.endpoint.import_image(payload.with_linear(layout)?)?;
    Ok(())
}

/// A linear image has no levels to choose from, no surfaces, and no rows past the end of its memory.
fn not_an_array(test_gpu: &TestGpu) -> Result<()> {
    let desc = linear();
    let (_image, array) = filled(test_gpu, &desc)?;
    let whole = array.texture(&TextureOptions::sampled()).map(drop);
    let second = array.level_texture(1, &TextureOptions::texels()).map(drop);
    let handle = array.level(0).map(drop);
    let as_optimal = array.memory().array(array.offset(), &desc).map(drop);
    let layout = *array.linear().context("linear")?;
    let beyond = LinearLayout { row_pitch: 1 << 40, ..layout };
    let beyond = array.memory().linear_array(array.offset(), &desc, beyond).map(drop);
    for refused in [whole, second, handle, as_optimal, beyond] {
        ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let surface = array.surface(0).map(drop);
    ensure!(matches!(&surface, Err(Error::Missing(m)) if m.api == Api::Cuda), "{surface:?}");
    same_bytes(test_gpu, &array)
}

/// Two views of the same rows.
fn same_bytes(test_gpu: &TestGpu, array: &Array) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let layout = *array.linear().context("linear")?;
    let again = array.memory().linear_array(array.offset(), array.desc(), layout)?;
    let part = parts(array.desc())[0];
    cuda.store_rows(array, &part, 3)?;
    part.check(array.desc(), 3, &cuda.fetch_rows(&again, &part)?)
}
