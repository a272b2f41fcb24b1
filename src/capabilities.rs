//! What an endpoint can export and import, as data, and how two endpoints negotiate.
//!
//! Export and import, buffers and images, memory and semaphores are queried separately, with the
//! same create info that the resource will be created with. [`plan`], [`plan_all`] and
//! [`plan_handoff`] are pure functions.

#![forbid(unsafe_code)]

use std::fmt;

use crate::desc::ResourceDesc;
use crate::error::{Api, Error, Invalid, Missing, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::identity::Identity;
use crate::payload::SemaphoreKind;

/// `Ok` if it is supported; otherwise what is missing.
pub type Support = std::result::Result<(), Missing>;

/// Whether a resource needs an allocation of its own.
#[doc(alias = "VkMemoryDedicatedRequirements")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dedicated {
    /// It may share an allocation.
    NotNeeded,
    /// An allocation of its own may be faster.
    Preferred,
    /// It can be shared only in an allocation of its own.
    Required,
}

/// Support for memory of one handle type, for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySupport {
    /// The handle type.
    pub handle_type: MemoryHandleType,
    /// Whether the endpoint can export it.
    pub export: Support,
    /// Whether the endpoint can import it.
    pub import: Support,
    /// Whether the resource needs an allocation of its own.
    pub dedicated: Dedicated,
}

/// Support for semaphores of one kind and handle type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreSupport {
    /// Binary or timeline.
    pub kind: SemaphoreKind,
    /// The handle type.
    pub handle_type: SemaphoreHandleType,
    /// Whether the endpoint can export it.
    pub export: Support,
    /// Whether the endpoint can import it.
    pub import: Support,
}

/// What one endpoint can export and import for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The API of the endpoint.
    pub api: Api,
    /// The GPU and the driver of the endpoint; OpenGL may report several.
    pub identities: Vec<Identity>,
    /// The resource that was queried.
    pub desc: ResourceDesc,
    /// One entry per memory handle type.
    pub memory: Vec<MemorySupport>,
    /// One entry per semaphore kind and handle type.
    pub semaphores: Vec<SemaphoreSupport>,
}

/// Returns the result of `support` for each semaphore kind and handle type.
#[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
pub(crate) fn each_semaphore(
    support: impl Fn(SemaphoreKind, SemaphoreHandleType) -> SemaphoreSupport,
) -> Vec<SemaphoreSupport> {
    let handle_types = [SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd];
    let kinds = [SemaphoreKind::Timeline, SemaphoreKind::Binary];
    let support = &support;
    let each = handle_types.into_iter().flat_map(|ty| kinds.map(|kind| support(kind, ty)));
    each.collect()
}

/// Makes a [`Missing`] error part of the result; returns any other error.
#[cfg(any(feature = "gl", feature = "cuda"))]
pub(crate) fn supported<T>(checked: Result<T>) -> Result<Support> {
    match checked {
        Ok(_) => Ok(Ok(())),
        Err(Error::Missing(missing)) => Ok(Err(missing)),
        Err(error) => Err(error),
    }
}

/// How to share a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The handle type that the exporter can export and every importer can import.
    pub handle_type: MemoryHandleType,
    /// Whether the resource gets its own allocation, on all sides.
    pub dedicated: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allocation = if self.dedicated { "dedicated" } else { "shared" };
        write!(f, "{}, {allocation} allocation", self.handle_type)
    }
}

/// The order in which handle types are tried.
pub(crate) const MEMORY_ORDER: [MemoryHandleType; 2] =
    [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf];

/// Plans how `exporter` shares `desc` with `importer`.
///
/// An opaque fd is preferred to a dma-buf.
///
/// # Errors
/// [`Mismatch`](crate::Error::Mismatch) if they are not on the same GPU and driver,
/// [`Missing`](crate::Error::Missing) with the API and what it lacks,
/// [`Invalid`](crate::Error::Invalid) if `desc` is invalid, or if the capabilities are those of
/// another resource.
pub fn plan(exporter: &Capabilities, importer: &Capabilities, desc: &ResourceDesc) -> Result<Plan> {
    plan_all(exporter, std::slice::from_ref(importer), desc)
}

/// Plans how `exporter` shares `desc` with all of `importers`: with one handle type that all of
/// them can import, and with a dedicated allocation if any of them prefers or requires it.
///
/// # Errors
/// Same as [`plan`].
pub fn plan_all(
    exporter: &Capabilities,
    importers: &[Capabilities],
    desc: &ResourceDesc,
) -> Result<Plan> {
    desc.validate()?;
    let sides = importers.iter().map(|importer| ("importer", importer));
    for (side, capabilities) in std::iter::once(("exporter", exporter)).chain(sides) {
        if capabilities.desc != *desc {
            return Err(Invalid::new(side, "has the capabilities of another resource")
                .help("query all endpoints for the resource that is to be shared")
                .into());
        }
    }
    let stranger = importers.iter().find(|importer| {
        let same = |own: &Identity| own.check_same(&importer.identities).is_ok();
        !exporter.identities.iter().any(same)
    });
    let mut lacks = None;
    for handle_type in MEMORY_ORDER {
        if handle_type == MemoryHandleType::OpaqueFd && stranger.is_some() {
            continue;
        }
        match shared_by(exporter, importers, handle_type) {
            Ok(dedicated) => {
                return Ok(Plan { handle_type, dedicated: dedicated > Dedicated::NotNeeded });
            }
            // Report what the preferred handle type lacks.
            Err(missing) => lacks = lacks.or(Some(missing)),
        }
    }
    if let Some(stranger) = stranger {
        exporter.first_identity()?.check_same(&stranger.identities)?;
    }
    Err(lacks.unwrap_or_else(|| exporter.no_handle_type(MemoryHandleType::OpaqueFd)).into())
}

fn shared_by(
    exporter: &Capabilities,
    importers: &[Capabilities],
    handle_type: MemoryHandleType,
) -> std::result::Result<Dedicated, Missing> {
    let from = exporter.memory(handle_type)?;
    from.export.clone()?;
    importers.iter().try_fold(from.dedicated, |dedicated, importer| {
        let to = importer.memory(handle_type)?;
        to.import.clone()?;
        Ok(dedicated.max(to.dedicated))
    })
}

impl Capabilities {
    /// Returns the support for memory of `handle_type`.
    ///
    /// # Errors
    /// [`Missing`] if the endpoint has no entry for that handle type.
    pub fn memory(
        &self,
        handle_type: MemoryHandleType,
    ) -> std::result::Result<&MemorySupport, Missing> {
        let mut entries = self.memory.iter();
        entries
            .find(|entry| entry.handle_type == handle_type)
            .ok_or_else(|| self.no_handle_type(handle_type))
    }

    /// Returns the support for semaphores of `kind` and `handle_type`.
    ///
    /// # Errors
    /// [`Missing`] if the endpoint has no entry for them.
    pub fn semaphore(
        &self,
        kind: SemaphoreKind,
        handle_type: SemaphoreHandleType,
    ) -> std::result::Result<&SemaphoreSupport, Missing> {
        let mut entries = self.semaphores.iter();
        entries.find(|entry| (entry.kind, entry.handle_type) == (kind, handle_type)).ok_or_else(
            || {
                let what = format!("a {kind} as {handle_type}");
                Missing::new(self.api, what, "a handoff on the GPU")
            },
        )
    }

    fn no_handle_type(&self, handle_type: MemoryHandleType) -> Missing {
        Missing::new(self.api, format!("memory as {handle_type}"), "a shared resource")
    }

    fn first_identity(&self) -> Result<&Identity> {
        self.identities.first().ok_or_else(|| {
            Missing::new(self.api, "a device UUID", "checking that both sides use one GPU").into()
        })
    }
}

/// How the acquiring side waits for the releasing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SyncMethod {
    /// A timeline semaphore on the GPU.
    Timeline,
    /// A binary semaphore on the GPU.
    Binary,
    /// The host waits for the releasing side before the acquiring side continues.
    HostWait,
}

impl SyncMethod {
    /// All methods, best first.
    pub const ORDER: [SyncMethod; 3] = [Self::Timeline, Self::Binary, Self::HostWait];

    fn semaphore(self) -> Option<SemaphoreKind> {
        match self {
            Self::Timeline => Some(SemaphoreKind::Timeline),
            Self::Binary => Some(SemaphoreKind::Binary),
            Self::HostWait => None,
        }
    }
}

impl fmt::Display for SyncMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.semaphore() {
            Some(kind) => kind.fmt(f),
            None => f.write_str("host wait"),
        }
    }
}

/// How a handoff is synchronised, and why.
///
/// Prints as `binary semaphore (timeline semaphore: OpenGL lacks ...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPlan {
    /// The chosen method.
    pub method: SyncMethod,
    /// Why each better method was rejected.
    pub rejected: Vec<(SyncMethod, Rejected)>,
}

impl fmt::Display for SyncPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.method.fmt(f)?;
        let same = |a: &(SyncMethod, Rejected), b: &(SyncMethod, Rejected)| a.1 == b.1;
        for (i, group) in self.rejected.chunk_by(same).enumerate() {
            let methods: Vec<_> = group.iter().map(|(method, _)| method.to_string()).collect();
            let (begin, reason) = (if i == 0 { " (" } else { "; " }, &group[0].1);
            write!(f, "{begin}{}: {reason}", methods.join(", "))?;
        }
        if self.rejected.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// Why a method of synchronisation was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// An API lacks something that the method needs.
    Missing(Missing),
    /// The caller asked for another method.
    NotWanted,
    /// The APIs report support for the method, but a semaphore could not be created or imported.
    Failed(Error),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => write!(f, "{missing}"),
            Self::NotWanted => f.write_str("the caller asked for another method"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// Plans how a handoff from `from` to `to` is synchronised, with semaphores that `owner` creates
/// and exports: a timeline semaphore if all support it, otherwise a binary semaphore, otherwise a
/// host wait.
///
/// If `wanted` is given, only that method is considered.
///
/// # Errors
/// [`Missing`](crate::Error::Missing) if `wanted` is not supported.
pub fn plan_handoff(
    owner: &Capabilities,
    from: &Capabilities,
    to: &Capabilities,
    wanted: Option<SyncMethod>,
) -> Result<SyncPlan> {
    plan_handoff_without(owner, from, to, wanted, Vec::new())
}

/// Same as [`plan_handoff`], without the methods that are `rejected` already.
pub(crate) fn plan_handoff_without(
    owner: &Capabilities,
    from: &Capabilities,
    to: &Capabilities,
    wanted: Option<SyncMethod>,
    mut rejected: Vec<(SyncMethod, Rejected)>,
) -> Result<SyncPlan> {
    for method in SyncMethod::ORDER {
        if rejected.iter().any(|(rejected, _)| *rejected == method) {
            continue;
        }
        if wanted.is_some_and(|wanted| wanted != method) {
            rejected.push((method, Rejected::NotWanted));
            continue;
        }
        match can_synchronise(owner, from, to, method) {
            Ok(()) => return Ok(SyncPlan { method, rejected }),
            Err(missing) if wanted.is_some() => return Err(missing.into()),
            Err(missing) => rejected.push((method, Rejected::Missing(missing))),
        }
    }
    // HostWait lacks nothing, so only a method outside ORDER gets here.
    Err(Missing::new(from.api, format!("{wanted:?}"), "a handoff").into())
}

fn can_synchronise(
    owner: &Capabilities,
    from: &Capabilities,
    to: &Capabilities,
    method: SyncMethod,
) -> Support {
    let Some(kind) = method.semaphore() else { return Ok(()) };
    let handle_type = SemaphoreHandleType::OpaqueFd;
    owner.semaphore(kind, handle_type)?.export.clone()?;
    for side in [from, to] {
        side.semaphore(kind, handle_type)?.import.clone()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
