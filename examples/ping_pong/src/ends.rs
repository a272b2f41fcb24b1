//! Handoffs between endpoints whose APIs are known at run time only.

use anyhow::{Result, bail};
use gpu_interop::capabilities::{Capabilities, SyncPlan};
use gpu_interop::handoff::{Acquirer, HandoffOptions, Releaser, open};
use gpu_interop::{BufferDesc, cuda, gl, vulkan};

/// An endpoint of any API.
#[derive(Clone, Debug)]
pub(super) enum AnyEndpoint {
    Vulkan(vulkan::Endpoint),
    Gl(gl::Endpoint),
    Cuda(cuda::Endpoint),
}

/// The releasing end at any API.
#[derive(Debug)]
pub(super) enum AnyReleaser {
    Vulkan(Releaser<vulkan::Endpoint>),
    Gl(Releaser<gl::Endpoint>),
    Cuda(Releaser<cuda::Endpoint>),
}

/// The acquiring end at any API.
#[derive(Debug)]
pub(super) enum AnyAcquirer {
    Vulkan(Acquirer<vulkan::Endpoint>),
    Gl(Acquirer<gl::Endpoint>),
    Cuda(Acquirer<cuda::Endpoint>),
}

impl AnyEndpoint {
    pub(super) fn capabilities(&self, desc: &BufferDesc) -> Result<Capabilities> {
        let desc = (*desc).into();
        Ok(match self {
            Self::Vulkan(endpoint) => endpoint.capabilities(&desc)?,
            Self::Gl(endpoint) => endpoint.capabilities(&desc)?,
            Self::Cuda(endpoint) => endpoint.capabilities(&desc)?,
        })
    }
}

/// Opens a handoff between any two.
pub(super) fn open_any(
    owner: &vulkan::Endpoint,
    from: &AnyEndpoint,
    to: &AnyEndpoint,
    options: HandoffOptions,
) -> Result<(AnyReleaser, AnyAcquirer, SyncPlan)> {
    macro_rules! pairs {
        ($($from:ident $to:ident),*) => {
            match (from, to) {
                $( (AnyEndpoint::$from(from), AnyEndpoint::$to(to)) => {
                    let opened = open(owner, from, to, options)?;
                    let release = AnyReleaser::$from(opened.release);
                    Ok((release, AnyAcquirer::$to(opened.acquire), opened.plan))
                } )*
            }
        };
    }
    pairs!(
        Vulkan Vulkan, Vulkan Gl, Vulkan Cuda,
        Gl Vulkan, Gl Gl, Gl Cuda,
        Cuda Vulkan, Cuda Gl, Cuda Cuda
    )
}

macro_rules! unwrap_end {
    ($any:ident, $end:ident, $($name:ident = $variant:ident: $api:ident),*) => {
        impl $any { $(
            /// The end, which is of this API: the path was built so.
            pub(super) fn $name(self) -> Result<$end<$api::Endpoint>> {
                match self {
                    Self::$variant(end) => Ok(end),
                    other => bail!("{other:?} is of another API"),
                }
            }
        )* }
    };
}
unwrap_end!(AnyReleaser, Releaser, vulkan = Vulkan: vulkan, gl = Gl: gl, cuda = Cuda: cuda);
unwrap_end!(AnyAcquirer, Acquirer, vulkan = Vulkan: vulkan, gl = Gl: gl, cuda = Cuda: cuda);
