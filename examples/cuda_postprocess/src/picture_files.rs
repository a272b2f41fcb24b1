//! Pictures from files, as light, and to PNG files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::FilterType;
use image::{DynamicImage, ImageEncoder as _, ImageReader};
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

/// The destination of the pictures.
#[derive(Debug)]
pub(crate) enum Output {
    /// One file, for the last frame.
    File(PathBuf),
    /// A folder with one file per frame.
    Folder(PathBuf),
}

impl Output {
    /// The destination that the user named, or the default for this number of frames. Creates a folder.
    pub(crate) fn new(named: Option<&Path>, frames: u32) -> Result<Self> {
        let output = match named {
            None if frames == 1 => Self::File("cuda_postprocess.png".into()),
            None => Self::Folder("cuda_postprocess".into()),
            Some(path) if path.extension().is_some() && !path.is_dir() => Self::File(path.into()),
            Some(path) => Self::Folder(path.into()),
        };
        let folder = match &output {
            Self::File(path) => path.parent().filter(|folder| *folder != Path::new("")),
            Self::Folder(path) => Some(path.as_path()),
        };
        if let Some(folder) = folder {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        }
        Ok(output)
    }

    /// The path of frame `index`, if that frame is written.
    pub(crate) fn path(&self, index: u32, is_last: bool) -> Option<PathBuf> {
        match self {
            Self::File(path) => is_last.then(|| path.clone()),
            Self::Folder(path) => Some(path.join(format!("frame_{index:04}.png"))),
        }
    }
}

/// Writes RGBA bytes, sRGB-encoded, the top row first, to `path`. An existing file is replaced only when the
/// new one is complete.
pub(crate) fn write(path: &Path, (width, height): (u32, u32), bytes: &[u8]) -> Result<()> {
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, PngFilter::Adaptive)
        .write_image(bytes, width, height, image::ExtendedColorType::Rgba8)
        .context("cannot encode the picture")?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = Path::new(&unfinished);
    let written = (|| {
        let mut file = File::create(unfinished)?;
        file.write_all(&png)?;
        // A full disk may be reported only here.
        file.sync_all()?;
        fs::rename(unfinished, path)
    })();
    written.with_context(|| {
        // Removes the incomplete file; the error above is the one to report.
        let _ = fs::remove_file(unfinished);
        format!("cannot write {}", path.display())
    })
}
