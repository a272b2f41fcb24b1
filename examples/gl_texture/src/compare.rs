//! Measures the cost of sharing: one sampling pass on the shared texture and on a private texture.

use std::time::Duration;

use anyhow::Result;
use interop_gpu::statistics::median;
use serde::Serialize;

/// Duration of a measurement, long enough for the clock's resolution not to matter.
const LONG_ENOUGH: Duration = Duration::from_micros(500);

/// Maximum number of passes in a measurement.
const MOST_PASSES: u32 = 256;

/// The texture that a pass samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Shared,
    Own,
}

/// The result. A pass samples every texel of the picture once, into a picture of the same size.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Compared {
    /// Median of a pass over the shared texture, in µs.
    pub(crate) shared_us: f64,
    /// Median of a pass over a private texture with the same content, in µs.
    pub(crate) own_us: f64,
    /// Shared divided by private.
    pub(crate) ratio: f64,
    /// Measurements of each.
    pub(crate) samples: u32,
    /// Passes in a measurement.
    pub(crate) passes: u32,
}

/// Measures each texture `samples` times, alternating. `time` returns how long a number of passes takes.
pub(crate) fn compare(
    samples: u32,
    step: &mut dyn FnMut(),
    mut time: impl FnMut(Which, u32) -> Result<Duration>,
) -> Result<Compared> {
    let mut passes = 1;
    while passes < MOST_PASSES {
        // The first passes are slower because caches are cold, so the fastest of several counts.
        let tries = [Which::Own, Which::Shared, Which::Own, Which::Shared];
        let times =
            tries.map(|which| time(which, passes)).into_iter().collect::<Result<Vec<_>>>()?;
        if times.into_iter().min() >= Some(LONG_ENOUGH) {
            break;
        }
        passes *= 2;
    }
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for i in 0..samples {
        // The second texture finds the caches full of the first one's texels, so the order alternates.
        let order =
            if i % 2 == 0 { [Which::Shared, Which::Own] } else { [Which::Own, Which::Shared] };
        for which in order {
            let took = time(which, passes)?;
            match which {
                Which::Shared => shared.push(took),
                Which::Own => own.push(took),
            }
        }
        step();
    }
    let each = |times: &[Duration]| median(times).as_secs_f64() * 1e6 / f64::from(passes);
    let (shared_us, own_us) = (each(&shared), each(&own));
    Ok(Compared { shared_us, own_us, ratio: shared_us / own_us.max(1e-9), samples, passes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_medians_and_a_slower_shared_texture_shows() {
        let mut calls = 0;
        let compared = compare(10, &mut || calls += 1, |which, passes| {
            let one = if which == Which::Shared { 30 } else { 20 };
            Ok(Duration::from_micros(one) * passes)
        })
        .unwrap();
        assert_eq!(calls, 10);
        assert!((compared.ratio - 1.5).abs() < 1e-9, "{compared:?}");
        assert!((compared.own_us - 20.0).abs() < 1e-9);
        assert_eq!(compared.passes, 32);
    }
}
