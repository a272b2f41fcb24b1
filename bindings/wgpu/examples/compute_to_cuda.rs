//! wgpu computes a buffer, a CUDA kernel adds to it, and wgpu reads the sum, without a copy in
//! between and without a wait on the host. The lines marked with `//<` are all that sharing takes.
//!
//! `cargo run --example compute_to_cuda [PAYLOADS]`, in `bindings/wgpu`

mod support;

use std::process::ExitCode;

use gpu_interop_wgpu::gpu_interop::cudarc::driver::{LaunchConfig, PushKernelArg as _};
use gpu_interop_wgpu::gpu_interop::cudarc::nvrtc::Ptx;
use gpu_interop_wgpu::gpu_interop::handoff::{self, HandoffOptions, RoundTrip};
use gpu_interop_wgpu::gpu_interop::{BufferDesc, headless::Cuda};
use gpu_interop_wgpu::{Interop, request_device};
use support::{Fill, Noise, Result, word};

const WORDS: u32 = 0x4_0000;

fn main() -> ExitCode {
    support::run(example)
}

fn example() -> Result<usize> {
    let adapter = support::adapter()?;
    let (device, queue) = request_device(&adapter, &wgpu::DeviceDescriptor::default())?; //<
    let interop = Interop::new(&adapter, &device, &queue)?; //<
    let gpu = Cuda::open(&interop.endpoint().identities()[0].device.into())?; //<
    let (cuda, stream) = (gpu.endpoint()?, gpu.context().new_stream()?); //<
    let add = gpu.context().load_module(Ptx::from_src(support::ADD))?.load_function("add")?;

    // One piece of memory, a view of it in each API, a handoff in each direction.
    let buffer = interop.buffer(&BufferDesc::storage(u64::from(WORDS) * 4))?; //<
    let mut in_cuda = cuda.import_buffer(buffer.export()?)?; //<
    let RoundTrip { there: mut to_cuda, back: mut to_wgpu } = //<
        handoff::round_trip(interop.endpoint(), &cuda, HandoffOptions::default())?; //<
    println!("synchronised by {}", to_cuda.plan);

    let _noise = Noise::start(&device, &queue);
    let fill = Fill::new(&device, &queue, &buffer);
    let mut wrong = 0;
    for round in 0..support::rounds() {
        fill.submit(round);
        // SAFETY: wgpu doesn't use the buffer until it is taken back.
        let ticket = unsafe { interop.give(&mut to_cuda.release, &buffer) }?; //<
        to_cuda.acquire.acquire(ticket, &stream)?; //<
        let mut words = in_cuda.as_view_mut::<u32>()?;
        let mut launch = stream.launch_builder(&add);
        launch.arg(&mut words).arg(&WORDS).arg(&round);
        // SAFETY: the arguments are the kernel's, and the buffer has that many words.
        unsafe { launch.launch(LaunchConfig::for_num_elems(WORDS)) }?;
        let (ticket, ()) = to_wgpu.release.release(&stream)?; //<
        // SAFETY: the buffer is what CUDA released.
        unsafe { interop.take(&mut to_wgpu.acquire, ticket, &buffer) }?; //<

        let seen = support::read_buffer(&device, &queue, &buffer);
        let sum = |i| word(i, round).wrapping_add(round).to_le_bytes();
        wrong += usize::from(seen != (0..WORDS).flat_map(sum).collect::<Vec<_>>());
    }
    Ok(wrong)
}
