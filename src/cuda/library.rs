//! Whether libcuda is there, and has all that is called.

use std::sync::OnceLock;

use cudarc::driver::sys;

use super::error::check;
use crate::error::{Api, Missing, Result};

/// Every function of libcuda that this peer calls, itself or through cudarc, and those by which
/// cudarc opens a context.
///
/// cudarc looks a function up when it is first called, and panics where libcuda lacks it. Here they
/// are looked up together, before the first call. The youngest is of CUDA 11.4.
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
    "cuStreamQuery",
    "cuStreamWaitEvent",
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
    "cuMemGetAllocationGranularity",
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

/// Whether CUDA can be used: libcuda is there, new enough, and finds a GPU.
///
/// [`require`] says what is missing.
pub fn is_available() -> bool {
    require().is_ok()
}

/// Makes sure that libcuda is there, new enough and initialised. Never panics, unlike cudarc's own
/// functions, which may be called once this has returned `Ok`. (Those for functions that are newer
/// than CUDA 11.4 still panic where libcuda lacks them.)
///
/// # Errors
/// [`Missing`] where libcuda, a function of it or a GPU is missing, or where libcuda doesn't belong to
/// this machine (`CUDA_ERROR_NO_DEVICE`, `CUDA_ERROR_STUB_LIBRARY`,
/// `CUDA_ERROR_SYSTEM_DRIVER_MISMATCH`, `CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE`);
/// [`Error::Driver`](crate::Error::Driver) where all are there and it can't be initialised.
///
/// # References
/// `cuInit`.
#[doc(alias = "cuInit")]
pub fn require() -> Result<()> {
    // Once found, libcuda stays loaded; where it is missing it is not looked for again.
    static LIBRARY: OnceLock<Result<(), Missing>> = OnceLock::new();
    LIBRARY.get_or_init(find_library).clone()?;
    // SAFETY: libcuda is loaded and has cuInit. It may be called again and from any thread.
    initialised(unsafe { sys::cuInit(0) })
}

/// What `cuInit` returned: where that means that something isn't there, it is missing, and CUDA hasn't
/// failed.
fn initialised(result: sys::CUresult) -> Result<()> {
    let (what, help) = match result {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => (
            "a GPU",
            "is NVIDIA's kernel module loaded, and is the GPU's device file there (in a container)? \
             CUDA_VISIBLE_DEVICES may hide GPUs (CUDA_ERROR_NO_DEVICE)",
        ),
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => (
            "a driver's libcuda.so.1",
            "the one found is the toolkit's stub, made for linking only: take its folder out of \
             LD_LIBRARY_PATH (CUDA_ERROR_STUB_LIBRARY)",
        ),
        sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => (
            "a libcuda.so.1 of the kernel module's version",
            "restart after an update of NVIDIA's driver; in a container, mount the host's libcuda \
             (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
        ),
        sys::CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => (
            "a libcuda.so.1 that supports the GPU",
            "the one found is of the forward compatibility package, which is not for this GPU: use \
             the driver's own (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
        ),
        other => return check("cuInit", other),
    };
    Err(Missing::new(Api::Cuda, what, "any use of CUDA").help(help).into())
}

fn find_library() -> Result<(), Missing> {
    // SAFETY: looks for libcuda as dlopen does. Its initialisers are run; they are the driver's own
    // and touch nothing of this program.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn check_answers_without_a_panic_whatever_the_machine() {
        for _ in 0..2 {
            match require() {
                Ok(()) => assert!(is_available()),
                Err(Error::Missing(missing)) => {
                    assert!(!is_available());
                    assert_eq!(missing.api, Api::Cuda);
                    assert!(missing.help.is_some(), "{missing}");
                }
                Err(Error::Driver(driver)) => assert_eq!(driver.call, "cuInit"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_is_not_there_is_missing_and_the_rest_is_the_drivers() {
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
        // A driver's error is named by cuGetErrorName, which may not be there.
        if find_library().is_ok() {
            let failed = initialised(Code::CUDA_ERROR_OUT_OF_MEMORY);
            assert!(matches!(failed, Err(Error::Driver(_))), "{failed:?}");
        }
    }

    #[test]
    fn every_function_called_here_is_looked_up_first() {
        let sources = [
            include_str!("allocation.rs"),
            include_str!("array.rs"),
            include_str!("array_object.rs"),
            include_str!("buffer.rs"),
            include_str!("current.rs"),
            include_str!("device.rs"),
            include_str!("endpoint.rs"),
            include_str!("error.rs"),
            include_str!("event.rs"),
            include_str!("fence.rs"),
            include_str!("../nvx/link.rs"),
            include_str!("memory.rs"),
            include_str!("semaphore.rs"),
            include_str!("surface_object.rs"),
            include_str!("texture_object.rs"),
            include_str!("tracked.rs"),
        ];
        let mut calls = 0;
        for source in sources {
            for (at, prefix) in source.match_indices("sys::cu") {
                let name = &source[at + "sys::".len()..];
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &name[..end.unwrap_or(name.len())];
                assert!(FUNCTIONS.contains(&name), "{prefix}: {name} is not looked up");
                calls += 1;
            }
        }
        assert!(calls > 20, "only {calls} calls were found");
    }
}
