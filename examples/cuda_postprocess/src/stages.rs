//! CUDA's stages with their events, and the times of one frame's stages.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use gpu_interop::cudarc::driver::{CudaEvent, sys};
use interop_gpu::cuda::CudaContext;
use interop_gpu::post_process::{Canvas, Kernels, Pass, Settings};

use crate::finish::FinishTimes;

/// The times of one frame, measured on the GPU unless noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameTimes {
    /// From the first command to the end of the last one, by the host's clock.
    pub whole: Duration,
    /// The light, in Vulkan.
    pub source: Duration,
    /// The passes in CUDA, in their order.
    pub passes: Vec<(Pass, Duration)>,
    /// The vignette.
    pub vignette: Duration,
    /// The copies, in their order; empty for the pipeline that shares.
    pub copies: Vec<(&'static str, Duration)>,
}

impl FrameTimes {
    /// The time of the work, without moving data.
    pub(crate) fn work(&self) -> Duration {
        self.source + self.vignette + self.passes.iter().map(|(_, time)| *time).sum::<Duration>()
    }

    /// The time of everything else: handoffs, copies, waits.
    pub(crate) fn moving(&self) -> Duration {
        self.whole.saturating_sub(self.work())
    }
}

/// The passes on one canvas.
#[derive(Debug)]
pub(crate) struct CudaStages {
    pub(crate) canvas: Canvas,
    pub(crate) gpu: Rc<CudaContext>,
    kernels: Rc<Kernels>,
    settings: Settings,
    passes: Vec<Pass>,
    events: Vec<CudaEvent>,
}

impl CudaStages {
    pub(crate) fn new(
        gpu: &Rc<CudaContext>,
        kernels: &Rc<Kernels>,
        canvas: Canvas,
        settings: Settings,
    ) -> Result<Self> {
        let passes = settings.passes();
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let events = (0..passes.len() + 3).map(|_| gpu.cuda.context().new_event(timed));
        let events = events.collect::<Result<_, _>>()?;
        Ok(Self { canvas, gpu: gpu.clone(), kernels: kernels.clone(), settings, passes, events })
    }

    /// Launches all passes, recording an event after each. Does not wait.
    pub(crate) fn run(&mut self) -> Result<()> {
        self.note(1)?;
        for (i, &pass) in self.passes.iter().enumerate() {
            self.kernels.run(&self.gpu.stream, &mut self.canvas, pass, &self.settings)?;
            self.events[i + 2].record(&self.gpu.stream)?;
        }
        Ok(())
    }

    /// Records event `index` in the stream: 0 before an upload, 1 before the passes, and the last one after a
    /// download.
    pub(crate) fn note(&self, event: usize) -> Result<()> {
        Ok(self.events[event].record(&self.gpu.stream)?)
    }

    /// The event after a download.
    pub(crate) fn last(&self) -> usize {
        self.events.len() - 1
    }

    /// The time of each pass. The stream must be idle.
    pub(crate) fn pass_times(&self) -> Result<Vec<(Pass, Duration)>> {
        self.gpu.stream.synchronize()?;
        let time = |(i, &pass): (usize, &Pass)| Ok((pass, self.between(i + 1, i + 2)?));
        self.passes.iter().enumerate().map(time).collect()
    }

    /// The times of the upload and of the download, if both events were recorded.
    pub(crate) fn copy_times(&self) -> Result<[Duration; 2]> {
        Ok([self.between(0, 1)?, self.between(self.last() - 1, self.last())?])
    }

    fn between(&self, first: usize, second: usize) -> Result<Duration> {
        let milliseconds = self.events[first].elapsed_ms(&self.events[second])?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl FrameTimes {
    /// Combines the times of a frame.
    pub(crate) fn of(
        whole: Duration,
        source: Duration,
        passes: Vec<(Pass, Duration)>,
        finish: FinishTimes,
    ) -> Self {
        Self { whole, source, passes, vignette: finish.vignette, copies: Vec::new() }
    }
}
