//! Linking: from PTX to a cubin for the present GPU, by the driver's own linker.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_uint, c_void};
use std::{ptr, slice};

use cudarc::driver::sys;

use crate::cuda::Endpoint;
use crate::cuda::context::{check, record};
use crate::error::{Api, DriverError, Error, Invalid, Missing, Result};
use crate::nvx::Cubin;

/// Room for what the linker says of errors. ptxas stops after some, and the first is what matters.
const LOG_BYTES: usize = 8 << 10;

impl Endpoint {
    /// Makes a cubin of `ptx` for the context's GPU.
    ///
    /// CUDA itself takes PTX as it is (cudarc's `load_module`); this is for who takes cubins only,
    /// such as a Vulkan queue (`vulkan::Endpoint::load_module`). The driver compiles each time, which
    /// takes milliseconds: link once, and keep the cubin.
    ///
    /// # Errors
    /// [`Invalid`] for what is no valid PTX, with the linker's words; [`Missing`] for PTX that is
    /// newer than the driver or for a newer GPU, and where the driver's PTX compiler is not there;
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
            return Err(Invalid::new("ptx", "is no PTX: it has no .version")
                .help("give the text that nvcc -ptx or NVRTC makes")
                .into());
        }
        let ptx = CString::new(ptx).map_err(|_| Invalid::new("ptx", "has a zero byte in it"))?;
        let _current = self.enter()?;
        let linker = Linker::new(self)?;
        let image = linker.link(&ptx);
        // What it returns is the linker's; it is copied before that goes.
        image.and_then(Cubin::new)
    }
}

/// A `CUlinkState`, and what it writes to as long as it lives.
struct Linker<'a> {
    state: sys::CUlinkState,
    endpoint: &'a Endpoint,
    log: Vec<Cell<u8>>,
    /// The values of its options, of which it writes one: the bytes of the log.
    _values: Vec<Cell<*mut c_void>>,
}

impl<'a> Linker<'a> {
    /// A linker for the GPU of the current context, which is the endpoint's.
    fn new(endpoint: &'a Endpoint) -> Result<Self> {
        let log = vec![Cell::new(0u8); LOG_BYTES];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The last byte is not given away, so that the text is terminated.
        let room = ptr::without_provenance_mut(LOG_BYTES - 1);
        let values = vec![Cell::new(log.as_ptr().cast_mut().cast::<c_void>()), Cell::new(room)];
        let mut state = ptr::null_mut();
        let count = options.len() as c_uint;
        // SAFETY: the context is current; there are as many values as options, each of its option's
        // type (a pointer to writable bytes, and their number in a pointer's place), and they and
        // the bytes stay where they are until the linker is destroyed; `state` is writable.
        check("cuLinkCreate", unsafe {
            let values = values.as_ptr().cast_mut().cast();
            sys::cuLinkCreate_v2(count, options.as_mut_ptr(), values, &mut state)
        })?;
        Ok(Self { state, endpoint, log, _values: values })
    }

    /// The linked image of `ptx`.
    fn link(&self, ptx: &CStr) -> Result<Vec<u8>> {
        let text = ptx.to_bytes_with_nul();
        // SAFETY: the context is current and the linker alive; PTX is text with its zero byte, which
        // the driver reads and doesn't keep; no options.
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
        self.told("cuLinkAddData", added)?;
        let (mut image, mut size) = (ptr::null_mut(), 0usize);
        // SAFETY: as above; both results are writable.
        let completed = unsafe { sys::cuLinkComplete(self.state, &mut image, &mut size) };
        self.told("cuLinkComplete", completed)?;
        if image.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the image is `size` bytes that belong to the linker, which is alive; they are
        // copied here.
        Ok(unsafe { slice::from_raw_parts(image.cast::<u8>(), size) }.to_vec())
    }

    /// A failure of `call` with what the linker says of it.
    fn told(&self, call: &'static str, result: sys::CUresult) -> Result<()> {
        check(call, result).map_err(|error| match error {
            Error::Driver(error) => explained(error, result, &self.said()),
            other => other,
        })
    }

    /// What the linker has written so far.
    fn said(&self) -> String {
        let text: Vec<u8> = self.log.iter().map(Cell::get).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl Drop for Linker<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once, here; its image is used no more, and what it writes
        // to goes afterwards.
        let result = unsafe { sys::cuLinkDestroy(self.state) };
        record(self.endpoint.context(), "cuLinkDestroy", result);
    }
}

/// What a failure of the linker means, with its words, where it means something to its user.
fn explained(error: DriverError, result: sys::CUresult, said: &str) -> Error {
    use sys::CUresult as Code;
    const NEEDED_FOR: &str = "linking PTX";
    let DriverError { call, name, .. } = &error;
    let words = if said.is_empty() { String::new() } else { format!(": {said}") };
    let because = format!("{call}: {name}{words}");
    match result {
        Code::CUDA_ERROR_INVALID_PTX | Code::CUDA_ERROR_INVALID_SOURCE => {
            Invalid::new("ptx", format!("the driver's linker refuses it ({because})")).into()
        }
        Code::CUDA_ERROR_INVALID_IMAGE => Invalid::new("ptx", format!("is no PTX ({because})"))
            .help("give the text that nvcc -ptx or NVRTC makes")
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

    fn explain(result: sys::CUresult, said: &str) -> Error {
        let (code, name) = (i64::from(result as u32), format!("{result:?}").into());
        let error = DriverError { api: Api::Cuda, call: "cuLinkAddData", code, name };
        explained(error, result, said)
    }

    #[test]
    fn a_refusal_has_the_linkers_words() {
        use sys::CUresult as Code;
        let said = "ptxas application ptx input, line 9; fatal   : Parsing error near 'nonsense'";
        let error = explain(Code::CUDA_ERROR_INVALID_PTX, said);
        assert!(matches!(&error, Error::Invalid(invalid) if invalid.parameter == "ptx"));
        for part in [said, "cuLinkAddData", "CUDA_ERROR_INVALID_PTX"] {
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
