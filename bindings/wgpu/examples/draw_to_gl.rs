//! wgpu draws a picture, OpenGL samples it and draws another, and wgpu reads that, without a copy
//! in between. The lines marked with `//<` are all that sharing takes.
//!
//! `cargo run --example draw_to_gl [PAYLOADS [PNG]]`, in `bindings/wgpu`

mod support;

use std::process::ExitCode;

use gpu_interop_wgpu::gpu_interop::format::Format;
use gpu_interop_wgpu::gpu_interop::handoff::{self, HandoffOptions, RoundTrip, TextureAccess};
use gpu_interop_wgpu::gpu_interop::{ImageDesc, ImageUsage};
use gpu_interop_wgpu::{Interop, request_device};
use support::draw::{Picture, SIZE};
use support::{Noise, Result, gl};

fn main() -> ExitCode {
    support::run(example)
}

fn example() -> Result<usize> {
    let adapter = support::adapter()?;
    let (device, queue) = request_device(&adapter, &wgpu::DeviceDescriptor::default())?; //<
    let interop = Interop::new(&adapter, &device, &queue)?; //<
    let (_context, gl) = gl::open(interop.endpoint())?;

    // Two images, a view of each in each API, and a handoff in each direction.
    let desc = ImageDesc::d2(Format::Rgba8Unorm, SIZE, SIZE, ImageUsage::SAMPLED).for_gl(); //<
    let scene = interop.texture(&desc, wgpu::TextureUses::COLOR_TARGET)?; //<
    let result = interop.texture(&desc, wgpu::TextureUses::COPY_SRC)?; //<
    let in_gl = [gl.import_image(scene.export()?)?, gl.import_image(result.export()?)?]; //<
    let used = in_gl.each_ref().map(TextureAccess::from); //<
    let RoundTrip { there: mut to_gl, back: mut to_wgpu } = //<
        handoff::round_trip(interop.endpoint(), &gl, HandoffOptions::default())?; //<
    let both = [scene.clone(), result.clone()]; //<

    let _noise = Noise::start(&device, &queue);
    let picture = Picture::new(&device, &queue, &scene);
    let filter = gl::Kaleidoscope::new(&gl)?;
    let mut wrong = 0;
    for round in 0..support::rounds() {
        picture.submit(round);
        // SAFETY: wgpu doesn't use the textures until they are taken back.
        let ticket = unsafe { interop.give(&mut to_gl.release, (&[][..], &both[..])) }?; //<
        to_gl.acquire.acquire(ticket, &used)?; //<
        filter.draw(&gl, in_gl[0].name(), in_gl[1].name(), SIZE);
        let (ticket, ()) = to_wgpu.release.release(&used)?; //<
        // SAFETY: the textures are what OpenGL released, in the same order.
        unsafe { interop.take(&mut to_wgpu.acquire, ticket, (&[][..], &both[..])) }?; //<

        let seen = support::read_texture(&device, &queue, &result);
        wrong += usize::from(seen != gl::expected(round));
        support::save(round, || [support::read_texture(&device, &queue, &scene), seen])?;
    }
    Ok(wrong)
}
