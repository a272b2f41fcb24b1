//! The pipeline that shares: Vulkan fills an image with light, CUDA reads it and writes a picture,
//! OpenGL or Vulkan reads that. Each stays in one place in the GPU's memory.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{self, Acquirer, HandoffOptions, Releaser, Ticket, VulkanCommands};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::{ImageDesc, ImageUsage, cuda, gl, vulkan};
use interop_gpu::gl::GlContext;
use interop_gpu::post_process::{Canvas, PICTURE};

use crate::finish::Finish;
use crate::finish_gl::GlFinish;
use crate::finish_vulkan::VulkanFinish;
use crate::gpu::{Gpu, Job};
use crate::source::Source;
use crate::stages::{CudaStages, FrameTimes};
use crate::worker::Worker;

/// The pipeline, with one frame in flight.
pub(crate) struct Sharing {
    // Users of the images are dropped before the images (in `stages`).
    worker: Worker,
    source: Source,
    finish: Box<dyn Finish>,
    stages: CudaStages,
    light_there: handoff::Handoff<vulkan::Endpoint, cuda::Endpoint>,
    light_back: handoff::Handoff<cuda::Endpoint, vulkan::Endpoint>,
    to_finish: Releaser<cuda::Endpoint>,
    from_finish: Acquirer<cuda::Endpoint>,
    /// CUDA's release of the light.
    light_ticket: Option<Ticket>,
    /// The last stage's release of the picture; `None` before the first frame.
    picture_ticket: Option<Ticket>,
    /// How each handoff is synchronised.
    pub(crate) plans: Vec<SyncPlan>,
}

impl Sharing {
    /// Creates all images, shares them, and opens the handoffs.
    pub(crate) fn new(gpu: &Gpu, job: &Job) -> Result<Self> {
        let (vulkan, cuda) = (&gpu.vulkan, &gpu.cuda);
        let (owner, options) = (&vulkan.endpoint, HandoffOptions::default());
        let desc = picture(gpu, job.size)?;
        let canvas = Canvas::new(vulkan, &cuda.endpoint, &desc)?;
        // CUDA owns all images at first.
        canvas.begin(vulkan)?;
        let light_there = handoff::open(owner, owner, &cuda.endpoint, options)?;
        let mut light_back = handoff::open(owner, &cuda.endpoint, owner, options)?;
        let mut plans = vec![light_there.plan.clone(), light_back.plan.clone()];
        let (finish, to_finish, from_finish): (Box<dyn Finish>, _, _) = match &job.finish {
            Some(context) => {
                let texture = context.endpoint.import_image(canvas.picture.image.export()?)?;
                let ends = ends(gpu, context)?;
                plans.extend([ends.0.plan.clone(), ends.1.plan.clone()]);
                let theirs = (ends.0.acquire, ends.1.release);
                let finish = GlFinish::shared(context, texture, theirs, job.vignette)?;
                (Box::new(finish), ends.0.release, ends.1.acquire)
            }
            None => {
                let there = handoff::open(owner, &cuda.endpoint, owner, options)?;
                let back = handoff::open(owner, owner, &cuda.endpoint, options)?;
                plans.extend([there.plan.clone(), back.plan.clone()]);
                let (image, theirs) = (canvas.picture.image.clone(), (there.acquire, back.release));
                let finish = VulkanFinish::shared(vulkan, image, theirs, job.vignette)?;
                (Box::new(finish), there.release, back.acquire)
            }
        };
        let source = Source::new(vulkan, &canvas.light.image, job.picture.as_ref(), job.noise)?;
        let stages = CudaStages::new(cuda, &gpu.kernels, canvas, job.settings)?;
        let light_ticket = Some(light_back.release.release(&cuda.stream)?.0);
        let worker = Worker::new(vulkan)?;
        Ok(Self {
            worker,
            source,
            finish,
            stages,
            light_there,
            light_back,
            to_finish,
            from_finish,
            light_ticket,
            picture_ticket: None,
            plans,
        })
    }

    /// Computes frame `index`, and waits for it.
    pub(crate) fn frame(&mut self, index: u32) -> Result<FrameTimes> {
        let start = Instant::now();
        let ticket = self.light(index)?;
        let stream = self.stages.gpu.stream.clone();
        self.light_there.acquire.acquire(ticket, &stream)?;
        if let Some(ticket) = self.picture_ticket.take() {
            self.from_finish.acquire(ticket, &stream)?;
        }
        self.stages.run()?;
        let (ticket, ()) = self.to_finish.release(&stream)?;
        self.light_ticket = Some(self.light_back.release.release(&stream)?.0);
        self.picture_ticket = Some(self.finish.frame_shared(ticket)?);
        self.finish.wait()?;
        let whole = start.elapsed();

        let [source] = self.worker.times()?;
        let passes = self.stages.pass_times()?;
        Ok(FrameTimes::of(whole, source, passes, self.finish.times()?))
    }

    /// Vulkan acquires the image of light, fills it and releases it.
    fn light(&mut self, index: u32) -> Result<Ticket> {
        let ticket = self.light_ticket.take().context("the last frame failed")?;
        let (image, source) = (self.stages.canvas.light.image.clone(), &self.source);
        let (there, back) = (&mut self.light_there.release, &mut self.light_back.acquire);
        let context = self.worker.gpu.clone();
        let family = context.vulkan.queue_family();
        self.worker.submit(|recording| {
            let command = recording.command;
            let found = [source.found(&image)];
            // SAFETY: the command buffer is being recorded for a queue of that family; the
            // returned `sync` is added to its submit; the image lives until the work was waited for.
            let sync =
                back.acquire(ticket, unsafe { VulkanCommands::record(command, family, &found) })?;
            recording.sync.merge(sync);
            recording.stamp();
            source.record(&context, command, &image, index)?;
            recording.stamp();
            let left = [source.left(&image)];
            // SAFETY: as above; this queue has the image, in this layout.
            let (ticket, sync) =
                there.release(unsafe { VulkanCommands::record(command, family, &left) })?;
            recording.sync.merge(sync);
            Ok(ticket)
        })
    }

    /// Reads the finished picture: RGBA bytes, sRGB-encoded, the top row first.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        self.finish.read()
    }

    /// The API of the last stage.
    pub(crate) fn finish_api(&self) -> &'static str {
        self.finish.api()
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        // Nothing may be in flight when the images are destroyed. A lost device has nothing in flight, so
        // errors are ignored.
        let _ = self.worker.wait();
        let _ = self.stages.gpu.stream.synchronize();
        let _ = self.finish.wait();
    }
}

type Ends = (
    handoff::Handoff<cuda::Endpoint, gl::Endpoint>,
    handoff::Handoff<gl::Endpoint, cuda::Endpoint>,
);

/// From CUDA to OpenGL, and back.
fn ends(gpu: &Gpu, context: &Rc<GlContext>) -> Result<Ends> {
    let (owner, options) = (&gpu.vulkan.endpoint, HandoffOptions::default());
    let there = handoff::open(owner, &gpu.cuda.endpoint, &context.endpoint, options)?;
    Ok((there, handoff::open(owner, &context.endpoint, &gpu.cuda.endpoint, options)?))
}

/// The developed picture, as all three APIs share it.
fn picture(gpu: &Gpu, (width, height): (u32, u32)) -> Result<ImageDesc> {
    let copies = ImageUsage::TRANSFER_SRC | ImageUsage::TRANSFER_DST;
    let least = ImageDesc::d2(PICTURE, width, height, copies | ImageUsage::SAMPLED);
    Ok(widest_for_gl(&gpu.vulkan.endpoint, &least)?)
}
