//! Sharing from wgpu on whatever driver is installed, under the validation layer. The other side is
//! OpenGL.

#[path = "../examples/support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};

use gpu_interop_wgpu::gpu_interop::format::Format;
use gpu_interop_wgpu::gpu_interop::handoff::{self, HandoffOptions, RoundTrip, TextureAccess};
use gpu_interop_wgpu::gpu_interop::{BufferDesc, BufferUsage, Error, ImageDesc, ImageUsage};
use gpu_interop_wgpu::{Interop, RequestDeviceError, SharedBuffer, request_device};
use support::{Fill, Noise, gl, word};

const WORDS: u32 = 0x400;

struct Opened {
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    interop: Interop,
}

fn open() -> Opened {
    support::count_messages();
    let adapter = support::adapter().expect("a Vulkan driver: scripts/drivers.sh installs one");
    let (device, queue) = request_device(&adapter, &wgpu::DeviceDescriptor::default()).unwrap();
    let interop = Interop::new(&adapter, &device, &queue).unwrap();
    Opened { adapter, device, queue, interop }
}

fn desc() -> BufferDesc {
    BufferDesc::storage(u64::from(WORDS) * 4)
}

fn expected(round: u32) -> Vec<u8> {
    (0..WORDS).flat_map(|index| word(index, round).to_le_bytes()).collect()
}

fn refused<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid(invalid)) => invalid.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Passes `rounds` payloads to OpenGL and back, each over its own context.
fn pass(opened: &Opened, rounds: u32) {
    let interop = &opened.interop;
    let (_context, gl) = gl::open(interop.endpoint()).unwrap();
    let buffer = interop.buffer(&desc()).unwrap();
    let in_gl = gl.import_buffer(buffer.export().unwrap()).unwrap();
    let RoundTrip { there: mut to_gl, back: mut to_wgpu } =
        handoff::round_trip(interop.endpoint(), &gl, HandoffOptions::default()).unwrap();
    let fill = Fill::new(&opened.device, &opened.queue, &buffer);
    for round in 0..rounds {
        fill.submit(round);
        // SAFETY: wgpu doesn't use the buffer until it is taken back.
        let ticket = unsafe { interop.give(&mut to_gl.release, &buffer) }.unwrap();
        to_gl.acquire.acquire(ticket, &in_gl).unwrap();
        let seen = gl::read_buffer(&gl, in_gl.name(), WORDS as usize * 4).unwrap();
        assert_eq!(seen, expected(round), "payload {round}");
        let (ticket, ()) = to_wgpu.release.release(&in_gl).unwrap();
        // SAFETY: the buffer is what OpenGL released.
        unsafe { interop.take(&mut to_wgpu.acquire, ticket, &buffer) }.unwrap();
    }
    let seen = support::read_buffer(&opened.device, &opened.queue, &buffer);
    assert_eq!(seen, expected(rounds - 1));
}

#[test]
fn threads_pass_payloads_through_one_queue() {
    let opened = open();
    let noise = Noise::start(&opened.device, &opened.queue);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pass(&opened, 50));
        }
    });
    drop(noise);
    support::expect_no_messages();
}

#[test]
fn a_device_that_wgpu_opened_shares_memory() {
    support::count_messages();
    let adapter = support::adapter().unwrap();
    let desc = wgpu::DeviceDescriptor::default();
    let (device, queue) = pollster::block_on(adapter.request_device(&desc)).unwrap();
    let interop = Interop::new(&adapter, &device, &queue).unwrap();
    pass(&Opened { adapter, device, queue, interop }, 3);
    support::expect_no_messages();
}

#[test]
fn new_buffers_and_textures_are_zero() {
    let Opened { device, queue, interop, .. } = &open();
    let fill = interop.buffer(&desc()).unwrap();
    assert!(support::read_buffer(device, queue, &fill).iter().all(|&byte| byte == 0));
    let image = ImageDesc::d2(Format::Rgba8Unorm, 64, 32, ImageUsage::SAMPLED).for_gl();
    for home in [
        wgpu::TextureUses::RESOURCE,
        wgpu::TextureUses::COPY_SRC,
        wgpu::TextureUses::COPY_DST,
        wgpu::TextureUses::COLOR_TARGET,
        wgpu::TextureUses::STORAGE_READ_WRITE,
    ] {
        let texture = interop.texture(&image, home).unwrap();
        let seen = support::read_texture(device, queue, &texture);
        assert_eq!(seen, vec![0; 64 * 32 * 4], "{home:?}");
    }
    let depth = ImageDesc::d2(Format::D32Float, 64, 32, ImageUsage::SAMPLED).for_gl();
    let texture = interop.texture(&depth, wgpu::TextureUses::DEPTH_STENCIL_WRITE).unwrap();
    assert_eq!(texture.format(), wgpu::TextureFormat::Depth32Float);
    assert_eq!(support::read_texture(device, queue, &texture), vec![0; 64 * 32 * 4]);
    support::expect_no_messages();
}

#[test]
fn a_texture_can_be_given_and_taken_in_each_home() {
    let Opened { device, queue, interop, .. } = &open();
    let (_context, gl) = gl::open(interop.endpoint()).unwrap();
    let image = ImageDesc::d2(Format::Rgba8Unorm, 64, 32, ImageUsage::SAMPLED).for_gl();
    for home in [
        wgpu::TextureUses::RESOURCE,
        wgpu::TextureUses::COPY_SRC,
        wgpu::TextureUses::COPY_DST,
        wgpu::TextureUses::COLOR_TARGET,
    ] {
        let texture = interop.texture(&image, home).unwrap();
        let in_gl = gl.import_image(texture.export().unwrap()).unwrap();
        let RoundTrip { there: mut to_gl, back: mut to_wgpu } =
            handoff::round_trip(interop.endpoint(), &gl, HandoffOptions::default()).unwrap();
        let mut texels = vec![7u8; 64 * 32 * 4];
        for round in 0..2 {
            let layout = wgpu::TexelCopyBufferLayout {
                offset: 0,
                bytes_per_row: Some(64 * 4),
                rows_per_image: None,
            };
            queue.write_texture(texture.as_image_copy(), &texels, layout, texture.size());
            // SAFETY: wgpu doesn't use the texture until it is taken back.
            let ticket = unsafe { interop.give(&mut to_gl.release, &texture) }.unwrap();
            to_gl.acquire.acquire(ticket, TextureAccess::from(&in_gl)).unwrap();
            assert_eq!(gl::read_texture(&gl, in_gl.name(), texels.len()), texels, "{round}");
            texels.iter_mut().for_each(|texel| *texel += 1);
            gl::write_texture(&gl, in_gl.name(), (64, 32), &texels);
            let (ticket, ()) = to_wgpu.release.release(TextureAccess::from(&in_gl)).unwrap();
            // SAFETY: the texture is what OpenGL released.
            unsafe { interop.take(&mut to_wgpu.acquire, ticket, &texture) }.unwrap();
            assert_eq!(support::read_texture(device, queue, &texture), texels, "{home:?}");
        }
    }
    support::expect_no_messages();
}

#[test]
fn the_order_of_drops_is_free() {
    for order in 0..5 {
        let Opened { adapter, device, queue, interop } = open();
        let (context, gl) = gl::open(interop.endpoint()).unwrap();
        let shared = interop.buffer(&desc()).unwrap();
        let in_gl = gl.import_buffer(shared.export().unwrap()).unwrap();
        let mut to_gl =
            handoff::open(interop.endpoint(), interop.endpoint(), &gl, HandoffOptions::default())
                .unwrap();
        let fill = Fill::new(&device, &queue, &shared);
        fill.submit(order);
        // SAFETY: wgpu doesn't use the buffer afterwards.
        let ticket = unsafe { interop.give(&mut to_gl.release, &shared) }.unwrap();
        match order {
            // The work is in flight, and everything of wgpu's goes first.
            0 => {
                drop((shared, fill, interop, queue, device, adapter));
                to_gl.acquire.acquire(ticket, &in_gl).unwrap();
                let seen = gl::read_buffer(&gl, in_gl.name(), WORDS as usize * 4).unwrap();
                assert_eq!(seen, expected(order));
            }
            1 => drop((ticket, to_gl, in_gl, gl, context, interop, device, queue, shared)),
            2 => {
                let buffer = wgpu::Buffer::clone(&shared);
                drop((shared, interop, to_gl, device));
                drop((buffer, fill));
                drop(queue);
            }
            // wgpu's buffer is the last of all, and drops the device within its own drop.
            3 => {
                let buffer = wgpu::Buffer::clone(&shared);
                drop((ticket, to_gl, in_gl, shared, fill, interop, queue, device, adapter));
                drop(buffer);
            }
            _ => drop((device, queue, adapter, fill, to_gl, interop, shared, ticket)),
        }
    }
    support::expect_no_messages();
}

#[test]
fn a_failed_take_leaves_the_ticket() {
    let Opened { interop, .. } = &open();
    let (_context, gl) = gl::open(interop.endpoint()).unwrap();
    let buffer = interop.buffer(&desc()).unwrap();
    let in_gl = gl.import_buffer(buffer.export().unwrap()).unwrap();
    let mut to_wgpu =
        handoff::open(interop.endpoint(), &gl, interop.endpoint(), HandoffOptions::default())
            .unwrap();
    let (ticket, ()) = to_wgpu.release.release(&in_gl).unwrap();
    let two: [SharedBuffer; 2] = [buffer.clone(), interop.buffer(&desc()).unwrap()];
    // SAFETY: the number of buffers is refused.
    let error = unsafe { interop.take(&mut to_wgpu.acquire, ticket, (&two[..], &[][..])) };
    assert!(matches!(error, Err(Error::Mismatch(_))), "{error:?}");
    let ticket = to_wgpu.acquire.lost_tickets().pop().expect("the ticket");
    // SAFETY: the buffer is what OpenGL released.
    unsafe { interop.take(&mut to_wgpu.acquire, ticket, &buffer) }.unwrap();
    support::expect_no_messages();
}

#[test]
fn mistakes_are_refused() {
    let opened = open();
    let Opened { adapter, device, interop, .. } = &opened;
    let image = ImageDesc::d2(Format::Rgba8Unorm, 64, 32, ImageUsage::SAMPLED);
    for home in [
        wgpu::TextureUses::COLOR_TARGET,
        wgpu::TextureUses::UNINITIALIZED,
        wgpu::TextureUses::PRESENT,
        wgpu::TextureUses::RESOURCE | wgpu::TextureUses::COPY_SRC,
        wgpu::TextureUses::empty(),
    ] {
        let text = refused(interop.texture(&image, home));
        assert!(text.contains("home"), "{text}");
    }
    let absent = ImageDesc { format: Format::R5g6b5Unorm, ..image };
    let error = interop.texture(&absent, wgpu::TextureUses::RESOURCE).unwrap_err();
    assert!(error.to_string().contains("R5G6B5_UNORM_PACK16"), "{error}");
    let norm16 = ImageDesc { format: Format::R16Unorm, ..image };
    let error = interop.texture(&norm16, wgpu::TextureUses::RESOURCE).unwrap_err();
    assert!(error.to_string().contains("TEXTURE_FORMAT_16BIT_NORM"), "{error}");

    let other = open();
    let error = Interop::new(adapter, device, &other.queue).unwrap_err();
    assert!(matches!(error, Error::Mismatch(_)), "{error}");

    let (_context, gl) = gl::open(interop.endpoint()).unwrap();
    let mut to_gl =
        handoff::open(interop.endpoint(), interop.endpoint(), &gl, HandoffOptions::default())
            .unwrap();
    let destroyed = interop.buffer(&desc()).unwrap();
    destroyed.destroy();
    // SAFETY: the buffer is refused.
    let text = refused(unsafe { interop.give(&mut to_gl.release, &destroyed) });
    assert!(text.contains("destroy"), "{text}");

    let experimental = wgpu::DeviceDescriptor {
        required_limits: wgpu::Limits { max_texture_dimension_2d: u32::MAX, ..Default::default() },
        ..Default::default()
    };
    let error = request_device(adapter, &experimental).unwrap_err();
    assert!(error.to_string().contains("max_texture_dimension_2d"), "{error}");
    let lacking = wgpu::Features::all_webgpu_mask() - adapter.features();
    let desc = wgpu::DeviceDescriptor { required_features: lacking, ..Default::default() };
    let error = request_device(adapter, &desc).err();
    let expected = matches!(error, Some(RequestDeviceError::Interop(Error::Missing(_))));
    assert!(lacking.is_empty() || expected, "{error:?}");
    support::expect_no_messages();
}

#[test]
fn a_callback_in_a_submit_may_not_give() {
    let Opened { device, queue, interop, .. } = open();
    let interop = Arc::new(interop);
    let (_context, gl) = gl::open(interop.endpoint()).unwrap();
    let options = HandoffOptions { in_flight: 2, ..Default::default() };
    let to_gl = handoff::open(interop.endpoint(), interop.endpoint(), &gl, options).unwrap();
    let release = Arc::new(Mutex::new(to_gl.release));
    let (outer, inner) = (interop.buffer(&desc()).unwrap(), interop.buffer(&desc()).unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();

    // The work is done, and nothing but the submit of `give` finds that out.
    let result = Arc::new(Mutex::new(None));
    let mut to = handoff::open(interop.endpoint(), interop.endpoint(), &gl, options).unwrap();
    let (sharer, giver, found) = (interop.clone(), release.clone(), result.clone());
    queue.submit([]);
    queue.on_submitted_work_done(move || {
        // SAFETY: wgpu doesn't use the buffer afterwards.
        let given = unsafe { sharer.give(&mut giver.lock().unwrap(), &inner) };
        *found.lock().unwrap() = Some(given);
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    // SAFETY: wgpu doesn't use the buffer afterwards.
    drop(unsafe { interop.give(&mut to.release, &outer) }.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let given = result.lock().unwrap().take().expect("the callback was called");
    let text = refused(given);
    assert!(text.contains("callback"), "{text}");
}

#[test]
fn usages_that_wgpu_lacks_stay_with_the_vulkan_buffer() {
    let Opened { interop, .. } = open();
    let usage = BufferUsage::STORAGE | BufferUsage::STORAGE_TEXEL;
    let buffer = interop.buffer(&BufferDesc { usage, ..desc() }).unwrap();
    assert_eq!(buffer.usage(), wgpu::BufferUsages::STORAGE);
    assert_eq!(buffer.vulkan().desc().usage, usage);
    support::expect_no_messages();
}
