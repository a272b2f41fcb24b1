//! Pictures to PNG files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::ImageEncoder as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

/// If the pictures go.
#[derive(Debug)]
pub(crate) enum Output {
    /// One file, for the last frame.
    File(PathBuf),
    /// A folder, with a file a frame.
    Folder(PathBuf),
}

impl Output {
    /// What the user named, or what suits so many frames. A folder is made.
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
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(output)
    }

    /// If frame `index` goes, if it is kept.
    pub(crate) fn path(&self, index: u32, is_last: bool) -> Option<PathBuf> {
        match self {
            Self::File(path) => is_last.then(|| path.clone()),
            Self::Folder(path) => Some(path.join(format!("frame_{index:04}.png"))),
        }
    }
}

/// Writes RGBA bytes, sRGB-encoded, the top row first, to `path`. What was there before stays there
/// until the new file is whole.
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
        // A full disk may show only now.
        file.sync_all()?;
        fs::rename(unfinished, path)
    })();
    written.with_context(|| {
        // Half a picture is of no use; the error that counts is the one above.
        let _ = fs::remove_file(unfinished);
        format!("cannot write {}", path.display())
    })
}
