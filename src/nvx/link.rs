//! Linking PTX into a cubin for the context's GPU, with the driver's own linker.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_uint, c_void};
use std::{ptr, slice};

use cudarc::driver::sys;

use super::cubin::Cubin;
use crate::cuda::Endpoint;
use crate::cuda::library::{check, record};
use crate::error::{Api, DriverError, Error, Invalid, Missing, Result};

/// The size of the linker's error log. ptxas stops after a few errors, and the first one matters.
const LOG_BYTES: usize = 8 << 10;

impl Endpoint {
    /// Links `ptx` into a cubin for the context's GPU.
    ///
    /// CUDA itself loads PTX (cudarc's `load_module`); a Vulkan queue requires a cubin
    /// (`vulkan::Endpoint::load_module`). The driver compiles at each call, which takes
    /// milliseconds: link once, and keep the cubin.
    ///
    /// # Errors
    /// [`Invalid`] for invalid PTX, with the linker's message; [`Missing`] for PTX that is newer
    /// than the driver or for a newer GPU, and if the driver's PTX compiler is not installed;
    /// [`Error::Driver`].
    ///
    /// # References
    /// `cuLinkCreate_v2`, `cuLinkAddData_v2` with `CU_JIT_INPUT_PTX`, `cuLinkComplete`;
    /// `CU_JIT_ERROR_LOG_BUFFER`. "By default the target is determined from the attached context."
    #[doc(alias = "cuLinkCreate")]
    #[doc(alias = "cuLinkAddData")]
    #[doc(alias = "cuLinkComplete")]
    pub fn link(&self, ptx: &str) -> Result<Cubin> {
        if !ptx.contains(".version") {
            return Err(Invalid::new("ptx", "is not PTX: it has no .version")
                .help("pass the text that nvcc -ptx or NVRTC creates")
                .into());
        }
        let ptx = CString::new(ptx).map_err(|_| Invalid::new("ptx", "contains a zero byte"))?;
        let _current = self.enter()?;
        let linker = Linker::new(self)?;
        let image = linker.link(&ptx);
        image.and_then(Cubin::new)
    }
}

/// A `CUlinkState`, and the memory that it writes to while it lives.
struct Linker<'a> {
    state: sys::CUlinkState,
    endpoint: &'a Endpoint,
    log: Vec<Cell<u8>>,
    /// The values of its options. It writes one of them, the length of the log.
    _values: Vec<Cell<*mut c_void>>,
}

impl<'a> Linker<'a> {
    /// Creates a linker for the current context's GPU; the context must be the endpoint's.
    fn new(endpoint: &'a Endpoint) -> Result<Self> {
        let log = vec![Cell::new(0u8); LOG_BYTES];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver is not given the last byte, so that the text is terminated.
        let room = ptr::without_provenance_mut(LOG_BYTES - 1);
        let values = vec![Cell::new(log.as_ptr().cast_mut().cast::<c_void>()), Cell::new(room)];
        let mut state = ptr::null_mut();
        let count = options.len() as c_uint;
        // SAFETY: the context is current; there are as many values as options, each of its option's
        // type (a pointer to writable bytes, and their number as a pointer), and they and the bytes
        // are not moved until the linker is destroyed; `state` is writable.
        check("cuLinkCreate", unsafe {
            let values = values.as_ptr().cast_mut().cast();
            sys::cuLinkCreate_v2(count, options.as_mut_ptr(), values, &mut state)
        })?;
        Ok(Self { state, endpoint, log, _values: values })
    }

    /// Links `ptx` and returns a copy of the image.
    fn link(&self, ptx: &CStr) -> Result<Vec<u8>> {
        let text = ptx.to_bytes_with_nul();
        // SAFETY: the context is current and the linker alive; PTX is text with its zero byte,
        // which the driver reads and doesn't keep; there are no options.
        let added = unsafe {
            sys::cuLinkAddData_v2(
                self.state,
                sys::CUjitInputType::CU_JIT_INPUT_PTX,
                text.as_ptr().cast_mut().cast(),
                text.len(),
                c"ptx".as_ptr(),
                0,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        self.explain("cuLinkAddData", added)?;
        let (mut image, mut size) = (ptr::null_mut(), 0usize);
        // SAFETY: as above; both results are writable.
        let completed = unsafe { sys::cuLinkComplete(self.state, &mut image, &mut size) };
        self.explain("cuLinkComplete", completed)?;
        if image.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the image is `size` bytes that belong to the linker, which is alive; they are
        // copied here.
        Ok(unsafe { slice::from_raw_parts(image.cast::<u8>(), size) }.to_vec())
    }

    /// Adds the linker's message to a failure of `call`.
    fn explain(&self, call: &'static str, result: sys::CUresult) -> Result<()> {
        check(call, result).map_err(|error| match error {
            Error::Driver(error) => explained(error, result, &self.message()),
            other => other,
        })
    }

    /// Returns the message that the linker has written.
    fn message(&self) -> String {
        let text: Vec<u8> = self.log.iter().map(Cell::get).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl Drop for Linker<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once, here; its image is no longer used, and the memory
        // that it writes to is freed afterwards.
        let result = unsafe { sys::cuLinkDestroy(self.state) };
        record(self.endpoint.context(), "cuLinkDestroy", result);
    }
}

/// Explains failures that the caller can act on, with the linker's message.
fn explained(error: DriverError, result: sys::CUresult, message: &str) -> Error {
    use sys::CUresult as Code;
    const NEEDED_FOR: &str = "linking PTX";
    let DriverError { call, name, .. } = &error;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    let because = format!("{call}: {name}{message}");
    match result {
        Code::CUDA_ERROR_INVALID_PTX | Code::CUDA_ERROR_INVALID_SOURCE => {
            Invalid::new("ptx", format!("is refused by the driver's linker ({because})")).into()
        }
        Code::CUDA_ERROR_INVALID_IMAGE => Invalid::new("ptx", format!("is not PTX ({because})"))
            .help("pass the text that nvcc -ptx or NVRTC creates")
            .into(),
        Code::CUDA_ERROR_NO_BINARY_FOR_GPU => {
            Missing::new(Api::Cuda, "a way to run this PTX on this GPU", NEEDED_FOR)
                .help(format!("compile it for this GPU or an older architecture ({because})"))
                .into()
        }
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            Missing::new(Api::Cuda, "this version of PTX", NEEDED_FOR)
                .help(format!("update NVIDIA's driver, or use an older compiler ({because})"))
                .into()
        }
        Code::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            Missing::new(Api::Cuda, "libnvidia-ptxjitcompiler.so.1", NEEDED_FOR)
                .help(format!("install it; it is part of NVIDIA's driver ({because})"))
                .into()
        }
        Code::CUDA_ERROR_JIT_COMPILATION_DISABLED => {
            Missing::new(Api::Cuda, "compilation of PTX", NEEDED_FOR)
                .help(format!("unset CUDA_DISABLE_PTX_JIT ({because})"))
                .into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(result: sys::CUresult, message: &str) -> Error {
        let (code, name) = (i64::from(result as u32), format!("{result:?}"));
        let error = DriverError::new(Api::Cuda, "cuLinkAddData", code, name);
        explained(error, result, message)
    }

    #[test]
    fn a_refusal_contains_the_linkers_message() {
        use sys::CUresult as Code;
        let message =
            "ptxas application ptx input, line 9; fatal   : Parsing error near 'nonsense'";
        let error = explain(Code::CUDA_ERROR_INVALID_PTX, message);
        assert!(matches!(&error, Error::Invalid(invalid) if invalid.parameter == "ptx"));
        for part in [message, "cuLinkAddData", "CUDA_ERROR_INVALID_PTX"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        for code in [
            Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
            Code::CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
            Code::CUDA_ERROR_JIT_COMPILATION_DISABLED,
            Code::CUDA_ERROR_NO_BINARY_FOR_GPU,
        ] {
            let error = explain(code, "");
            assert!(matches!(&error, Error::Missing(Missing { help: Some(_), .. })), "{error:?}");
            assert!(error.to_string().contains(&format!("{code:?})")), "{error}");
        }
        let error = explain(Code::CUDA_ERROR_OUT_OF_MEMORY, "");
        assert!(matches!(error, Error::Driver(_)), "{error:?}");
    }
}
