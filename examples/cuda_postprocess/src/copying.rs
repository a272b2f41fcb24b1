//! The same pipeline with copies through the host, for comparison with sharing: each API has private
//! memory, with pinned host memory between them.

use std::time::Instant;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Image, ImageOptions};
use gpu_interop::{ImageDesc, ImageUsage};
use interop_gpu::post_process::{Canvas, LIGHT, PICTURE, light_usage, transfer};

use crate::finish::Finish;
use crate::finish_gl::GlFinish;
use crate::finish_vulkan::{VulkanFinish, record_host_read};
use crate::gpu::{Gpu, Job};
use crate::host_pages::HostPages;
use crate::source::Source;
use crate::stages::{CudaStages, FrameTimes};
use crate::worker::Worker;

/// The pipeline, with one frame in flight.
pub(crate) struct Copying {
    // Users of the images are dropped before the images.
    worker: Worker,
    source: Source,
    finish: Box<dyn Finish>,
    light: Image,
    light_pages: HostPages,
    picture_pages: HostPages,
    stages: CudaStages,
}

impl Copying {
    /// Creates every API's images, and the host memory between them.
    pub(crate) fn new(gpu: &Gpu, job: &Job) -> Result<Self> {
        let (vulkan, cuda, (width, height)) = (&gpu.vulkan, &gpu.cuda, job.size);
        let desc = ImageDesc::d2(LIGHT, width, height, light_usage());
        let light = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
        let source = Source::new(vulkan, &light, job.picture.as_ref(), job.noise)?;
        // Private to CUDA: Vulkan creates them, and does not use them again.
        let usage = ImageUsage::TRANSFER_SRC | ImageUsage::TRANSFER_DST | ImageUsage::SAMPLED;
        let picture = ImageDesc::d2(PICTURE, width, height, usage);
        let canvas = Canvas::new(vulkan, &cuda.endpoint, &picture)?;
        canvas.begin(vulkan)?;
        let stages = CudaStages::new(cuda, &gpu.kernels, canvas, job.settings)?;

        let (context, pixels) = (cuda.cuda.context(), width as usize * height as usize);
        let light_bytes = pixels * LIGHT.block_bytes() as usize;
        let light_pages = HostPages::of_both(context, vulkan, light_bytes)?;
        let picture_bytes = pixels * PICTURE.block_bytes() as usize;
        let (finish, picture_pages): (Box<dyn Finish>, _) = match &job.finish {
            Some(gl) => {
                let finish = GlFinish::copied(gl, job.size, job.vignette)?;
                (Box::new(finish), HostPages::of_cuda(context, picture_bytes)?)
            }
            None => {
                let finish = VulkanFinish::copied(vulkan, job.size, job.vignette)?;
                (Box::new(finish), HostPages::of_both(context, vulkan, picture_bytes)?)
            }
        };
        let worker = Worker::new(vulkan)?;
        Ok(Self { worker, source, finish, light, light_pages, picture_pages, stages })
    }

    /// Whether Vulkan and CUDA copy to and from the same pages, so that the host copies nothing
    /// between them.
    pub(crate) fn has_common_pages(&self) -> bool {
        self.light_pages.are_common()
    }

    /// Computes frame `index`, and waits for it.
    pub(crate) fn frame(&mut self, index: u32) -> Result<FrameTimes> {
        let start = Instant::now();
        self.light(index)?;
        self.worker.wait()?;
        let light_on_host = self.light_pages.take_from_vulkan()?;
        let stream = self.stages.gpu.stream.clone();
        self.stages.note(0)?;
        self.light_pages.upload(&stream, &self.stages.canvas.light.array)?;
        self.stages.run()?;
        self.picture_pages.download(&stream, &self.stages.canvas.picture.array)?;
        self.stages.note(self.stages.last())?;
        stream.synchronize()?;
        self.finish.frame_copied(&mut self.picture_pages)?;
        self.finish.wait()?;
        let whole = start.elapsed();

        let [source, light_download] = self.worker.times()?;
        let passes = self.stages.pass_times()?;
        let [light_upload, picture_download] = self.stages.copy_times()?;
        let finish = self.finish.times()?;
        let copies = vec![
            ("light: Vulkan to host", light_download),
            ("light: host to host", light_on_host),
            ("light: host to CUDA", light_upload),
            ("picture: CUDA to host", picture_download),
            ("picture: host to host", finish.copy_on_host),
            ("picture: host to GPU", finish.upload),
        ];
        Ok(FrameTimes { copies, ..FrameTimes::of(whole, source, passes, finish) })
    }

    /// Vulkan fills its image with light and copies it to the host.
    fn light(&mut self, index: u32) -> Result<()> {
        let (image, source) = (&self.light, &self.source);
        let (context, buffer) = (self.worker.gpu.clone(), self.light_pages.buffer()?);
        self.worker.submit(|recording| {
            let command = recording.command;
            let copied = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
            let first = source.first_layout();
            // The light of the last frame is not needed.
            context.record_layout(command, image, (vk::ImageLayout::UNDEFINED, first));
            recording.stamp();
            source.record(&context, command, image, index)?;
            recording.stamp();
            context.record_layout(command, image, (source.last_layout(), copied));
            let region = [transfer::region(image, 0)];
            // SAFETY: the command buffer is being recorded; the buffer has room for all of the image,
            // which is in this layout; both live until the work was waited for.
            unsafe {
                let (device, from) = (context.device(), image.handle());
                device.cmd_copy_image_to_buffer(command, from, copied, buffer, &region);
            }
            record_host_read(&context, command);
            recording.stamp();
            Ok(())
        })
    }

    /// Reads the finished picture: RGBA bytes, sRGB-encoded, the top row first.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        self.finish.read()
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // Nothing may be in flight when the images are destroyed. A lost device has nothing in flight, so
        // errors are ignored.
        let _ = self.worker.wait();
        let _ = self.stages.gpu.stream.synchronize();
        let _ = self.finish.wait();
    }
}
