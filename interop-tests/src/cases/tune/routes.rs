//! Routes: what they say of themselves is what can be opened; what OpenGL is told to hand over is
//! checked on each of them.

use anyhow::{Context, Result, ensure};
use gpu_interop::capabilities::Capabilities;
use gpu_interop::gl;
use gpu_interop::glow;
use gpu_interop::handoff::{self, HandoffPeer, TextureAccess, VulkanCommands, WaitMode};
use gpu_interop::tune::{Route, RouteEndpoints};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, Error, ResourceDesc, SemaphoreKind};

use crate::cases::handoff::tickets::Submits;
use crate::cases::opengl::shared;
use crate::harness::{Case, Need, TestGpu};

const DESC: BufferDesc = BufferDesc::storage(64 << 10);

pub(crate) fn cases() -> Vec<Case> {
    let name = |pair: &str| format!("{pair}/opaque_fd/routes/what_they_say_is_what_opens/7");
    let mut cases = vec![
        Case::new(name("vulkan→vulkan"), |machine| {
            let (one, two) = (machine.vulkan(), machine.second_instance()?);
            let caps = |desc: &ResourceDesc| Ok(two.endpoint.capabilities(desc)?);
            what_opens(machine, (&one.endpoint, &two.endpoint), caps)
        }),
        Case::new(name("vulkan→gl"), |machine| {
            let gl = machine.gl()?;
            let caps = |desc: &ResourceDesc| Ok(gl.endpoint.capabilities(desc)?);
            what_opens(machine, (&machine.vulkan().endpoint, &gl.endpoint), caps)
        })
        .needs(&[Need::Gl]),
        Case::new(name("vulkan→cuda"), |machine| {
            let cuda = machine.cuda()?;
            let caps = |desc: &ResourceDesc| Ok(cuda.endpoint.capabilities(desc)?);
            what_opens(machine, (&machine.vulkan().endpoint, &cuda.endpoint), caps)
        })
        .needs(&[Need::Cuda]),
    ];
    for (route, row) in [
        (Route::Semaphore(SemaphoreKind::Timeline), 47),
        (Route::Semaphore(SemaphoreKind::Binary), 46),
        (Route::HostWait(WaitMode::Block), 48),
        (Route::HostWait(WaitMode::Spin), 48),
    ] {
        let what = "vulkan→gl→vulkan/opaque_fd/handoff/another_endpoints_objects_are_refused";
        let case = Case::new(format!("{what}/{route}/{row}"), move |machine| {
            others_objects(machine, route)
        });
        let semaphore = match route {
            Route::Semaphore(kind) => Some(Need::Semaphore(Api::OpenGl, kind)),
            _ => None,
        };
        let needs: Vec<_> = [Need::Gl].into_iter().chain(semaphore).collect();
        cases.push(case.needs(&needs));
    }
    cases
}

/// Each route opens where it says so; where not, opening it tells the same. In the queue it is as the
/// Vulkan endpoint says, and never with OpenGL.
fn what_opens<B: HandoffPeer>(
    machine: &TestGpu,
    (first, second): (&gpu_interop::vulkan::Endpoint, &B),
    capabilities: impl Fn(&ResourceDesc) -> Result<Capabilities>,
) -> Result<()> {
    let desc = DESC.into();
    let owner = first.capabilities(&desc)?;
    let (second_capabilities, in_queue) = (capabilities(&desc)?, first.supports_cuda_launch());
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
            ensure!(second_capabilities.api == Api::Cuda || support.is_err(), "{route} anywhere");
            continue;
        };
        let there = handoff::open(&machine.vulkan().endpoint, first, second, options);
        let back = handoff::open(&machine.vulkan().endpoint, second, first, options);
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

/// Buffers and textures that OpenGL is told to hand over, and a word of the refusal.
type Lists<'a> = (&'a [&'a gl::Buffer], &'a [TextureAccess], &'a str);

/// What OpenGL hands over is of its own endpoint and context, whatever the route: the host's waiting
/// passes the lists to nobody who would notice.
fn others_objects(machine: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, gpu) = (machine.vulkan(), machine.gl()?);
    let owner = &vulkan.endpoint;
    let options = route.handoff().context("it has one")?;
    let mut there = handoff::open(owner, owner, &gpu.endpoint, options)?;
    let mut back = handoff::open(owner, &gpu.endpoint, owner, options)?;
    let (ours, theirs) = shared(machine, &DESC, BufferOptions::default())?;
    // Another endpoint over the very same context, with its own idea of what was imported.
    let foreign = gpu.gl.endpoint()?.import_buffer(ours.export()?)?;
    let unknown = TextureAccess::from(glow::NativeTexture(0xDEAD_u32.try_into()?));
    let submits = Submits::to(vulkan);
    let (mut ticket, part) = there.release.release(VulkanCommands::recorded())?;
    submits.submit(&part)?;

    let lists: [Lists<'_>; 3] = [
        (&[&foreign], &[], "buffer 0 of 1"),
        (&[&theirs, &foreign], &[], "buffer 1 of 2"),
        (&[&theirs], &[unknown], "texture"),
    ];
    for (buffers, textures, word) in lists {
        let refused = there.acquire.acquire(ticket, (buffers, textures)).err();
        let (same, error) = refused.with_context(|| word.to_owned())?.into_parts();
        ticket = same;
        let released = back.release.release((buffers, textures)).err();
        for error in [error, released.with_context(|| word.to_owned())?] {
            ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
            ensure!(error.to_string().contains(word), "{error}");
        }
    }
    there.acquire.acquire(ticket, &[&theirs])?;
    let (ticket, ()) = back.release.release(&[&theirs])?;
    ensure!(ticket.sequence() == 1, "what was refused was counted: {ticket:?}");
    submits.submit(&back.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    Ok(())
}
