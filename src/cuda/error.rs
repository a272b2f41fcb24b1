//! CUDA's result codes as this crate's errors.

use cudarc::driver::{CudaContext, DriverError as CudarcError, sys};

use crate::error::{Api, DriverError, Error, Result, Text};

/// `Ok` where `call` returned `CUDA_SUCCESS`.
///
/// A failure may be that of work queued earlier: nearly every CUDA call reports those too.
pub(crate) fn check(call: &'static str, result: sys::CUresult) -> Result<()> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        failure => Err(failed(call, failure)),
    }
}

/// `call` returned `result`, which is no success.
pub(crate) fn failed(call: &'static str, result: sys::CUresult) -> Error {
    let code = i64::from(result as u32);
    DriverError { api: Api::Cuda, call, code, name: name(result) }.into()
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
        Err(_) => "a code that cuGetErrorName doesn't know".into(),
    }
}
