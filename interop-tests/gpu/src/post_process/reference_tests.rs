use super::*;
use crate::oracle;

const SIZE: (u32, u32) = (37, 23);

fn constant(color: [f32; 4]) -> Light {
    Light::by(SIZE.0, SIZE.1, |_, _| color)
}

/// Grey, with noise of up to `noise` per texel.
fn noisy(noise: f32) -> Light {
    Light::by(SIZE.0, SIZE.1, |x, y| {
        let random = oracle::hash(y * SIZE.0 + x, 3) as f32 / u32::MAX as f32 - 0.5;
        [0.5 + 2.0 * noise * random; 4]
    })
}

/// Black except for one texel.
fn spot(value: f32) -> Light {
    Light::by(64, 64, |x, y| if (x, y) == (32, 32) { [value; 4] } else { [0.0, 0.0, 0.0, 1.0] })
}

fn energy(light: &Light) -> f64 {
    light.texels.iter().map(|texel| f64::from(texel[0])).sum()
}

fn spread_of(light: &Light) -> f32 {
    let mean = (energy(light) / light.texels.len() as f64) as f32;
    light.texels.iter().map(|texel| (texel[0] - mean).abs()).sum::<f32>()
}

fn near(a: f32, b: f32, share: f32) -> bool {
    (a - b).abs() <= share * b.abs().max(1e-3)
}

#[test]
fn every_pass_keeps_an_even_picture_even() {
    let light = constant([0.25, 4.0, 1000.0, 0.5]);
    let same = |found: &Light, factor: f32, name: &str| {
        for texel in &found.texels {
            for (found, was) in texel.iter().zip(&light.texels[0]).take(3) {
                assert!(near(*found, factor * was, 2e-3), "{name}: {texel:?}");
            }
        }
    };
    let clean = denoise(&light, 3, 0.1);
    same(&clean, 1.0, "denoise");
    assert_eq!(clean.texels[0][3], 0.5);
    let bright = bloom_bright(&light, 1.0, 0.5, EXACT);
    same(&bright, 0.999, "bloom_bright");
    same(&bloom_down(&light, EXACT), 1.0, "bloom_down");
    same(&bloom_up(&light, &bloom_down(&light, EXACT), 1.0, 0.4, EXACT), 1.0, "bloom_up");
}

#[test]
fn what_is_below_the_threshold_does_not_glow() {
    let settings = Settings::default();
    assert_eq!(energy(&bloom(&constant([0.4, 0.4, 0.4, 1.0]), &settings)), 0.0);
    assert!(energy(&bloom(&constant([0.8; 4]), &settings)) > 0.0);
    assert!(energy(&bloom(&constant([1.5; 4]), &settings)) > 0.0);
}

#[test]
fn a_bloom_spreads_light_and_keeps_it() {
    let glow = bloom_down(&spot(100.0), EXACT);
    // A texel of the half is four of the whole.
    let kept = 4.0 * energy(&glow) / 100.0;
    assert!((kept - 1.0).abs() < 0.02, "{kept}");
    let wide = bloom_up(&Light::by(64, 64, |_, _| [0.0; 4]), &glow, 1.0, 0.0, EXACT);
    assert!((energy(&wide) / 100.0 - 1.0).abs() < 0.02, "{}", energy(&wide));
    let lit = |light: &Light| light.texels.iter().filter(|texel| texel[0] > 0.0).count();
    assert!(lit(&wide) > 9 && wide.at(32, 32)[0] < 30.0, "{} texels", lit(&wide));
}

#[test]
fn a_bloom_is_as_bright_on_all_sides_and_has_no_step() {
    let light = Light::by(64, 64, |x, y| {
        let inside = (28..36).contains(&x) && (28..36).contains(&y);
        if inside { [50.0; 4] } else { [0.0; 4] }
    });
    let glow = bloom(&light, &Settings::default());
    for i in 0..32 {
        let [left, right] = [glow.at(i, 16)[0], glow.at(31 - i, 16)[0]];
        let [above, below] = [glow.at(15, i)[0], glow.at(15, 31 - i)[0]];
        assert!(near(left, right, 0.02) && near(above, below, 0.02), "{i}: {left} {right}");
    }
    for x in 0..15 {
        let (outer, inner) = (glow.at(x, 15)[0], glow.at(x + 1, 15)[0]);
        assert!(inner >= outer && outer > 0.0, "{x}: {outer} {inner}");
    }
}

#[test]
fn noise_goes_edges_stay_and_lone_texels_are_taken_for_noise() {
    let light = noisy(0.05);
    let clean = denoise(&light, 3, 0.1);
    assert!(spread_of(&clean) < 0.35 * spread_of(&light), "{}", spread_of(&clean));
    let edge = Light::by(SIZE.0, SIZE.1, |x, _| [if x < 18 { 0.1 } else { 2.0 }; 4]);
    let clean = denoise(&edge, 3, 0.1);
    for (found, was) in clean.texels.iter().zip(&edge.texels) {
        assert!(near(found[0], was[0], 0.01), "{found:?} of {was:?}");
    }
    assert!(denoise(&spot(60_000.0), 3, 0.1).at(32, 32)[0] < 0.2);
}

#[test]
fn film_keeps_middle_grey_and_brighter_stays_brighter() {
    assert!(near(filmic(0.18), 0.18, 1e-3) && filmic(0.0) == 0.0 && filmic(65504.0) == 1.0);
    let mut before = -1.0;
    for i in 0..2000 {
        let now = filmic(1.01f32.powi(i - 900));
        assert!(now >= before && now <= 1.0, "{i}");
        before = now;
    }
}

#[test]
fn srgb_is_the_standards() {
    for (linear, byte) in [(0.0, 0), (0.003, 10), (0.18, 118), (0.5, 188), (1.0, 255), (7.0, 255)] {
        assert_eq!((255.0 * srgb(linear)).round() as u8, byte, "{linear}");
    }
}

#[test]
fn a_picture_that_nothing_is_done_to_is_as_it_was() {
    let decode = |byte: u32| {
        let encoded = byte as f32 / 255.0;
        if encoded <= 0.04045 { encoded / 12.92 } else { ((encoded + 0.055) / 1.055).powf(2.4) }
    };
    let light = Light::by(256, 2, |x, _| [decode(x), decode(255 - x), decode(x), 1.0]);
    let picture = develop_all(&light, &Settings::of(&[]));
    for (x, texel) in (0..256u32).zip(&picture.texels) {
        // A half has 11 bits and dithering is half a step: the neighbouring byte at most.
        assert!(
            texel[0].abs_diff(x as u8) <= 1 && texel[1].abs_diff(255 - x as u8) <= 1,
            "{texel:?}"
        );
        assert_eq!(texel[3], 255);
    }
    assert_eq!((picture.texels[0][0], picture.texels[255][0]), (0, 255));
}

#[test]
fn exposure_doubles_light_with_each_stop() {
    let grey = |value: f32, exposure| {
        let settings = Settings { exposure, ..Settings::of(&[]) };
        let light = constant([value, value, value, 1.0]);
        develop(&light, None, &settings, EXACT)
    };
    assert!(grey(0.25, 1.0) == grey(0.5, 0.0) && grey(0.25, -2.0) == grey(0.0625, 0.0));
}

#[test]
fn the_smallest_picture_has_all_passes() {
    let picture = develop_all(&Light::by(1, 1, |_, _| [2.0; 4]), &Settings::default());
    assert_eq!(picture.texels.len(), 1);
    assert!(picture.texels[0][0] > 200);
}
