//! 16-bit floats, which hold light.

/// The largest number that a half holds.
pub(super) const LARGEST: f32 = 65504.0;

/// The bits of the half nearest to `value`, ties to even; larger values become [`LARGEST`], as in the kernels.
pub(super) fn half_bits(value: f32) -> u16 {
    let value = if value.is_nan() { LARGEST } else { value.min(LARGEST) };
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = f64::from(value.abs());
    // Halves below 2^-14 are multiples of 2^-24, those above have 10 bits behind the first.
    let exponent = ((bits >> 23 & 0xff) as i32 - 127).max(-14);
    let unit = f64::from(exponent - 10).exp2();
    // Exact in f64, so that this is the one rounding.
    let units = (magnitude / unit).round_ties_even();
    let (units, exponent) =
        if units >= 2048.0 { (1024.0, exponent + 1) } else { (units, exponent) };
    let units = units as u16;
    if exponent > 15 {
        return sign | 0x7c00;
    }
    // A subnormal has exponent bits of 0 and no hidden bit.
    let biased = if units < 1024 { 0 } else { (exponent + 15) as u16 };
    sign | biased << 10 | units & 0x3ff
}

/// The value of a half.
pub(super) fn half_value(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * (-24f32).exp2(),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * ((exponent - 25) as f32).exp2(),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// The half nearest to `value`, as a number.
pub(super) fn rounded(value: f32) -> f32 {
    half_value(half_bits(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_that_is_a_number_comes_back() {
        for bits in 0..=u16::MAX {
            let value = half_value(bits);
            if value.is_finite() {
                assert_eq!(half_bits(value), bits, "{value}");
            }
        }
    }

    #[test]
    fn what_lies_between_two_halves_goes_to_the_nearer_or_the_even_one() {
        let one = 0x3c00;
        let step = (-10f32).exp2();
        assert_eq!(half_bits(1.0 + 0.4 * step), one);
        assert_eq!(half_bits(1.0 + 0.5 * step), one);
        assert_eq!(half_bits(1.0 + 0.6 * step), one + 1);
        assert_eq!(half_bits(1.0 + 1.5 * step), one + 2);
        // From one exponent to the next, and from subnormal to normal.
        assert_eq!(half_bits(1.999_9), 0x4000);
        assert_eq!(half_bits(6.103_4e-5), 0x0400);
        assert_eq!(half_bits(1e-9), 0);
    }

    #[test]
    fn what_no_half_holds_becomes_the_largest() {
        for value in [65520.0, 1e9, f32::INFINITY, f32::NAN] {
            assert_eq!(half_value(half_bits(value)), LARGEST);
        }
        assert_eq!(half_bits(-1e9), 0xfc00);
    }
}
