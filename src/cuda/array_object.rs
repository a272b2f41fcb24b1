//! What texture and surface objects have in common: a handle that kernels are given, and an array
//! that must outlive it.

use cudarc::driver::{CudaSlice, sys};

use super::array::Array;
use super::error::record;
use super::tracked::TrackedSlice;
use crate::error::Result;

/// A texture or surface object. Destroyed before its array, and after its last use that cudarc knows
/// of.
#[derive(Debug)]
pub(crate) struct Object {
    argument: TrackedSlice,
    handle: u64,
    kind: Kind,
    // Last: the array goes after the object on it.
    array: Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Texture,
    Surface,
}

impl Object {
    /// Takes the object `handle` on `array` over: it is destroyed where this fails.
    pub(crate) fn new(array: &Array, kind: Kind, handle: u64) -> Result<Self> {
        // A kernel takes the handle as it takes an address, as a number of 64 bits, so that cudarc's
        // slice of no bytes at that "address" is the kernel's argument, and its events tell when the
        // kernel is done.
        const { assert!(size_of::<sys::CUdeviceptr>() == size_of::<u64>()) }
        // SAFETY: no bytes are said to be there.
        let argument = unsafe { TrackedSlice::new(array.memory().endpoint(), handle, 0) };
        match argument {
            Ok(argument) => Ok(Self { argument, handle, kind, array: array.clone() }),
            Err(error) => {
                destroy(array, kind, handle);
                Err(error)
            }
        }
    }

    pub(crate) fn array(&self) -> &Array {
        &self.array
    }

    pub(crate) fn handle(&self) -> u64 {
        self.handle
    }

    pub(crate) fn argument(&self) -> &CudaSlice<u8> {
        self.argument.slice()
    }

    pub(crate) fn argument_mut(&mut self) -> &mut CudaSlice<u8> {
        self.argument.slice_mut()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let what = match self.kind {
            Kind::Texture => "waiting for the last use of a texture object",
            Kind::Surface => "waiting for the last use of a surface object",
        };
        // SAFETY: once, here.
        if unsafe { self.argument.finish(self.array.memory().endpoint(), what) } {
            destroy(&self.array, self.kind, self.handle);
        } else {
            self.array.abandon();
        }
    }
}

/// Destroys an object that nobody uses any more.
fn destroy(array: &Array, kind: Kind, handle: u64) {
    let endpoint = array.memory().endpoint();
    let current = endpoint.enter();
    match kind {
        Kind::Texture => {
            // SAFETY: made once, destroyed once, here: `Object` owns it.
            let result = unsafe { sys::cuTexObjectDestroy(handle) };
            record(endpoint.context(), "cuTexObjectDestroy", result);
        }
        Kind::Surface => {
            // SAFETY: as above.
            let result = unsafe { sys::cuSurfObjectDestroy(handle) };
            record(endpoint.context(), "cuSurfObjectDestroy", result);
        }
    }
    drop(current);
}
