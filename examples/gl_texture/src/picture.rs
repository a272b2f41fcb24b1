//! Pictures: their size limits, and writing them as PNG.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpu_interop::error::Invalid;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::Vulkan;

/// Parses a size like `1920x1080`.
pub(crate) fn parse_size(text: &str) -> Result<(u32, u32)> {
    let parts = text.split_once(['x', 'X', '×']);
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let size = parts.and_then(|(width, height)| Some((number(width)?, number(height)?)));
    let Some((width, height)) = size else {
        anyhow::bail!("'{text}' is not a size; write one like 1920x1080");
    };
    ensure!(width > 0 && height > 0, "a picture must have at least 1x1 pixels");
    Ok((width, height))
}

/// Checks that both APIs can draw pictures of this size.
pub(crate) fn check_limits(vulkan: &Vulkan, gl: &glow::Context, size: (u32, u32)) -> Result<()> {
    // SAFETY: the physical device is the instance's.
    let limits = unsafe {
        vulkan.instance().get_physical_device_properties(vulkan.physical_device()).limits
    };
    let one = |name: u32| {
        // SAFETY: the context is current, and the names are of single integers.
        let limit = unsafe { gl.get_parameter_i32(name) };
        u32::try_from(limit).unwrap_or(0)
    };
    let mut viewport = [0; 2];
    // SAFETY: the context is current, and the name is of two integers.
    unsafe { gl.get_parameter_i32_slice(glow::MAX_VIEWPORT_DIMS, &mut viewport) };
    let viewport = viewport.map(|limit| u32::try_from(limit).unwrap_or(0));
    let square = |side: u32| (side, side);
    for (limit, name) in [
        (square(limits.max_image_dimension2_d), "Vulkan's maxImageDimension2D"),
        (
            (limits.max_framebuffer_width, limits.max_framebuffer_height),
            "Vulkan's maxFramebufferWidth and maxFramebufferHeight",
        ),
        (
            (limits.max_viewport_dimensions[0], limits.max_viewport_dimensions[1]),
            "Vulkan's maxViewportDimensions",
        ),
        (square(one(glow::MAX_TEXTURE_SIZE)), "OpenGL's GL_MAX_TEXTURE_SIZE"),
        (square(one(glow::MAX_RENDERBUFFER_SIZE)), "OpenGL's GL_MAX_RENDERBUFFER_SIZE"),
        ((viewport[0], viewport[1]), "OpenGL's GL_MAX_VIEWPORT_DIMS"),
    ] {
        if size.0 > limit.0 || size.1 > limit.1 {
            let problem = format!("{}x{} exceeds {name} on this device", size.0, size.1);
            let help = format!("the limit is {}x{}", limit.0, limit.1);
            return Err(Invalid::new("--size", problem).help(help).into());
        }
    }
    Ok(())
}

/// Checks that the picture is not blank.
pub(crate) fn check_content(pixels: &[u8]) -> Result<()> {
    let bright = pixels.chunks(4).map(|pixel| pixel[0].max(pixel[1]).max(pixel[2]));
    let (darkest, brightest) =
        bright.fold((u8::MAX, 0), |(low, high), value| (low.min(value), high.max(value)));
    let is = |what: &str| format!("the picture is {what}: nothing was drawn, or it did not arrive");
    ensure!(brightest > 0, is("black"));
    ensure!(brightest - darkest > 16, is("of one colour"));
    ensure!(pixels.chunks(4).all(|pixel| pixel[3] == 255), is("transparent"));
    Ok(())
}

/// Creates the folder if it does not exist, and checks that files can be created in it.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .map(drop)
        .with_context(|| {
            format!("can't write to the folder {}; name another with --output", folder.display())
        })
}

/// Writes a PNG file, or removes it if that fails.
pub(crate) fn write(path: &Path, size: (u32, u32), pixels: &[u8]) -> Result<()> {
    let colours: Vec<u8> =
        pixels.chunks(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&colours)?;
    std::fs::write(path, &png).map_err(|error| {
        // Removes an incomplete picture, which also frees the disk; but nothing other than a plain file (such
        // as /dev/full).
        if path.is_file() {
            let _ = std::fs::remove_file(path);
        }
        let wanted = png.len().div_ceil(1024);
        anyhow::Error::new(error).context(format!(
            "can't write {} ({wanted} KiB); make room there, or name another folder with --output",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_size("1920x1080").unwrap(), (1920, 1080));
        assert_eq!(parse_size("1X2").unwrap(), (1, 2));
        for nonsense in ["", "1920", "x", "0x10", "10x0", "-1x5", "1.5x2", "99999999999x1"] {
            assert!(parse_size(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_blank_picture_is_found() {
        assert!(check_content(&[0, 0, 0, 255, 0, 0, 0, 255]).is_err());
        assert!(check_content(&[90, 90, 90, 255, 90, 90, 90, 255]).is_err());
        assert!(check_content(&[90, 90, 90, 255, 9, 0, 0, 0]).is_err());
        assert!(check_content(&[90, 90, 90, 255, 9, 0, 0, 255]).is_ok());
    }
}
