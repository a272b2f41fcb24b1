//! The CPU time of a handoff, with the library and with plain API calls.
//!
//! The time is that of the submitting thread by its own clock, so sleeping costs nothing.
//! Runs on software drivers too. `cargo bench -p interop-bench --bench handoff_cpu`

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gpu_interop::headless::{GpuSelector, VulkanOptions};
use interop_bench::cpu_benchmarks;
use interop_gpu::GpuContexts;
use ping_pong::PathKind;
use ping_pong::routes::thread_cpu;

fn handoff_cpu(criterion: &mut Criterion) {
    let gpus = GpuContexts::open(&GpuSelector::Any, &VulkanOptions::default()).expect("Vulkan");
    for path in [PathKind::VulkanVulkan, PathKind::VulkanGl, PathKind::VulkanCuda] {
        let benchmarks = match cpu_benchmarks(&gpus, path) {
            Ok(benchmarks) => benchmarks,
            Err(reason) => {
                eprintln!("{path} skipped: {reason:#}");
                continue;
            }
        };
        let mut group = criterion.benchmark_group(format!("handoff cpu/{path}"));
        group.measurement_time(Duration::from_secs(4));
        for (name, mut benchmark) in ["library", "own calls"].into_iter().zip(benchmarks) {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|handoffs| {
                    // Two handoffs per pair.
                    let pairs = u32::try_from(handoffs.div_ceil(2)).expect("not so many");
                    let before = thread_cpu();
                    benchmark.submit(pairs).expect("the driver works");
                    let passed = thread_cpu().saturating_sub(before);
                    benchmark.finish().expect("the driver works");
                    passed.mul_f64(handoffs as f64 / f64::from(2 * pairs))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, handoff_cpu);
criterion_main!(benches);
