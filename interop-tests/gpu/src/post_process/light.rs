//! Pictures in main memory: light, and the developed picture.

use std::thread;

use anyhow::{Result, ensure};

use super::half::{LARGEST, half_bits, half_value, rounded};

/// A picture of light: linear, where 1 is white, red first, in numbers that a half holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Light {
    /// Width in texels.
    pub width: u32,
    /// Height in texels.
    pub height: u32,
    /// Row by row, the top one first.
    pub texels: Vec<[f32; 4]>,
}

impl Light {
    /// Light from a function of x and y. Each number becomes the nearest half that is finite and not negative.
    pub fn by(width: u32, height: u32, texel: impl Fn(u32, u32) -> [f32; 4] + Sync) -> Self {
        let mut texels = vec![[0.0; 4]; width as usize * height as usize];
        rows(&mut texels, width, |x, y, out| *out = texel(x, y).map(storable));
        Self { width, height, texels }
    }

    /// The texel at the place, clamped to the edge.
    pub fn at(&self, x: i64, y: i64) -> [f32; 4] {
        let x = x.clamp(0, i64::from(self.width) - 1) as usize;
        let y = y.clamp(0, i64::from(self.height) - 1) as usize;
        self.texels[y * self.width as usize + x]
    }

    /// The texels as `R16G16B16A16_SFLOAT`.
    pub fn to_halves(&self) -> Vec<u8> {
        self.texels.iter().flatten().flat_map(|&value| half_bits(value).to_le_bytes()).collect()
    }

    /// Light that is stored as `R16G16B16A16_SFLOAT`.
    ///
    /// # Errors
    /// If the number of bytes does not fit the number of texels.
    pub fn from_halves(width: u32, height: u32, bytes: &[u8]) -> Result<Self> {
        let count = width as usize * height as usize;
        ensure!(bytes.len() == 8 * count, "{} bytes for {count} texels", bytes.len());
        let halves =
            bytes.as_chunks::<2>().0.iter().map(|half| half_value(u16::from_le_bytes(*half)));
        let values: Vec<f32> = halves.collect();
        Ok(Self { width, height, texels: values.as_chunks::<4>().0.to_vec() })
    }
}

/// Clamps light to what the kernels require: neither negative nor infinite.
fn storable(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { rounded(value.clamp(0.0, LARGEST)) }
}

/// A developed picture: `R8G8B8A8`, the colour sRGB-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in texels.
    pub width: u32,
    /// Height in texels.
    pub height: u32,
    /// Row by row, the top one first.
    pub texels: Vec<[u8; 4]>,
}

/// The difference of two pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Bytes that differ.
    pub bytes: u64,
    /// The largest difference of two bytes.
    pub largest: u8,
}

impl Difference {
    /// The difference of `a` and `b`, which have the same length.
    pub fn of(a: &[u8], b: &[u8]) -> Self {
        let mut found = Self::default();
        for (a, b) in a.iter().zip(b).filter(|(a, b)| a != b) {
            found.bytes += 1;
            found.largest = found.largest.max(a.abs_diff(*b));
        }
        found
    }

    /// The larger of two differences.
    pub fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), largest: self.largest.max(other.largest) }
    }
}

/// Runs `work` for every texel of rows of `width`, on all cores: x, y and the texel.
pub(super) fn rows<T: Send>(texels: &mut [T], width: u32, work: impl Fn(u32, u32, &mut T) + Sync) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (width, height) = (width as usize, texels.len() / width as usize);
    let part = height.div_ceil(threads).max(1);
    thread::scope(|scope| {
        for (i, part_of) in texels.chunks_mut(part * width).enumerate() {
            let work = &work;
            scope.spawn(move || {
                for (y, row) in part_of.chunks_mut(width).enumerate() {
                    for (x, texel) in row.iter_mut().enumerate() {
                        work(x as u32, (i * part + y) as u32, texel);
                    }
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_survives_being_stored() {
        let light = Light::by(5, 3, |x, y| [x as f32 * 0.3, y as f32 * 900.0, 1e-6, 1.0]);
        assert_eq!(Light::from_halves(5, 3, &light.to_halves()).unwrap(), light);
        assert_eq!((light.at(-4, 1), light.at(9, 1)), (light.at(0, 1), light.at(4, 1)));
        Light::from_halves(5, 4, &light.to_halves()).unwrap_err();
    }

    #[test]
    fn what_is_no_light_is_made_some() {
        let light = Light::by(1, 1, |_, _| [f32::NAN, f32::INFINITY, -3.0, 1e9]);
        assert_eq!(light.texels, [[0.0, LARGEST, 0.0, LARGEST]]);
    }

    #[test]
    fn a_difference_counts_bytes_and_finds_the_largest() {
        let found = Difference::of(&[1, 2, 3, 4], &[1, 5, 3, 3]);
        assert_eq!(found, Difference { bytes: 2, largest: 3 });
        let other = Difference { bytes: 1, largest: 9 };
        assert_eq!(found.max(other), Difference { bytes: 2, largest: 9 });
    }
}
