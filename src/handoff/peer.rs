//! What a handoff asks of an endpoint.

use crate::capabilities::Capabilities;
use crate::desc::ResourceDesc;
use crate::error::Result;
use crate::vulkan;

/// An endpoint that can take part in a handoff. Implemented by the peers of this crate only.
pub trait Peer: Clone + sealed::Sealed {
    /// The peer's own view of a shared semaphore.
    type Semaphore: Clone + std::fmt::Debug;
    /// What the releasing side keeps to tell the host that it is done.
    type Fences: std::fmt::Debug;

    #[doc(hidden)]
    fn peer_capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities>;

    #[doc(hidden)]
    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<Self::Semaphore>;

    #[doc(hidden)]
    fn fences(&self) -> Result<Self::Fences>;

    /// Leaves alive for ever what work that may never end still uses.
    #[doc(hidden)]
    fn abandon(_fences: &Self::Fences) {}
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for vulkan::Endpoint {}

impl Peer for vulkan::Endpoint {
    type Semaphore = vulkan::Semaphore;
    type Fences = vulkan::FencePool;

    fn peer_capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        self.capabilities(desc)
    }

    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<vulkan::Semaphore> {
        if semaphore.is_of(self) {
            return Ok(semaphore.clone());
        }
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    fn fences(&self) -> Result<vulkan::FencePool> {
        vulkan::FencePool::new(self)
    }

    fn abandon(fences: &vulkan::FencePool) {
        fences.abandon();
    }
}
