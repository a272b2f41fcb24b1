//! Family J: routes open exactly if they report support, and OpenGL checks the objects of a handoff on each.

use anyhow::{Context, Result, ensure};
use gpu_interop::gl;
use gpu_interop::glow;
use gpu_interop::handoff::{self, HandoffPeer, TextureAccess, VulkanCommands};
use gpu_interop::tune::{Route, RouteEndpoints};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::handoff::Submits;
use crate::cases::opengl::shared;
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, TestGpu};

const DESC: BufferDesc = BufferDesc::storage(64 << 10);

pub(crate) fn cases() -> Vec<Case> {
    let name = |pair: &str| format!("{pair}/opaque_fd/routes/supported_is_what_opens/7");
    let mut cases = vec![
        Case::new(name("vulkan→vulkan"), |test_gpu| {
            let (one, two) = (test_gpu.vulkan(), test_gpu.second_instance()?);
            what_opens(test_gpu, &one.endpoint, &two.endpoint)
        }),
        Case::new(name("vulkan→gl"), |test_gpu| {
            let gl = test_gpu.gl()?;
            what_opens(test_gpu, &test_gpu.vulkan().endpoint, &gl.endpoint)
        })
        .needs(&[Need::Gl]),
        Case::new(name("vulkan→cuda"), |test_gpu| {
            let cuda = test_gpu.cuda()?;
            what_opens(test_gpu, &test_gpu.vulkan().endpoint, &cuda.endpoint)
        })
        .needs(&[Need::Cuda]),
    ];
    for route in ROUTES {
        let what = "vulkan→gl→vulkan/opaque_fd/handoff/another_endpoints_objects_are_refused";
        let case = Case::new(format!("{what}/{route}/{}", route.row()), move |test_gpu| {
            others_objects(test_gpu, route)
        });
        cases.push(case.needs(&route.needs(Api::OpenGl)));
    }
    cases
}

/// Each route opens if it reports support; otherwise opening it returns the same error. The route in-queue
/// is supported if the Vulkan endpoint supports it, and never with OpenGL.
fn what_opens<B: HandoffPeer>(
    test_gpu: &TestGpu,
    first: &gpu_interop::vulkan::Endpoint,
    second: &B,
) -> Result<()> {
    let desc = DESC.into();
    let owner = first.capabilities(&desc)?;
    let (second_capabilities, in_queue) =
        (second.capabilities(&desc)?, first.supports_cuda_launch());
    let endpoints = [&owner, &second_capabilities];
    let endpoints = RouteEndpoints { owner: &owner, endpoints: &endpoints, cuda_launch: &in_queue };
    for route in Route::ALL {
        let support = route.support(&endpoints);
        let Some(options) = route.handoff() else {
            let expected = match second_capabilities.api {
                Api::Cuda => in_queue.clone(),
                _ => support.clone(),
            };
            ensure!(support == expected, "{route}: {support:?}");
            ensure!(
                second_capabilities.api == Api::Cuda || support.is_err(),
                "{route} without CUDA"
            );
            continue;
        };
        let there = handoff::open(&test_gpu.vulkan().endpoint, first, second, options);
        let back = handoff::open(&test_gpu.vulkan().endpoint, second, first, options);
        match support {
            Ok(()) => {
                let plans = [there?.plan, back?.plan];
                ensure!(plans.iter().all(|plan| Some(plan.method) == route.method()), "{plans:?}");
            }
            Err(missing) => {
                let errors = [there.err(), back.err()];
                let named = Error::from(missing);
                ensure!(errors.iter().any(|error| error.as_ref() == Some(&named)), "{errors:?}");
            }
        }
    }
    Ok(())
}

/// Buffers and textures of a handoff by OpenGL, and a part of the error's text.
type Lists<'a> = (&'a [&'a gl::Buffer], &'a [TextureAccess], &'a str);

/// OpenGL hands over only objects of its own endpoint and context, by any route: a route that waits on the
/// host passes the lists to no driver that would notice.
fn others_objects(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, gpu) = (test_gpu.vulkan(), test_gpu.gl()?);
    let owner = &vulkan.endpoint;
    let options = route.handoff().context("a route with a handoff")?;
    let mut there = handoff::open(owner, owner, &gpu.endpoint, options)?;
    let mut back = handoff::open(owner, &gpu.endpoint, owner, options)?;
    let (ours, theirs) = shared(test_gpu, &DESC, BufferOptions::default())?;
    // Another endpoint over the same context, which has its own imports.
    let foreign = gpu.gl.endpoint()?.import_buffer(ours.export()?)?;
    let unknown = TextureAccess::from(glow::NativeTexture(0xDEAD_u32.try_into()?));
    let submits = Submits::to(vulkan);
    let (mut ticket, sync) = there.release.release(VulkanCommands::recorded())?;
    submits.submit(sync)?;

    let lists: [Lists<'_>; 3] = [
        (&[&foreign], &[], "buffer 0 of 1"),
        (&[&theirs, &foreign], &[], "buffer 1 of 2"),
        (&[&theirs], &[unknown], "texture"),
    ];
    for (buffers, textures, text) in lists {
        let refused = there.acquire.acquire(ticket, (buffers, textures)).err();
        let (same, error) = refused.with_context(|| text.to_owned())?.into_parts();
        ticket = same;
        let released = back.release.release((buffers, textures)).err();
        for error in [error, released.with_context(|| text.to_owned())?] {
            ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
            ensure!(error.to_string().contains(text), "{error}");
        }
    }
    there.acquire.acquire(ticket, &[&theirs])?;
    let (ticket, ()) = back.release.release(&[&theirs])?;
    ensure!(ticket.sequence() == 1, "a refused release was counted: {ticket:?}");
    submits.submit(back.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    Ok(())
}
