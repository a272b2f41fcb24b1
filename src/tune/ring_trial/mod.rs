//! The trial for who has no work of their own yet: a ring whose stations fill payloads.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "gl")]
mod gl;
mod vulkan;

use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
pub use self::cuda::CudaWorker;
#[cfg(feature = "gl")]
pub use self::gl::GlWorker;
pub use self::vulkan::VulkanWorker;
use super::key::CalibrationKey;
use super::measure::Trial;
use super::route::RouteEndpoints;
use super::route_config::RouteConfig;
use crate::capabilities::{Capabilities, Support};
use crate::desc::BufferDesc;
use crate::error::{Api, Invalid, Missing, Result};
use crate::peer::Peer as _;
use crate::ring::{RingOptions, RingPeer, RingStage, ring_of_two};
use crate::vulkan::Endpoint;

/// How one endpoint touches all of a payload, by a command of its own API: [`VulkanWorker`],
/// [`GlWorker`](self::GlWorker), [`CudaWorker`](self::CudaWorker). Implemented in this crate only.
pub trait Worker: sealed::Sealed {
    /// The endpoint's type.
    type Peer: RingPeer;

    /// The endpoint.
    fn endpoint(&self) -> &Self::Peer;

    /// Works on exactly `count` slots, if so many have arrived, and passes them on together. Returns
    /// how many.
    #[doc(hidden)]
    fn turn(&mut self, station: &mut RingStage<Self::Peer>, count: usize) -> Result<usize>;

    /// Waits until all of its work is done.
    #[doc(hidden)]
    fn finish(&mut self) -> Result<()>;
}

mod sealed {
    pub trait Sealed {}
}

/// How long a worker waits for its own work.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A trial that opens a ring of two for each run and lets both stations write all of each payload by
/// their API's own command. Where it is missing, [`in-queue`](crate::tune::Route::SameQueue) is recorded with the
/// reason; where it is there, it takes kernels of your own to measure it: implement [`Trial`].
///
/// Both stations are driven by the thread that measures. The contents of payloads mean nothing.
#[derive(Debug)]
pub struct RingTrial<A: Worker, B: Worker> {
    owner: Endpoint,
    first: A,
    second: B,
    capabilities: [Capabilities; 3],
    in_queue: Support,
}

impl<A: Worker, B: Worker> RingTrial<A, B> {
    /// A trial between the endpoints of two workers, with memory and semaphores of `owner`'s device.
    ///
    /// # Errors
    /// What the endpoints' `capabilities` return.
    pub fn new(owner: &Endpoint, first: A, second: B) -> Result<Self> {
        let desc = BufferDesc::storage(16).into();
        let capabilities = [
            owner.capabilities(&desc)?,
            first.endpoint().capabilities(&desc)?,
            second.endpoint().capabilities(&desc)?,
        ];
        let in_queue = owner.supports_cuda_launch().and_then(|()| {
            Err(Missing::new(Api::Cuda, "a kernel of yours", "measuring the route in-queue")
                .help("implement Trial with kernels that a Vulkan queue can take"))
        });
        Ok(Self { owner: owner.clone(), first, second, capabilities, in_queue })
    }

    /// What a calibration by this trial holds for.
    ///
    /// # Errors
    /// [`Missing`] where the owner does not know its GPU.
    pub fn subject(&self) -> Result<CalibrationKey> {
        let [owner, first, second] = &self.capabilities;
        CalibrationKey::new(owner, &[first.api, second.api])
    }

    fn go_round(
        &mut self,
        (a, b): (&mut RingStage<A::Peer>, &mut RingStage<B::Peer>),
        candidate: RouteConfig,
        turns: u32,
    ) -> Result<()> {
        let (batch, mut left) = (candidate.batch as usize, turns as usize);
        while left > 0 {
            let sent = self.first.turn(a, batch)?;
            let back = self.second.turn(b, batch)?;
            left = left.saturating_sub(back);
            if sent + back == 0 {
                // Slots are before one of the two, so that this can't be.
                return Err(Invalid::new("ring", "no slot is before any station").into());
            }
        }
        self.second.finish()?;
        self.first.finish()
    }
}

impl<A: Worker, B: Worker> Trial for RingTrial<A, B> {
    fn support(&self, candidate: RouteConfig) -> Support {
        let [owner, first, second] = &self.capabilities;
        let between =
            RouteEndpoints { owner, stations: &[first, second], in_queue: &self.in_queue };
        candidate.route.support(&between)
    }

    fn run(&mut self, payload_bytes: u64, candidate: RouteConfig, turns: u32) -> Result<Duration> {
        self.support(candidate)?;
        let options = RingOptions::of(candidate)
            .ok_or_else(|| Invalid::new("candidate", "is not for a ring"))?;
        let desc = BufferDesc::storage(payload_bytes);
        let (owner, first, second) = (&self.owner, self.first.endpoint(), self.second.endpoint());
        let (mut a, mut b, _) = ring_of_two(owner, first, second, &desc, options)?;
        // Memory is really there once it was written, and slots come with tickets once they went
        // round.
        self.go_round((&mut a, &mut b), candidate, candidate.depth)?;
        let start = Instant::now();
        self.go_round((&mut a, &mut b), candidate, turns)?;
        Ok(start.elapsed())
    }
}
