//! What a handoff needs of an endpoint, beyond [`Peer`].

use crate::error::Result;
use crate::peer::Peer;
use crate::vulkan;

/// An endpoint that can be a side of a handoff. Implemented by the peers of this crate only.
pub trait HandoffPeer: Peer + sealed::Sealed {
    /// What the releasing side keeps so that the host can wait for its work.
    type Fences: std::fmt::Debug;

    #[doc(hidden)]
    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<Self::Semaphore> {
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    #[doc(hidden)]
    fn fences(&self) -> Result<Self::Fences>;

    /// Leaks what work that may never end still uses.
    #[doc(hidden)]
    fn abandon(_fences: &Self::Fences) {}
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for vulkan::Endpoint {}

impl HandoffPeer for vulkan::Endpoint {
    type Fences = vulkan::FencePool;

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
        fences.leak();
    }
}
