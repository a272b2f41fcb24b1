//! wgpu computes a buffer, OpenGL reads it, and wgpu gets it back, without a copy. The lines marked
//! with `//<` are all that sharing takes.
//!
//! `cargo run --example compute_to_gl [PAYLOADS]`, in `bindings/wgpu`

mod support;

use std::process::ExitCode;

use gpu_interop_wgpu::gpu_interop::BufferDesc;
use gpu_interop_wgpu::gpu_interop::handoff::{self, HandoffOptions, RoundTrip};
use gpu_interop_wgpu::{Interop, request_device};
use support::{Fill, Noise, Result, gl, word};

const WORDS: u32 = 0x1000;

fn main() -> ExitCode {
    support::run(example)
}

fn example() -> Result<usize> {
    let adapter = support::adapter()?;
    let (device, queue) = request_device(&adapter, &wgpu::DeviceDescriptor::default())?; //<
    let interop = Interop::new(&adapter, &device, &queue)?; //<
    let (_context, gl) = gl::open(interop.endpoint())?;

    // One piece of memory, a view of it in each API, and a handoff in each direction.
    let buffer = interop.buffer(&BufferDesc::storage(u64::from(WORDS) * 4))?; //<
    let in_gl = gl.import_buffer(buffer.export()?)?; //<
    let RoundTrip { there: mut to_gl, back: mut to_wgpu } = //<
        handoff::round_trip(interop.endpoint(), &gl, HandoffOptions::default())?; //<
    println!("synchronised by {}", to_gl.plan);

    // Another thread submits to the same queue all the time.
    let _noise = Noise::start(&device, &queue);
    let fill = Fill::new(&device, &queue, &buffer);
    let mut wrong = 0;
    for round in 0..support::rounds() {
        fill.submit(round);
        // SAFETY: wgpu doesn't use the buffer until it is taken back.
        let ticket = unsafe { interop.give(&mut to_gl.release, &buffer) }?; //<
        to_gl.acquire.acquire(ticket, &in_gl)?; //<
        let seen = gl::read_buffer(&gl, in_gl.name(), WORDS as usize * 4)?;
        let (ticket, ()) = to_wgpu.release.release(&in_gl)?; //<
        // SAFETY: the buffer is what OpenGL released.
        unsafe { interop.take(&mut to_wgpu.acquire, ticket, &buffer) }?; //<

        let expected: Vec<u8> = (0..WORDS).flat_map(|i| word(i, round).to_le_bytes()).collect();
        wrong += usize::from(seen != expected);
    }
    Ok(wrong)
}
