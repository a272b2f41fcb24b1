//! Writes pictures as PNG files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::ImageEncoder as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

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
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
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
