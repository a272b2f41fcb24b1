//! What an endpoint can export and import, as data, and what two endpoints make of it.
//!
//! Export is not import, a buffer is not an image, memory is not a semaphore: each is asked apart,
//! with the very create info the resource will be made with. [`plan`] and [`plan_handoff`] are pure.

#![forbid(unsafe_code)]

use crate::desc::ResourceDesc;
use crate::error::{Api, Invalid, Missing, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::identity::Identity;
use crate::payload::SemaphoreKind;

/// Yes, or what is missing.
pub type Support = std::result::Result<(), Missing>;

/// Whether a resource may, should or must have an allocation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dedicated {
    /// It may share one.
    NotNeeded,
    /// It is faster with its own.
    Preferred,
    /// It can't be shared otherwise.
    Required,
}

/// What can be done with memory of one handle type, for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySupport {
    /// The handle type.
    pub handle_type: MemoryHandleType,
    /// Whether the endpoint exports it.
    pub export: Support,
    /// Whether the endpoint imports it.
    pub import: Support,
    /// Whether the allocation must be the resource's own.
    pub dedicated: Dedicated,
}

/// What can be done with semaphores of one kind and handle type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreSupport {
    /// Binary or timeline.
    pub kind: SemaphoreKind,
    /// The handle type.
    pub handle_type: SemaphoreHandleType,
    /// Whether the endpoint exports it.
    pub export: Support,
    /// Whether the endpoint imports it.
    pub import: Support,
}

/// What one endpoint can do with one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whose capabilities.
    pub api: Api,
    /// The GPU the endpoint is on, as it tells it; OpenGL may tell several.
    pub identities: Vec<Identity>,
    /// The resource they were asked for.
    pub desc: ResourceDesc,
    /// One entry a memory handle type the endpoint was asked about.
    pub memory: Vec<MemorySupport>,
    /// One entry a semaphore kind and handle type the endpoint was asked about.
    pub semaphores: Vec<SemaphoreSupport>,
}

/// How to share a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The handle type that the exporter exports and the importer imports.
    pub handle_type: MemoryHandleType,
    /// Give the resource its own allocation, on both sides.
    pub dedicated: bool,
}

/// The order in which handle types are tried.
const MEMORY_ORDER: [MemoryHandleType; 2] = [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf];

/// How `exporter` shares `desc` with `importer`.
///
/// # Errors
/// [`Mismatch`](crate::Error::Mismatch) where they are not on one GPU and driver,
/// [`Missing`](crate::Error::Missing) that names the API and what it lacks,
/// [`Invalid`](crate::Error::Invalid) where the capabilities were asked for another resource.
pub fn plan(exporter: &Capabilities, importer: &Capabilities, desc: &ResourceDesc) -> Result<Plan> {
    desc.validate()?;
    for (who, capabilities) in [("exporter", exporter), ("importer", importer)] {
        if capabilities.desc != *desc {
            return Err(Invalid::new(who, "its capabilities were asked for another resource")
                .help("ask both endpoints about the resource that is to be shared")
                .into());
        }
    }
    let mut identities = exporter.identities.iter();
    let same = identities.any(|identity| identity.check_same(&importer.identities).is_ok());
    let mut lacks = None;
    for handle_type in MEMORY_ORDER {
        if handle_type == MemoryHandleType::OpaqueFd && !same {
            continue;
        }
        match shared_by(exporter, importer, handle_type) {
            Ok(dedicated) => {
                return Ok(Plan { handle_type, dedicated: dedicated > Dedicated::NotNeeded });
            }
            // The first thing missing is of the handle type that people expect.
            Err(missing) => lacks = lacks.or(Some(missing)),
        }
    }
    if !same {
        exporter.first_identity()?.check_same(&importer.identities)?;
    }
    Err(lacks.unwrap_or_else(|| exporter.no_handle_type(MemoryHandleType::OpaqueFd)).into())
}

fn shared_by(
    exporter: &Capabilities,
    importer: &Capabilities,
    handle_type: MemoryHandleType,
) -> std::result::Result<Dedicated, Missing> {
    let from = exporter.memory(handle_type)?;
    from.export.clone()?;
    let to = importer.memory(handle_type)?;
    to.import.clone()?;
    Ok(from.dedicated.max(to.dedicated))
}

impl Capabilities {
    /// What can be done with memory of `handle_type`.
    ///
    /// # Errors
    /// [`Missing`] where the endpoint knows nothing of that handle type.
    pub fn memory(
        &self,
        handle_type: MemoryHandleType,
    ) -> std::result::Result<&MemorySupport, Missing> {
        let mut entries = self.memory.iter();
        entries
            .find(|entry| entry.handle_type == handle_type)
            .ok_or_else(|| self.no_handle_type(handle_type))
    }

    /// What can be done with semaphores of `kind` and `handle_type`.
    ///
    /// # Errors
    /// [`Missing`] where the endpoint knows nothing of them.
    pub fn semaphore(
        &self,
        kind: SemaphoreKind,
        handle_type: SemaphoreHandleType,
    ) -> std::result::Result<&SemaphoreSupport, Missing> {
        let mut entries = self.semaphores.iter();
        entries.find(|entry| (entry.kind, entry.handle_type) == (kind, handle_type)).ok_or_else(
            || {
                let what = format!("{kind:?} semaphores by {handle_type}").to_lowercase();
                Missing::new(self.api, what, "a handoff on the GPU")
            },
        )
    }

    fn no_handle_type(&self, handle_type: MemoryHandleType) -> Missing {
        Missing::new(self.api, format!("memory by {handle_type}"), "a shared resource")
    }

    fn first_identity(&self) -> Result<&Identity> {
        self.identities.first().ok_or_else(|| {
            Missing::new(self.api, "a device UUID", "knowing which GPU it is on").into()
        })
    }
}

/// How one side knows that the other is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SyncMethod {
    /// A timeline semaphore on the GPU.
    Timeline,
    /// A binary semaphore on the GPU.
    Binary,
    /// The host waits for the releasing side before the acquiring side goes on.
    HostWait,
}

impl SyncMethod {
    /// From best to last resort.
    pub const ORDER: [SyncMethod; 3] = [Self::Timeline, Self::Binary, Self::HostWait];

    fn semaphore(self) -> Option<SemaphoreKind> {
        match self {
            Self::Timeline => Some(SemaphoreKind::Timeline),
            Self::Binary => Some(SemaphoreKind::Binary),
            Self::HostWait => None,
        }
    }
}

/// How a handoff is synchronised, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPlan {
    /// What was chosen.
    pub method: SyncMethod,
    /// Why each better method was not: what it lacks, or that the caller ruled it out.
    pub rejected: Vec<(SyncMethod, Rejected)>,
}

/// Why a method of synchronisation was not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// An API lacks something for it.
    Missing(Missing),
    /// The caller asked for another.
    NotWanted,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(missing) => write!(f, "{missing}"),
            Self::NotWanted => f.write_str("not wanted by the caller"),
        }
    }
}

/// How a handoff from `from` to `to` is synchronised, with semaphores that `owner` makes and
/// exports: a timeline semaphore, else a binary semaphore, else the host waits.
///
/// `wanted` rules out all other methods where it is given.
///
/// # Errors
/// [`Missing`](crate::Error::Missing) where `wanted` can't be done.
pub fn plan_handoff(
    owner: &Capabilities,
    from: &Capabilities,
    to: &Capabilities,
    wanted: Option<SyncMethod>,
) -> Result<SyncPlan> {
    let mut rejected = Vec::new();
    for method in SyncMethod::ORDER {
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
