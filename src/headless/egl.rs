//! EGL without a display server: devices, their displays, surfaceless contexts.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use glutin::api::egl::Egl;
use glutin::api::egl::context::{NotCurrentContext, PossiblyCurrentContext};
use glutin::api::egl::device::Device;
use glutin::api::egl::display::Display;
use glutin::config::{Api as ConfigApi, ConfigSurfaceTypes, ConfigTemplateBuilder};
use glutin::context::{ContextApi, ContextAttributesBuilder, GlProfile, Version};
use glutin::display::{GetDisplayExtensions, GetGlDisplay};
use glutin::prelude::*;

use super::error::{self, OPEN_GL};
use super::instance::InitLock;
use crate::error::{Api, DriverError, Error, Missing, Result};
use crate::identity::Uuid;

/// The versions of core contexts to try, best first. A driver may return a newer one.
const VERSIONS: [(u8, u8); 4] = [(4, 6), (4, 5), (4, 3), (3, 3)];

/// Returns the EGL devices, hardware before software.
pub(super) fn devices() -> Result<Vec<Device>> {
    let mut devices: Vec<_> =
        guarded("eglQueryDevicesEXT", "EGL_EXT_device_enumeration", Device::query_devices)?
            .collect();
    if devices.is_empty() {
        return Err(Missing::new(Api::Egl, "a device", OPEN_GL)
            .help("install an EGL driver, or name its manifest in __EGL_VENDOR_LIBRARY_FILENAMES")
            .into());
    }
    // A stable sort, which keeps the drivers' order within each kind.
    devices.sort_by_key(|device| device.extensions().contains("EGL_MESA_device_software"));
    Ok(devices)
}

/// Returns the initialised display of a device.
///
/// A device has one display per process, and `eglTerminate` ends it for all its users. So each
/// display is opened once and kept for the rest of the process.
pub(super) fn display_of(device: &Device) -> Result<Display> {
    static OPEN: Mutex<Vec<(Device, Display)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, display)) = open.iter().find(|(of, _)| of == device) {
        return Ok(display.clone());
    }
    let display = guarded("eglInitialize", "EGL_EXT_platform_device", || {
        // SAFETY: no raw display handle is passed, which would have to be valid.
        unsafe { Display::with_device(device, None) }
    })?;
    open.push((device.clone(), display.clone()));
    Ok(display)
}

/// Creates a surfaceless core context, which shares its objects with `shared`.
pub(super) fn create_context(
    display: &Display,
    shared: Option<&Context>,
) -> Result<NotCurrentContext> {
    if !display.extensions().contains("EGL_KHR_surfaceless_context") {
        return Err(error::missing_in_egl("EGL_KHR_surfaceless_context"));
    }
    // There are no EGL surfaces to render to, so any config for OpenGL is suitable.
    let template = ConfigTemplateBuilder::new()
        .with_api(ConfigApi::OPENGL)
        .with_surface_type(ConfigSurfaceTypes::empty())
        .with_alpha_size(0)
        .with_depth_size(0)
        .with_stencil_size(0)
        .build();
    // SAFETY: the template names no native window, which would have to be valid.
    let configs = unsafe { display.find_configs(template) };
    let config = configs
        .map_err(error::egl("eglChooseConfig", "a config for OpenGL"))?
        .next()
        .ok_or_else(|| error::missing_in_egl("a config for OpenGL"))?;
    let mut refusal = None;
    for (major, minor) in VERSIONS {
        let mut attributes = ContextAttributesBuilder::new()
            .with_context_api(ContextApi::OpenGl(Some(Version::new(major, minor))))
            .with_profile(GlProfile::Core);
        if let Some(shared) = shared.and_then(|shared| shared.egl.as_ref()) {
            attributes = attributes.with_sharing(shared);
        }
        let attributes = attributes.build(None);
        let context = guarded("eglCreateContext", "OpenGL", || {
            // SAFETY: the attributes name no native window, and only a context that lives to share
            // with.
            unsafe { display.create_context(&config, &attributes) }
        });
        match context {
            Ok(context) => return Ok(context),
            Err(error) => refusal = Some(error),
        }
    }
    let (major, minor) = VERSIONS[VERSIONS.len() - 1];
    let mut missing = Missing::new(Api::OpenGl, format!("OpenGL {major}.{minor}"), OPEN_GL);
    if let Some(refusal) = refusal {
        missing =
            missing.help(format!("update the driver, which refuses such a context: {refusal}"));
    }
    Err(missing.into())
}

/// Returns the UUID of a device if EGL reports it without a context
/// (`EGL_EXT_device_persistent_id`). It only determines which device to try first; the UUID that
/// OpenGL reports is what counts.
pub(super) fn device_uuid(device: &Device) -> Option<Uuid> {
    /// `EGL_DEVICE_UUID_EXT`.
    const DEVICE_UUID: i32 = 0x335C;
    type QueryDeviceBinary =
        unsafe extern "system" fn(*const c_void, i32, i32, *mut c_void, *mut i32) -> u32;
    if !device.extensions().contains("EGL_EXT_device_persistent_id") {
        return None;
    }
    let address = display_of(device).ok()?.get_proc_address(c"eglQueryDeviceBinaryEXT");
    if address.is_null() {
        return None;
    }
    // SAFETY: this is the function's signature, and the device has the extension it belongs to.
    let query = unsafe { std::mem::transmute::<*const c_void, QueryDeviceBinary>(address) };
    let mut bytes = [0u8; 16];
    let mut size = 0;
    // SAFETY: EGL devices are valid for the rest of the process; at most 16 bytes are written to
    // `bytes`, and their number to `size`.
    let found = unsafe {
        query(device.raw_device(), DEVICE_UUID, 16, bytes.as_mut_ptr().cast(), &mut size)
    };
    (found != 0 && size == 16).then_some(Uuid::from_bytes(bytes))
}

/// A context that is current on one thread or on none.
pub(super) struct Context {
    // `drop` takes it out, since it releases the thread afterwards.
    egl: Option<PossiblyCurrentContext>,
}

// SAFETY: a handle of EGL, whose functions may be called on any thread. glutin ties it to the
// thread on which it is current; EGL refuses to make it current on a second one.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Makes a new context current, instead of any other.
    pub(super) fn make_current_first(context: NotCurrentContext) -> Result<Self> {
        let egl = context.make_current_surfaceless().map_err(not_made_current)?;
        Ok(Self { egl: Some(egl) })
    }

    pub(super) fn make_current(&self) -> Result<()> {
        let mut context = self.egl.iter();
        context.try_for_each(|egl| egl.make_current_surfaceless()).map_err(not_made_current)
    }

    pub(super) fn is_current(&self) -> bool {
        self.egl.iter().any(|egl| egl.is_current())
    }

    /// Makes no context current if this one is.
    pub(super) fn release_current(&self) -> Result<()> {
        let mut current = self.egl.iter().filter(|egl| egl.is_current());
        current.try_for_each(|egl| egl.make_not_current_in_place()).map_err(not_made_current)
    }
}

impl Drop for Context {
    /// Destroys the context, and releases the thread from EGL unless another context is current on
    /// it.
    ///
    /// A destroyed context must not stay current. And NVIDIA's EGL (580.159) has a deadlock: when a
    /// thread ends, EGL clears its data under a lock. `vkDestroyDevice` on another thread holds
    /// that lock while it waits for a thread of its own, which waits for the first. That happened
    /// in most runs of a few seconds. After `eglReleaseThread`, called under the [`InitLock`], no
    /// data is left to clear.
    fn drop(&mut self) {
        let _lock = InitLock::take();
        let Some(context) = self.egl.take() else { return };
        let current = Current::remember(&context.display());
        if current.is_some() && !context.is_current() {
            return;
        }
        // libglvnd forwards eglReleaseThread only if a context is current.
        if let Err(error) = context.make_current_surfaceless() {
            tracing::error!(%error, "an OpenGL context could not be made current to release it");
        }
        // A context that is destroyed while it is current lives until it is released.
        drop(context);
        current.release_thread();
    }
}

fn not_made_current(error: glutin::error::Error) -> Error {
    error::egl("eglMakeCurrent", "EGL_KHR_surfaceless_context")(error)
}

/// The context that is current on this thread, whichever library created it, and the bound API.
pub(super) struct Current {
    egl: &'static Egl,
    api: u32,
    display: *const c_void,
    draw: *const c_void,
    read: *const c_void,
    context: *const c_void,
}

impl Current {
    /// Reads the thread's state.
    pub(super) fn remember(display: &Display) -> Self {
        /// `EGL_DRAW` and `EGL_READ`.
        const DRAW_AND_READ: [i32; 2] = [0x3059, 0x305A];
        let egl = display.egl();
        // SAFETY: these calls only read the thread's state; EGL is loaded for the whole process.
        unsafe {
            let [draw, read] = DRAW_AND_READ.map(|which| egl.GetCurrentSurface(which));
            Self {
                egl,
                api: egl.QueryAPI(),
                display: egl.GetCurrentDisplay(),
                draw,
                read,
                context: egl.GetCurrentContext(),
            }
        }
    }

    /// Returns whether a context is current.
    fn is_some(&self) -> bool {
        !self.context.is_null()
    }

    /// Makes no context current and resets EGL's state of this thread, except the bound API.
    fn release_thread(self) {
        // SAFETY: both calls change this thread's state only. No other code's context is current:
        // the caller made its own context current or found none.
        let released = unsafe {
            let released = self.egl.ReleaseThread();
            self.egl.BindAPI(self.api);
            released
        };
        if released == 0 {
            tracing::error!("EGL did not release the thread of an OpenGL context");
        }
    }

    /// Makes the context current again and binds its API.
    pub(super) fn restore(self) {
        // SAFETY: the handles were current on this thread; if one is no longer valid, the call
        // fails and changes nothing.
        let restored = unsafe {
            self.egl.BindAPI(self.api);
            !self.is_some()
                || self.egl.MakeCurrent(self.display, self.draw, self.read, self.context) != 0
        };
        if !restored {
            tracing::error!("the OpenGL context that was current before could not be restored");
        }
    }
}

/// Calls glutin, which panics if EGL fails and `eglGetError` returns no error.
fn guarded<T>(
    call: &'static str,
    needs: &'static str,
    egl: impl FnOnce() -> glutin::error::Result<T>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(egl)) {
        Ok(result) => result.map_err(error::egl(call, needs)),
        Err(_) => Err(DriverError::new(Api::Egl, call, 0, "no reason given by eglGetError").into()),
    }
}
