//! External semaphores, binary and timeline.

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use super::conv;
use super::endpoint::{Endpoint, Shared, missing_timeline};
use super::error::VkResultExt;
use super::fence::nanoseconds;
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Result};
use crate::fd;
use crate::fd::{SemaphoreHandleType, transfer_duplicate};
use crate::payload::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

/// A semaphore that is shared with another API, device or process. Cheap to clone.
///
/// Dropping the last clone destroys the `VkSemaphore`; whoever submits work that uses it keeps it
/// until that work is done.
#[derive(Clone)]
pub struct Semaphore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    handle: vk::Semaphore,
    kind: SemaphoreKind,
    /// How it can be exported; an imported one can't.
    exportable: Option<SemaphoreHandleType>,
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
        // SAFETY: created by this library, owned here alone, and not in use by submitted work: that
        // is promised with every submit (VUID-vkDestroySemaphore-semaphore-05149).
        unsafe { self.shared.device.destroy_semaphore(self.handle, None) };
    }
}

impl Endpoint {
    /// Creates a semaphore that can be exported as an opaque fd. A timeline semaphore starts at 0.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) where the driver can't export such a semaphore.
    ///
    /// # References
    /// `VkExportSemaphoreCreateInfo`, `VkSemaphoreTypeCreateInfo`.
    pub fn create_semaphore(&self, kind: SemaphoreKind) -> Result<Semaphore> {
        let handle_type = SemaphoreHandleType::OpaqueFd;
        self.shared.semaphore_support(kind, handle_type).export?;
        self.shared.create_semaphore(kind, Some(handle_type))
    }

    /// Imports a semaphore, permanently.
    ///
    /// The payload is consumed; on failure it comes back, its descriptor still open.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for another GPU or driver, [`Invalid`] for a descriptor
    /// that is no semaphore or a timeline semaphore as sync fd,
    /// [`Missing`](crate::Error::Missing) where the driver can't import such a semaphore,
    /// [`Driver`](crate::Error::Driver) where it refuses.
    ///
    /// # References
    /// `VkImportSemaphoreFdInfoKHR`.
    #[doc(alias = "vkImportSemaphoreFdKHR")]
    pub fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore, SemaphorePayload> {
        match self.try_import_semaphore(&payload) {
            Ok(semaphore) => Ok(semaphore),
            Err(error) => Err(ImportError::new(payload, error)),
        }
    }

    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        payload.check(self.identities())?;
        let SemaphoreInfo { kind, handle_type, .. } = *payload.info();
        self.shared.semaphore_support(kind, handle_type).import?;
        self.shared.workarounds.check_semaphore_fd(handle_type, payload.as_fd())?;
        let semaphore = self.shared.create_semaphore(kind, None)?;
        let functions = self.shared.semaphore_fd()?;
        // A sync fd can only be imported temporarily (VUID-VkImportSemaphoreFdInfoKHR-handleType-07307).
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
            // open. As far as the payload tells, it is of this GPU and driver, and the semaphore of
            // its kind: nobody can ask an opaque fd, so both are the exporter's word
            // (`SemaphorePayload::new`).
            unsafe { functions.import_semaphore_fd(&info) }.of("vkImportSemaphoreFdKHR")
        })?;
        Ok(semaphore)
    }
}

impl Shared {
    pub(crate) fn create_semaphore(
        self: &Arc<Self>,
        kind: SemaphoreKind,
        exportable: Option<SemaphoreHandleType>,
    ) -> Result<Semaphore> {
        let mut ty =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(conv::semaphore_type(kind));
        let mut export = vk::ExportSemaphoreCreateInfo::default();
        let mut info = vk::SemaphoreCreateInfo::default();
        if kind == SemaphoreKind::Timeline {
            if self.timeline.is_none() {
                return Err(missing_timeline().into());
            }
            info = info.push_next(&mut ty);
        }
        if let Some(handle_type) = exportable {
            export = export.handle_types(conv::semaphore_handle_type(handle_type));
            info = info.push_next(&mut export);
        }
        // SAFETY: the timeline structure is chained only where the feature is enabled, the export
        // structure only for a handle type that was found to be exportable.
        let handle =
            unsafe { self.device.create_semaphore(&info, None) }.of("vkCreateSemaphore")?;
        Ok(Semaphore { inner: Arc::new(Inner { shared: self.clone(), handle, kind, exportable }) })
    }
}

impl Semaphore {
    /// The Vulkan handle, owned by this object.
    pub fn handle(&self) -> vk::Semaphore {
        self.inner.handle
    }

    /// Binary or timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.inner.kind
    }

    /// Whether this semaphore is of `endpoint`'s device.
    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.device() == endpoint.shared.device.handle()
    }

    pub(crate) fn device(&self) -> vk::Device {
        self.inner.shared.device.handle()
    }

    /// Exports the semaphore: a new descriptor each time, with FD_CLOEXEC.
    ///
    /// # Errors
    /// [`Invalid`] for an imported semaphore: use [`SemaphorePayload::try_clone`] before the import
    /// instead. [`Driver`](crate::Error::Driver) where the driver refuses.
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
        let raw = unsafe { inner.shared.semaphore_fd()?.get_semaphore_fd(&get) }
            .of("vkGetSemaphoreFdKHR")?;
        // Of a sync fd, which is never exported here, -1 would mean that it is signalled already.
        let raw = fd::check_descriptor(Api::Vulkan, "vkGetSemaphoreFdKHR", raw)?;
        // SAFETY: the call returned success, so `raw` is a new descriptor that the application
        // owns (vkGetSemaphoreFdKHR).
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let info = SemaphoreInfo {
            handle_type,
            kind: inner.kind,
            identity: inner.shared.identity().clone(),
        };
        Ok(SemaphorePayload::new(fd::close_on_exec(fd)?, info)?)
    }

    /// The present value of a timeline semaphore.
    ///
    /// # Errors
    /// [`Invalid`] for a binary semaphore.
    ///
    /// # References
    /// `vkGetSemaphoreCounterValue`.
    pub fn value(&self) -> Result<u64> {
        self.check_timeline()?;
        // SAFETY: the semaphore is alive, of this device, and a timeline.
        unsafe { self.inner.shared.timeline_value(self.inner.handle) }
    }

    /// Waits on the host until a timeline semaphore reaches `value`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `timeout`; [`Invalid`] for a binary semaphore.
    ///
    /// # References
    /// `vkWaitSemaphores`.
    pub fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        self.check_timeline()?;
        let (shared, handle) = (&self.inner.shared, self.inner.handle);
        // SAFETY: as above.
        if unsafe { shared.timeline_wait(handle, value, nanoseconds(timeout)) }? {
            return Ok(());
        }
        let what = format!("timeline value {value} (vkWaitSemaphores)").into();
        Err(Error::Timeout { what, waited: timeout })
    }

    /// Sets a timeline semaphore to `value` from the host.
    ///
    /// # Safety
    /// `value` is less than that of any signal that is submitted and pending, here or in any API
    /// that shares the semaphore (VUID-VkSemaphoreSignalInfo-value-03259).
    ///
    /// # Errors
    /// [`Invalid`] for a binary semaphore or a value that is not greater than the present one.
    ///
    /// # References
    /// `vkSignalSemaphore`.
    pub unsafe fn signal(&self, value: u64) -> Result<()> {
        let now = self.value()?;
        if value <= now {
            let what = format!("{value} is not greater than the present {now}");
            return Err(Invalid::new("value", what)
                .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
                .into());
        }
        // SAFETY: the semaphore is alive, of this device and a timeline; the value is greater than
        // the present one, and the caller promises the other bound.
        unsafe { self.inner.shared.timeline_signal(self.inner.handle, value) }
    }

    fn check_timeline(&self) -> Result<()> {
        if self.inner.kind == SemaphoreKind::Timeline {
            return Ok(());
        }
        Err(Invalid::new("semaphore", "is binary; only timeline semaphores have a value").into())
    }
}
