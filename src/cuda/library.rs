//! libcuda: whether it is installed and complete, the GPUs that it finds, and its result codes as
//! this crate's errors.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use cudarc::driver::{CudaContext, CudaStream, DriverError as CudarcError, sys};

use crate::error::{Api, DriverError, Error, Missing, Result, Text};
use crate::fd::explain;
use crate::identity::{Identity, Uuid};

/// Every function of libcuda that this peer calls, itself or through cudarc, and those with which
/// cudarc opens a context.
///
/// cudarc looks a function up when it is first called, and panics if libcuda lacks it. Here they
/// are looked up together, before the first call. The newest is from CUDA 11.4.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuCtxSynchronize",
    "cuCtxGetDevice",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamIsCapturing",
    "cuThreadExchangeStreamCaptureMode",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventDestroy_v2",
    "cuImportExternalMemory",
    "cuExternalMemoryGetMappedBuffer",
    "cuMemFree_v2",
    "cuExternalMemoryGetMappedMipmappedArray",
    "cuMipmappedArrayGetLevel",
    "cuMipmappedArrayDestroy",
    "cuTexObjectCreate",
    "cuTexObjectDestroy",
    "cuSurfObjectCreate",
    "cuSurfObjectDestroy",
    "cuDestroyExternalMemory",
    "cuImportExternalSemaphore",
    "cuWaitExternalSemaphoresAsync",
    "cuSignalExternalSemaphoresAsync",
    "cuDestroyExternalSemaphore",
    "cuGraphAddExternalSemaphoresWaitNode",
    "cuGraphAddExternalSemaphoresSignalNode",
    "cuGraphExecExternalSemaphoresWaitNodeSetParams",
    "cuGraphExecExternalSemaphoresSignalNodeSetParams",
    "cuUserObjectCreate",
    "cuUserObjectRelease",
    "cuGraphRetainUserObject",
    "cuMemcpy3DAsync_v2",
    "cuMemGetAllocationGranularity",
    "cuMemGetAllocationPropertiesFromHandle",
    "cuMemRetainAllocationHandle",
    "cuMemCreate",
    "cuMemAddressReserve",
    "cuMemMap",
    "cuMemSetAccess",
    "cuMemExportToShareableHandle",
    "cuMemUnmap",
    "cuMemAddressFree",
    "cuMemRelease",
    "cuLinkCreate_v2",
    "cuLinkAddData_v2",
    "cuLinkComplete",
    "cuLinkDestroy",
];

/// Returns whether CUDA can be used: whether libcuda is installed, is new enough and finds a GPU.
///
/// [`require`] returns what is missing.
pub fn is_available() -> bool {
    require().is_ok()
}

/// Checks that libcuda is installed and new enough, and initialises it.
///
/// Never panics, unlike cudarc's own functions, which may be called once this has returned `Ok`.
/// (Functions newer than CUDA 11.4 still panic in cudarc if libcuda lacks them.)
///
/// # Errors
/// [`Missing`] if libcuda, one of its functions or a GPU is missing, or if libcuda does not match
/// this machine (`CUDA_ERROR_NO_DEVICE`, `CUDA_ERROR_STUB_LIBRARY`,
/// `CUDA_ERROR_SYSTEM_DRIVER_MISMATCH`, `CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE`);
/// [`Error::Driver`] if it can't be initialised for another reason.
///
/// # References
/// `cuInit`.
#[doc(alias = "cuInit")]
pub fn require() -> Result<()> {
    // Once found, libcuda stays loaded; if it is missing, it is not searched for again.
    static LIBRARY: OnceLock<Result<(), Missing>> = OnceLock::new();
    LIBRARY.get_or_init(find_library).clone().map_err(|missing| {
        let hidden = hiding().filter(|visible| ["", "-1"].contains(&visible.as_str()));
        hidden.map_or(missing.clone(), |visible| no_device(&visible, &missing.to_string()))
    })?;
    // SAFETY: libcuda is loaded and has cuInit. It may be called again and from any thread.
    initialised(unsafe { sys::cuInit(0) })
}

/// Returns the value of `CUDA_VISIBLE_DEVICES`, if it is set.
fn hiding() -> Option<String> {
    std::env::var_os("CUDA_VISIBLE_DEVICES").map(|value| value.to_string_lossy().into_owned())
}

/// Returns the error for `CUDA_VISIBLE_DEVICES` being set and CUDA finding no GPU.
fn no_device(visible: &str, reason: &str) -> Missing {
    Missing::new(Api::Cuda, "a visible device", "any use of CUDA").help(format!(
        "CUDA_VISIBLE_DEVICES is \"{visible}\", which hides every GPU: unset it, or list GPUs that this \
         machine has ({reason})"
    ))
}

/// Converts the result of `cuInit`: codes that report an absent GPU or library become [`Missing`].
fn initialised(result: sys::CUresult) -> Result<()> {
    let (what, help) = match result {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            if let Some(visible) = hiding() {
                return Err(no_device(&visible, "CUDA_ERROR_NO_DEVICE").into());
            }
            (
                "a visible device",
                "check that NVIDIA's kernel module is loaded, and that the container has the GPU's \
                 device files (CUDA_ERROR_NO_DEVICE)",
            )
        }
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => (
            "a driver's libcuda.so.1",
            "the one found is the toolkit's stub, which is for linking only: remove its directory \
             from LD_LIBRARY_PATH (CUDA_ERROR_STUB_LIBRARY)",
        ),
        sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => (
            "a libcuda.so.1 with the kernel module's version",
            "restart after an update of NVIDIA's driver; in a container, mount the host's libcuda \
             (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
        ),
        sys::CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => (
            "a libcuda.so.1 that supports the GPU",
            "the one found is from the forward compatibility package, which doesn't support this GPU: \
             use the driver's own (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
        ),
        other => return check("cuInit", other),
    };
    Err(Missing::new(Api::Cuda, what, "any use of CUDA").help(help).into())
}

fn find_library() -> Result<(), Missing> {
    // SAFETY: searches for libcuda as dlopen does. Its initialisers run; they are the driver's own
    // and do not touch this program's state.
    if !unsafe { sys::is_culib_present() } {
        return Err(Missing::new(Api::Cuda, "libcuda.so.1", "any use of CUDA")
            .help("install NVIDIA's driver with its CUDA part (Debian: libcuda1)"));
    }
    // SAFETY: as above. It was found just now, so this doesn't panic.
    let library = unsafe { sys::culib() };
    for &function in FUNCTIONS {
        // SAFETY: the symbol is looked up and never called through this type.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(function.as_bytes()) };
        if found.is_err() {
            return Err(Missing::new(Api::Cuda, function, "the CUDA peer")
                .help("update NVIDIA's driver to CUDA 11.4 (driver 470) or newer"));
        }
    }
    Ok(())
}

/// A GPU that CUDA can use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The index, for `CudaContext::new` only. It depends on `CUDA_VISIBLE_DEVICES` and on CUDA's
    /// order of devices: select GPUs by UUID.
    pub ordinal: usize,
    /// The GPU. CUDA has no driver UUID.
    pub identity: Identity,
}

/// Returns the GPUs that CUDA can use, to select one by its UUID and open it by its ordinal.
///
/// This creates no context. A GPU in MIG mode is listed as one of its instances, with the
/// instance's UUID, which no graphics API reports.
///
/// # Errors
/// Same as [`require`].
///
/// # References
/// `cuDeviceGetCount`, `cuDeviceGetUuid_v2`, `cuDeviceGetName`.
#[doc(alias = "cuDeviceGetCount")]
#[doc(alias = "cuDeviceGetUuid_v2")]
pub fn devices() -> Result<Vec<Device>> {
    require()?;
    let mut count: c_int = 0;
    // SAFETY: libcuda is initialised and `count` is writable.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
    (0..count)
        .map(|index| {
            let mut device: sys::CUdevice = 0;
            // SAFETY: as above, and the ordinal is below the count.
            check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, index) })?;
            let ordinal = usize::try_from(index).unwrap_or(0);
            Ok(Device { ordinal, identity: identity(device)? })
        })
        .collect()
}

/// Returns the identity of `device`. libcuda must be initialised; an invalid number is a driver
/// error.
pub(crate) fn identity(device: sys::CUdevice) -> Result<Identity> {
    let mut uuid = MaybeUninit::<sys::CUuuid>::zeroed();
    // SAFETY: libcuda is initialised and `uuid` is writable. The device is only looked up.
    check("cuDeviceGetUuid_v2", unsafe { sys::cuDeviceGetUuid_v2(uuid.as_mut_ptr(), device) })?;
    // SAFETY: 16 plain bytes, zero or written.
    let bytes = unsafe { uuid.assume_init() }.bytes;

    let mut name = [0u8; 256];
    let room = c_int::try_from(name.len() - 1).unwrap_or(0);
    // SAFETY: as above; the driver is not given the last byte, so the text is always terminated.
    check("cuDeviceGetName", unsafe {
        sys::cuDeviceGetName(name.as_mut_ptr().cast(), room, device)
    })?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    Ok(Identity {
        // C's char is signed on some machines: only its bits matter.
        device: Uuid::from_bytes(bytes.map(|byte| byte.to_ne_bytes()[0])),
        driver: None,
        name: name.to_string_lossy().into_owned(),
    })
}

/// Returns `Ok` if `call` returned `CUDA_SUCCESS`.
///
/// A failure may be of work enqueued earlier: nearly every CUDA call reports those too.
pub(crate) fn check(call: &'static str, result: sys::CUresult) -> Result<()> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        failure => Err(failed(call, failure)),
    }
}

/// The error for `result`, a failure that `call` returned.
pub(crate) fn failed(call: &'static str, result: sys::CUresult) -> Error {
    explain(DriverError::new(Api::Cuda, call, result as u32, name(result))).into()
}

/// For `Drop`, which can't return: logs a failure of `call` and records it in the context, whose
/// next cudarc call returns it.
pub(crate) fn record(context: &CudaContext, call: &'static str, result: sys::CUresult) {
    if let Err(error) = check(call, result) {
        tracing::error!(%error, "while dropping");
        context.record_err(Err::<(), _>(CudarcError(result)));
    }
}

fn name(result: sys::CUresult) -> Text {
    // Not by `Debug`: a driver newer than cudarc's bindings has codes that its enum lacks.
    match CudarcError(result).error_name() {
        Ok(name) => name.to_string_lossy().into_owned().into(),
        Err(_) => "a code without a name".into(),
    }
}

/// `cuStreamGetCaptureInfo_v2`, with enums as numbers.
pub(crate) type CaptureInfo = unsafe extern "C" fn(
    sys::CUstream,
    *mut u32,
    *mut u64,
    *mut sys::CUgraph,
    *mut *const sys::CUgraphNode,
    *mut usize,
) -> sys::CUresult;

/// Looks up a function that cudarc's bindings lack for some versions of CUDA, though every libcuda
/// since 11.3 exports it.
pub(crate) fn capture_info() -> Result<CaptureInfo> {
    static FOUND: OnceLock<Option<CaptureInfo>> = OnceLock::new();
    const NAME: &str = "cuStreamGetCaptureInfo_v2";
    // SAFETY: libcuda is loaded, and the type is that of the function (cuda.h of CUDA 11.3 to
    // 12.9).
    let find =
        || unsafe { sys::culib().get::<CaptureInfo>(NAME.as_bytes()) }.ok().map(|found| *found);
    FOUND.get_or_init(find).ok_or_else(|| {
        Missing::new(Api::Cuda, NAME, "a handoff in a graph")
            .help("release and acquire on the stream, before and after the graph's launch")
            .into()
    })
}

/// Identifies a stream for the life of the process. Before CUDA 12.0 it is the stream's address,
/// which a later stream may get. The context must be current.
pub(crate) fn stream_id(stream: &CudaStream) -> u64 {
    type GetId = unsafe extern "C" fn(sys::CUstream, *mut u64) -> sys::CUresult;
    static FOUND: OnceLock<Option<GetId>> = OnceLock::new();
    // SAFETY: libcuda is loaded, and the type is that of the function (cuda.h since CUDA 12.0).
    let find = || unsafe { sys::culib().get::<GetId>(b"cuStreamGetId") }.ok().map(|found| *found);
    let mut id = 0;
    // SAFETY: the stream is alive and its context current; `id` is writable.
    let has_id = FOUND.get_or_init(find).is_some_and(|get| unsafe {
        get(stream.cu_stream(), &mut id) == sys::CUresult::CUDA_SUCCESS
    });
    if has_id { id } else { stream.cu_stream() as u64 }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::error::Error;

    #[test]
    fn libcuda_and_its_devices_are_found_or_a_typed_error_is_returned() {
        match devices() {
            Ok(devices) => {
                assert!(is_available());
                for (index, device) in devices.iter().enumerate() {
                    assert_eq!(device.ordinal, index);
                    assert_eq!(device.identity.driver, None);
                }
            }
            Err(Error::Missing(missing)) => {
                assert!(!is_available());
                assert_eq!(missing.api, Api::Cuda);
                assert!(missing.help.is_some(), "{missing}");
            }
            Err(error) => assert!(matches!(error, Error::Driver(_)), "{error}"),
        }
    }

    #[test]
    fn an_absent_gpu_or_library_is_missing_and_other_codes_are_driver_errors() {
        use sys::CUresult as Code;
        initialised(Code::CUDA_SUCCESS).unwrap();
        for code in [
            Code::CUDA_ERROR_NO_DEVICE,
            Code::CUDA_ERROR_STUB_LIBRARY,
            Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
            Code::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
        ] {
            let missing = initialised(code);
            assert!(
                matches!(&missing, Err(Error::Missing(Missing { help: Some(help), .. }))
                    if help.contains(&format!("{code:?}"))),
                "{missing:?}"
            );
        }
        // A driver's error is named by cuGetErrorName, which may be absent.
        if find_library().is_ok() {
            let failed = initialised(Code::CUDA_ERROR_OUT_OF_MEMORY);
            assert!(matches!(failed, Err(Error::Driver(_))), "{failed:?}");
        }
    }

    #[test]
    fn every_function_called_here_is_looked_up_first() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = fs::read_dir(src.join("cuda")).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.is_file()).chain([src.join("nvx/link.rs")]);
        let mut calls = 0;
        for source in files.map(|path| fs::read_to_string(path).unwrap()) {
            for (at, prefix) in source.match_indices("sys::cu") {
                let name = &source[at + "sys::".len()..];
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &name[..end.unwrap_or(name.len())];
                // Neither cudarc's own function nor this test calls libcuda.
                let is_call = !["culib", "cu"].contains(&name);
                assert!(!is_call || FUNCTIONS.contains(&name), "{prefix}: {name} is not looked up");
                calls += 1;
            }
        }
        assert!(calls > 30, "only {calls} calls were found");
    }
}
