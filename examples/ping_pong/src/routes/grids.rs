//! Chooses the number of work groups that is fastest for each API.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use gpu_interop::cudarc::driver::sys::CUdevice_attribute;

use super::benchmark::{Benchmark, SECOND_STEP, time};
use super::one_queue::single_vulkan;
use super::single_cuda::SingleCuda;
use interop_gpu::GpuContexts;
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;
use interop_gpu::statistics::median;

/// Work groups to try; 0 is one thread per element.
const GRIDS: [u32; 6] = [0, 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 10];

/// Groups of 256 threads that an NVIDIA multiprocessor runs concurrently.
const GROUPS_A_PROCESSOR: u32 = 8;
/// Multiples of the number of groups that the GPU runs concurrently.
const WAVES: [u32; 5] = [1, 2, 4, 8, 16];

/// How long each grid is measured.
const TRY: Duration = Duration::from_millis(8);
/// How many times each grid is measured.
const TRIES: usize = 3;

/// Work groups of each API's kernel; 0 is one thread per element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grids {
    /// For Vulkan.
    pub vulkan: u32,
    /// For OpenGL.
    pub gl: u32,
    /// For CUDA.
    pub cuda: u32,
}

impl Grids {
    /// Measures all candidates for each API alone, with kernels back to back as the benchmarks run them.
    ///
    /// # Errors
    /// If a driver fails.
    pub fn choose(gpus: &GpuContexts, bytes: u64) -> Result<Self> {
        let grids = candidates(gpus);
        let vulkan = best(bytes, &grids, |grid| {
            let mut benchmark = single_vulkan(gpus.vulkan.clone(), bytes, grid)?;
            try_grid(&mut benchmark)
        })?;
        let cuda = match &gpus.cuda {
            Ok(gpu) => best(bytes, &grids, |grid| {
                let mut benchmark = SingleCuda::new(gpu.clone(), bytes, grid)?;
                try_grid(&mut benchmark)
            })?,
            Err(_) => 0,
        };
        let gl = match &gpus.gl {
            Ok(gpu) => best_of_gl(gpu, bytes, &grids)?,
            Err(_) => 0,
        };
        Ok(Self { vulkan, gl, cuda })
    }
}

/// [`GRIDS`] and, if CUDA reports how many groups the GPU runs concurrently, multiples of that: whole waves
/// leave no processor idle at the end.
fn candidates(gpus: &GpuContexts) -> Vec<u32> {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let count =
        gpus.cuda.as_ref().ok().and_then(|gpu| gpu.stream.context().attribute(attribute).ok());
    let at_once =
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0) * GROUPS_A_PROCESSOR;
    let waves = WAVES.iter().map(|waves| waves * at_once).filter(|&grid| grid > 0);
    GRIDS.into_iter().chain(waves).collect()
}

/// Returns the grid with the shortest median. Grids with more threads than elements are not tried.
fn best(
    bytes: u64,
    grids: &[u32],
    mut measure: impl FnMut(u32) -> Result<Duration>,
) -> Result<u32> {
    let needed = (bytes / (16 * 256)).max(1) as u32;
    let mut best: Option<(Duration, u32)> = None;
    for &grid in grids.iter().filter(|&&grid| grid == 0 || grid < needed) {
        let found = (measure(grid)?, grid);
        best = Some(best.map_or(found, |best| best.min(found)));
    }
    Ok(best.map_or(0, |(_, grid)| grid))
}

fn try_grid(benchmark: &mut dyn Benchmark) -> Result<Duration> {
    let fewest_pairs = benchmark.fewest_pairs();
    let first = time(benchmark, fewest_pairs)?.wall;
    let pairs = (TRY.as_secs_f64() / first.as_secs_f64().max(1e-9)) as u32;
    let pairs = pairs.min(4096).next_multiple_of(fewest_pairs).max(fewest_pairs);
    let mut times = Vec::new();
    for _ in 0..TRIES {
        times.push(time(benchmark, pairs)?.wall);
    }
    Ok(median(&times))
}

fn best_of_gl(gpu: &Rc<GlContext>, bytes: u64, grids: &[u32]) -> Result<u32> {
    let buffer = gpu.private_buffer(bytes)?;
    let chosen = gpu
        .dispatch(Kernel::Fill { seed: 7 }, buffer, bytes, 0)
        .and_then(|()| best(bytes, grids, |grid| time_gl(gpu, buffer, bytes, grid)));
    gpu.delete_buffer(buffer);
    chosen
}

fn time_gl(
    gpu: &GlContext,
    buffer: gpu_interop::glow::Buffer,
    bytes: u64,
    grid: u32,
) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..=TRIES {
        times.push(gpu.time(Kernel::PingPong { step: SECOND_STEP }, buffer, bytes, grid)?);
    }
    Ok(median(&times[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_grid_wins_and_none_has_idle_threads() {
        let mut tried = Vec::new();
        let found = best(64 << 20, &GRIDS, |grid| {
            tried.push(grid);
            Ok(Duration::from_micros(if grid == 1 << 12 { 5 } else { 9 }))
        });
        assert_eq!((found.unwrap(), tried), (1 << 12, vec![0, 1 << 13, 1 << 12, 1 << 10]));
        assert_eq!(best(4096, &GRIDS, |_| Ok(Duration::ZERO)).unwrap(), 0);
    }
}
