//! CUDA's worker: fills by `cuMemsetD8Async`.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::{TIMEOUT, Worker, sealed};
use crate::cuda::Endpoint;
use crate::error::{Api, DriverError, Result};
use crate::ring::{RingStage, Wait};

/// A CUDA stream that fills payloads with zeros.
#[derive(Debug)]
pub struct CudaWorker {
    endpoint: Endpoint,
    stream: Arc<CudaStream>,
}

impl CudaWorker {
    /// A worker in `stream`, of `endpoint`'s context.
    pub fn new(endpoint: &Endpoint, stream: &Arc<CudaStream>) -> Self {
        Self { endpoint: endpoint.clone(), stream: stream.clone() }
    }
}

impl sealed::Sealed for CudaWorker {}

impl Worker for CudaWorker {
    type Peer = Endpoint;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn turn(&mut self, station: &mut RingStage<Endpoint>, count: usize) -> Result<usize> {
        let taken = station.take_many(Wait::No, count..=count, &self.stream)?;
        let Some(batch) = taken else { return Ok(0) };
        for slot in &batch {
            let mut bytes = station.buffer_mut(slot)?.as_view_mut::<u8>()?;
            self.stream.memset_zeros(&mut bytes).map_err(|error| DriverError {
                api: Api::Cuda,
                call: "cuMemsetD8Async",
                code: error.0 as i64,
                name: format!("{:?}", error.0).into(),
            })?;
        }
        let taken = batch.len();
        station.release_many(batch, &self.stream)?;
        Ok(taken)
    }

    fn finish(&mut self) -> Result<()> {
        self.endpoint.fence(&self.stream)?.wait(TIMEOUT)
    }
}
