//! A picture from a file, as light.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use interop_gpu::post_process::Light;

/// Reads the picture at `path`, and scales it to `size` if given.
///
/// Float formats (EXR, HDR) hold linear light; all others are decoded from sRGB.
pub(crate) fn read(path: &Path, size: Option<(u32, u32)>) -> Result<Light> {
    let name = || path.display().to_string();
    let file = ImageReader::open(path).with_context(|| format!("cannot open {}", name()))?;
    let mut file = file.with_guessed_format().with_context(|| format!("cannot read {}", name()))?;
    ensure!(
        file.format().is_some(),
        "{} is not a picture in a known format (PNG, JPEG, HDR, or, built with `--features formats`, EXR, TIFF, \
         WebP and others)",
        name()
    );
    // The user's own file is trusted: memory is the only limit.
    file.no_limits();
    // Without a chain of causes: the message already contains them.
    let picture = file.decode().map_err(|error| anyhow!("cannot decode {}: {error}", name()))?;
    let is_light = matches!(picture, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_));
    let mut picture = picture.into_rgba32f();
    if !is_light {
        // Decoded before scaling, as scaling must average linear light.
        for pixel in picture.pixels_mut() {
            let [red, green, blue, alpha] = pixel.0;
            pixel.0 = [decoded(red), decoded(green), decoded(blue), alpha];
        }
    }
    if let Some((width, height)) = size {
        picture = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    }
    let (width, height) = picture.dimensions();
    ensure!(width > 0 && height > 0, "{} has no pixels", name());
    Ok(Light::by(width, height, |x, y| picture.get_pixel(x, y).0))
}

/// Decodes an sRGB number from 0 to 1 to linear light.
fn decoded(encoded: f32) -> f32 {
    if encoded <= 0.04045 { encoded / 12.92 } else { ((encoded + 0.055) / 1.055).powf(2.4) }
}
