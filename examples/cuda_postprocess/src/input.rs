//! A picture from a file, as light.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use interop_gpu::post_process::Light;

/// Reads the picture at `path`; at another size where `size` says so.
///
/// Formats of floats (EXR, HDR) hold light as it is; all others are decoded from sRGB.
pub(crate) fn read(path: &Path, size: Option<(u32, u32)>) -> Result<Light> {
    let name = || path.display().to_string();
    let file = ImageReader::open(path).with_context(|| format!("cannot open {}", name()))?;
    let mut file = file.with_guessed_format().with_context(|| format!("cannot read {}", name()))?;
    ensure!(
        file.format().is_some(),
        "{} is no picture in a format that is known (PNG, JPEG, EXR, HDR, TIFF, WebP and others)",
        name()
    );
    // The file is the user's own: memory is the only limit.
    file.no_limits();
    // Alone: the message tells its cause already.
    let picture = file.decode().map_err(|error| anyhow!("cannot decode {}: {error}", name()))?;
    let is_light = matches!(picture, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_));
    let mut picture = picture.into_rgba32f();
    if !is_light {
        // Before it is made smaller: light adds up, its encoding doesn't.
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

/// Linear light of a number from 0 to 1 that is sRGB-encoded.
fn decoded(encoded: f32) -> f32 {
    if encoded <= 0.04045 { encoded / 12.92 } else { ((encoded + 0.055) / 1.055).powf(2.4) }
}
