//! OpenGL's worker: copies one half of a payload over the other.

use glow::HasContext as _;

use super::{TIMEOUT, Worker, sealed};
use crate::error::{Invalid, Result};
use crate::gl::{Buffer, Endpoint};
use crate::ring::{RingStage, Wait};

/// An OpenGL context that works on payloads by `glCopyBufferSubData`, from one half to the other: all
/// of it is read or written. Stays on the context's thread. It changes what is bound to
/// `GL_COPY_READ_BUFFER` and `GL_COPY_WRITE_BUFFER`.
#[derive(Debug)]
pub struct GlWorker {
    endpoint: Endpoint,
}

/// Bytes of one copy: glow takes them as `i32`.
const COPY: u64 = 1 << 30;

impl GlWorker {
    /// A worker in `endpoint`'s context.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone() }
    }

    fn work(&self, buffer: &Buffer) -> Result<()> {
        let (gl, half) = (self.endpoint.gl(), buffer.desc().size / 2);
        let number = |bytes: u64| {
            i32::try_from(bytes).map_err(|_| {
                Invalid::new("payload_bytes", format!("{} in OpenGL", buffer.desc().size))
                    .help("glow takes at most 2 GiB")
            })
        };
        // SAFETY: the context is current: the slot was acquired in it just now. The buffer is its own.
        unsafe {
            gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer.name()));
            gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(buffer.name()));
        }
        let mut done = 0;
        while done < half {
            let (bytes, from, to) = ((half - done).min(COPY), done, half + done);
            let (bytes, from, to) = (number(bytes)?, number(from)?, number(to)?);
            let (read, write) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
            // SAFETY: as above; both ranges are within the buffer, and they don't overlap.
            unsafe { gl.copy_buffer_sub_data(read, write, from, to, bytes) };
            done += COPY;
        }
        Ok(())
    }
}

impl sealed::Sealed for GlWorker {}

impl Worker for GlWorker {
    type Peer = Endpoint;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn turn(&mut self, station: &mut RingStage<Endpoint>, count: usize) -> Result<usize> {
        let Some(batch) = station.take_many(Wait::No, count..=count)? else { return Ok(0) };
        for slot in &batch {
            self.work(station.buffer(slot)?)?;
        }
        let taken = batch.len();
        station.release_many(batch)?;
        Ok(taken)
    }

    fn finish(&mut self) -> Result<()> {
        self.endpoint.fence()?.wait(TIMEOUT)
    }
}
