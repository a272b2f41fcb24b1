//! External semaphores, binary and timeline.

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use super::conv::{self, VkResultExt, nanoseconds};
use super::endpoint::{Endpoint, TimelineFns};
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Result};
use crate::fd::{self, SemaphoreHandleType, transfer_duplicate};
use crate::payload::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

/// A semaphore that is shared with another API, device or process. Cheap to clone.
///
/// Dropping the last clone destroys the `VkSemaphore`. A submit by
/// [`SubmitSync`](super::SubmitSync) keeps a clone until its work is done.
#[derive(Clone)]
pub struct Semaphore {
    inner: Arc<Inner>,
}

struct Inner {
    handle: vk::Semaphore,
    kind: SemaphoreKind,
    /// The handle type for export; `None` for an imported semaphore.
    exportable: Option<SemaphoreHandleType>,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("handle", &self.inner.handle)
            .field("kind", &self.inner.kind)
            .field("exportable", &self.inner.exportable)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: this library created the handle, and this structure is its only owner. The
        // endpoint keeps what a submit waits for and signals until the work is done
        // (VUID-vkDestroySemaphore-semaphore-05149); the caller promises the same for other
        // submits.
        unsafe { self.endpoint.device().destroy_semaphore(self.handle, None) };
    }
}

impl Endpoint {
    /// Creates a semaphore that can be exported as an opaque fd. A timeline semaphore starts at 0.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) if the driver can't export such a semaphore.
    ///
    /// # References
    /// `VkExportSemaphoreCreateInfo`, `VkSemaphoreTypeCreateInfo`.
    #[doc(alias = "vkCreateSemaphore")]
    pub fn create_semaphore(&self, kind: SemaphoreKind) -> Result<Semaphore> {
        let handle_type = SemaphoreHandleType::OpaqueFd;
        self.semaphore_support(kind, handle_type).export?;
        self.create_raw_semaphore(kind, Some(handle_type))
    }

    /// Creates a timeline semaphore for this device alone. It starts at 0.
    pub(super) fn create_private_timeline(&self) -> Result<Semaphore> {
        self.create_raw_semaphore(SemaphoreKind::Timeline, None)
    }

    /// Imports a semaphore, permanently.
    ///
    /// The payload is consumed; on failure it is returned, its descriptor still open.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a payload from another GPU or driver, [`Invalid`]
    /// for a descriptor that isn't a semaphore and for a timeline semaphore as a sync fd,
    /// [`Missing`](crate::Error::Missing) if the driver can't import such a semaphore,
    /// [`Driver`](crate::Error::Driver) if the driver rejects this one.
    ///
    /// # References
    /// `VkImportSemaphoreFdInfoKHR`.
    #[doc(alias = "vkImportSemaphoreFdKHR")]
    pub fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore, SemaphorePayload> {
        self.try_import_semaphore(&payload).map_err(|error| ImportError::new(payload, error))
    }

    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        payload.check(self.identities())?;
        let SemaphoreInfo { kind, handle_type, .. } = *payload.info();
        self.semaphore_support(kind, handle_type).import?;
        self.workarounds().check_semaphore_fd(handle_type, payload.as_fd())?;
        let semaphore = self.create_raw_semaphore(kind, None)?;
        let functions = self.semaphore_fd()?;
        // A sync fd can only be imported temporarily
        // (VUID-VkImportSemaphoreFdInfoKHR-handleType-07307).
        let flags = match handle_type {
            SemaphoreHandleType::OpaqueFd => vk::SemaphoreImportFlags::empty(),
            SemaphoreHandleType::SyncFd => vk::SemaphoreImportFlags::TEMPORARY,
        };
        transfer_duplicate(payload, |raw| {
            let info = vk::ImportSemaphoreFdInfoKHR::default()
                .semaphore(semaphore.inner.handle)
                .handle_type(conv::semaphore_handle_type(handle_type))
                .flags(flags)
                .fd(raw);
            // SAFETY: the extension is enabled; the semaphore is new and idle; the descriptor is
            // open. According to the payload, it is from this GPU and driver, and the semaphore of
            // its kind. No call can verify that for an opaque fd; the import rests on the exporter
            // (`SemaphorePayload::new`).
            unsafe { functions.import_semaphore_fd(&info) }.context("vkImportSemaphoreFdKHR")
        })?;
        Ok(semaphore)
    }

    fn create_raw_semaphore(
        &self,
        kind: SemaphoreKind,
        exportable: Option<SemaphoreHandleType>,
    ) -> Result<Semaphore> {
        let mut ty =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(conv::semaphore_type(kind));
        let mut export = vk::ExportSemaphoreCreateInfo::default();
        let mut info = vk::SemaphoreCreateInfo::default();
        if kind == SemaphoreKind::Timeline {
            self.timeline()?;
            info = info.push_next(&mut ty);
        }
        if let Some(handle_type) = exportable {
            export = export.handle_types(conv::semaphore_handle_type(handle_type));
            info = info.push_next(&mut export);
        }
        // SAFETY: the timeline structure is chained only if the feature is enabled, the export
        // structure only for a handle type that was found to be exportable.
        let handle =
            unsafe { self.device().create_semaphore(&info, None) }.context("vkCreateSemaphore")?;
        let endpoint = self.for_object();
        Ok(Semaphore { inner: Arc::new(Inner { handle, kind, exportable, endpoint }) })
    }
}

impl Semaphore {
    /// Returns the Vulkan handle, which this object owns.
    pub fn handle(&self) -> vk::Semaphore {
        self.inner.handle
    }

    /// Returns whether the semaphore is binary or timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.inner.kind
    }

    /// Returns whether this semaphore belongs to `endpoint`'s device.
    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.endpoint().is_same_device(endpoint)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Exports the semaphore: a new descriptor each time, with FD_CLOEXEC.
    ///
    /// # Errors
    /// [`Invalid`] for an imported semaphore: use [`SemaphorePayload::try_clone`] before the import
    /// instead. [`Driver`](crate::Error::Driver) if the call fails.
    ///
    /// # References
    /// `vkGetSemaphoreFdKHR`; VUID-VkSemaphoreGetFdInfoKHR-handleType-01132.
    #[doc(alias = "vkGetSemaphoreFdKHR")]
    pub fn export(&self) -> Result<SemaphorePayload> {
        let inner = &*self.inner;
        let Some(handle_type) = inner.exportable else {
            return Err(Invalid::new("semaphore", "was imported, not created for export")
                .vuid("VUID-VkSemaphoreGetFdInfoKHR-handleType-01132")
                .help("duplicate the payload with try_clone before it is imported")
                .into());
        };
        let get = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(inner.handle)
            .handle_type(conv::semaphore_handle_type(handle_type));
        // SAFETY: the semaphore is alive and was created with this handle type for export.
        let raw = unsafe { inner.endpoint.semaphore_fd()?.get_semaphore_fd(&get) }
            .context("vkGetSemaphoreFdKHR")?;
        // For a sync fd, which is never exported here, -1 would mean that it is signalled already.
        let raw = fd::check_descriptor(Api::Vulkan, "vkGetSemaphoreFdKHR", raw)?;
        // SAFETY: the call returned success, so `raw` is a new descriptor that the application
        // owns (vkGetSemaphoreFdKHR).
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let info = SemaphoreInfo {
            handle_type,
            kind: inner.kind,
            identity: inner.endpoint.identity().clone(),
        };
        Ok(SemaphorePayload::new(fd::close_on_exec(fd)?, info)?)
    }

    /// Returns the current value of a timeline semaphore.
    ///
    /// # Errors
    /// [`Invalid`] for a binary semaphore; [`Driver`](crate::Error::Driver) if the device is lost.
    ///
    /// # References
    /// `vkGetSemaphoreCounterValue`.
    #[doc(alias = "vkGetSemaphoreCounterValue")]
    pub fn value(&self) -> Result<u64> {
        let (functions, device) = self.timeline()?;
        // SAFETY: the semaphore is alive, of this device, and a timeline.
        let value = unsafe {
            match functions {
                TimelineFns::Core => device.get_semaphore_counter_value(self.handle()),
                TimelineFns::Khr(khr) => khr.get_semaphore_counter_value(self.handle()),
            }
        };
        value.context("vkGetSemaphoreCounterValue")
    }

    /// Waits on the host until a timeline semaphore reaches `value`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `timeout`; [`Invalid`] for a binary semaphore;
    /// [`Driver`](crate::Error::Driver) if the device is lost.
    ///
    /// # References
    /// `vkWaitSemaphores`.
    #[doc(alias = "vkWaitSemaphores")]
    pub fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        let (functions, device) = self.timeline()?;
        let (semaphores, values) = ([self.handle()], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is alive, of this device, and a timeline; both arrays have one
        // element and outlive the call.
        let waited = unsafe {
            match functions {
                TimelineFns::Core => device.wait_semaphores(&info, nanoseconds(timeout)),
                TimelineFns::Khr(khr) => khr.wait_semaphores(&info, nanoseconds(timeout)),
            }
        };
        if waited == Err(vk::Result::TIMEOUT) {
            let what = format!("timeline value {value} (vkWaitSemaphores)").into();
            return Err(Error::Timeout { what, waited: timeout });
        }
        waited.context("vkWaitSemaphores")
    }

    /// Sets a timeline semaphore to `value` from the host.
    ///
    /// # Safety
    /// `value` is less than the value of every pending signal, here and in each API that shares the
    /// semaphore (VUID-VkSemaphoreSignalInfo-value-03259).
    ///
    /// # Errors
    /// [`Invalid`] for a binary semaphore, or for a value that is not greater than the current one;
    /// [`Driver`](crate::Error::Driver) if the device is lost.
    ///
    /// # References
    /// `vkSignalSemaphore`.
    #[doc(alias = "vkSignalSemaphore")]
    pub unsafe fn signal(&self, value: u64) -> Result<()> {
        let now = self.value()?;
        if value <= now {
            let problem = format!("{value} is not greater than the current value {now}");
            return Err(Invalid::new("value", problem)
                .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
                .into());
        }
        let (functions, device) = self.timeline()?;
        let info = vk::SemaphoreSignalInfo::default().semaphore(self.handle()).value(value);
        // SAFETY: the semaphore is alive, of this device and a timeline; the value is greater than
        // the current one, and the caller promises the other bound.
        let signalled = unsafe {
            match functions {
                TimelineFns::Core => device.signal_semaphore(&info),
                TimelineFns::Khr(khr) => khr.signal_semaphore(&info),
            }
        };
        signalled.context("vkSignalSemaphore")
    }

    /// The functions for timeline semaphores; rejects a binary one.
    fn timeline(&self) -> Result<(&TimelineFns, &ash::Device)> {
        if self.kind() != SemaphoreKind::Timeline {
            let problem = "is binary; only timeline semaphores have a value";
            return Err(Invalid::new("semaphore", problem).into());
        }
        Ok((self.endpoint().timeline()?, self.endpoint().device()))
    }
}

/// A semaphore to wait for.
#[derive(Clone)]
pub struct SemaphoreWait {
    /// The semaphore.
    pub semaphore: Semaphore,
    /// The value to wait for; `None` for a binary semaphore.
    pub value: Option<u64>,
    /// The stages that wait.
    pub stage: vk::PipelineStageFlags,
}

impl fmt::Debug for SemaphoreWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreWait")
            .field("semaphore", &self.semaphore)
            .field("value", &self.value)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .finish()
    }
}

/// A semaphore to signal.
#[derive(Clone, Debug)]
pub struct SemaphoreSignal {
    /// The semaphore.
    pub semaphore: Semaphore,
    /// The value to set; `None` for a binary semaphore.
    pub value: Option<u64>,
}
