//! Semaphores in CUDA graphs: nodes that wait or signal, and objects that a graph keeps alive.

use std::ptr;

use cudarc::driver::{CudaStream, sys};

use super::capture::{Capture, keep, sweep};
use super::descriptors::{signal_params, wait_params};
use super::endpoint::Endpoint;
use super::library::check;
use super::memory::Memory;
use super::semaphore::{Operation, Semaphore};
use crate::error::{Invalid, Result};

/// A node of a CUDA graph that waits for or signals a semaphore. Cheap to clone.
///
/// Every launch of the graph waits for or signals the same semaphore with the same value, until
/// [`set`](Self::set) changes them. A timeline needs a new value for each launch.
/// `handoff::GraphHandoff` does that for a handoff.
///
/// The graph and its executable graphs keep the semaphore that the node was created with alive.
#[derive(Clone, Debug)]
pub struct SemaphoreNode {
    endpoint: Endpoint,
    operation: Operation,
    node: Node,
}

#[derive(Clone, Copy, Debug)]
struct Node(sys::CUgraphNode);

// SAFETY: a node only identifies a part of a graph. The callers of the unsafe methods order the
// uses of the graph (`SemaphoreNode::set`).
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Endpoint {
    /// Captures a wait for `semaphore` into the graph that `stream` is being captured into.
    ///
    /// At each launch of the graph, the work captured into `stream` afterwards waits for it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the stream is not being captured, for a
    /// timeline semaphore without a value and a binary one with a value;
    /// [`Error::Mismatch`](crate::Error::Mismatch) for a stream or a semaphore from another
    /// context; [`Error::Driver`](crate::Error::Driver) if a CUDA call fails. The capture stays
    /// valid unless the driver fails.
    ///
    /// # References
    /// `cuWaitExternalSemaphoresAsync` in a capture, `cuStreamGetCaptureInfo`,
    /// `cuGraphRetainUserObject`.
    #[doc(alias = "cuWaitExternalSemaphoresAsync")]
    #[doc(alias = "cuStreamGetCaptureInfo")]
    pub fn capture_wait(
        &self,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        self.capture(Operation::Wait, stream, semaphore, value)
    }

    /// Captures a signal of `semaphore` into the graph that `stream` is being captured into, after
    /// the work captured so far.
    ///
    /// # Errors
    /// Same as [`capture_wait`](Self::capture_wait); also [`Error::Invalid`](crate::Error::Invalid)
    /// for value 0.
    ///
    /// # References
    /// `cuSignalExternalSemaphoresAsync` in a capture, `cuStreamGetCaptureInfo`,
    /// `cuGraphRetainUserObject`.
    #[doc(alias = "cuSignalExternalSemaphoresAsync")]
    #[doc(alias = "cuStreamGetCaptureInfo")]
    pub fn capture_signal(
        &self,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        self.capture(Operation::Signal, stream, semaphore, value)
    }

    fn capture(
        &self,
        operation: Operation,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        self.check_stream(stream)?;
        self.check_operation(operation, semaphore, value)?;
        sweep();
        let current = self.enter()?;
        let capture = Capture::of(stream)?;
        // SAFETY: the graph of a capture in progress, to which anything but destroying it may be
        // done.
        unsafe { keep(capture.graph, semaphore.clone()) }?;
        self.enqueue(&current, operation, stream.cu_stream(), &[(semaphore, value)], 1)?;
        match Capture::of(stream)?.last[..] {
            [node] => Ok(SemaphoreNode { endpoint: self.clone(), operation, node: Node(node) }),
            ref other => {
                let problem = format!("its capture depends on {} nodes, not on one", other.len());
                Err(Invalid::new("stream", problem).into())
            }
        }
    }

    /// Refuses a stream that is not being captured, and one of another context.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn check_captured(&self, stream: &CudaStream) -> Result<()> {
        self.check_stream(stream)?;
        let _current = self.enter()?;
        Capture::of(stream).map(drop)
    }

    /// Adds a node that waits for `semaphore` to a graph that is built by hand.
    ///
    /// # Safety
    /// `graph` is a valid graph that no other thread uses during the call, and `dependencies` are
    /// nodes of it.
    ///
    /// # Errors
    /// Same as [`capture_wait`](Self::capture_wait), except for the stream.
    ///
    /// # References
    /// `cuGraphAddExternalSemaphoresWaitNode`, `cuGraphRetainUserObject`.
    #[doc(alias = "cuGraphAddExternalSemaphoresWaitNode")]
    pub unsafe fn add_wait_node(
        &self,
        graph: sys::CUgraph,
        dependencies: &[sys::CUgraphNode],
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        // SAFETY: the caller's promise.
        unsafe { self.add_node(Operation::Wait, graph, dependencies, semaphore, value) }
    }

    /// Adds a node that signals `semaphore` to a graph that is built by hand.
    ///
    /// # Safety
    /// Same as [`add_wait_node`](Self::add_wait_node).
    ///
    /// # Errors
    /// Same as [`capture_signal`](Self::capture_signal), except for the stream.
    ///
    /// # References
    /// `cuGraphAddExternalSemaphoresSignalNode`, `cuGraphRetainUserObject`.
    #[doc(alias = "cuGraphAddExternalSemaphoresSignalNode")]
    pub unsafe fn add_signal_node(
        &self,
        graph: sys::CUgraph,
        dependencies: &[sys::CUgraphNode],
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        // SAFETY: the caller's promise.
        unsafe { self.add_node(Operation::Signal, graph, dependencies, semaphore, value) }
    }

    /// # Safety
    /// That of `add_wait_node`.
    unsafe fn add_node(
        &self,
        operation: Operation,
        graph: sys::CUgraph,
        dependencies: &[sys::CUgraphNode],
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<SemaphoreNode> {
        self.check_operation(operation, semaphore, value)?;
        sweep();
        let _current = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { keep(graph, semaphore.clone()) }?;
        let mut node = ptr::null_mut();
        let (from, count) = (dependencies.as_ptr(), dependencies.len());
        // SAFETY: the context is current; graph and dependencies are valid (the caller's promise);
        // the driver copies the parameters; `node` is writable.
        unsafe {
            with_params(operation, semaphore, value, |params| match params {
                Params::Wait(params) => check(
                    "cuGraphAddExternalSemaphoresWaitNode",
                    sys::cuGraphAddExternalSemaphoresWaitNode(
                        &mut node, graph, from, count, params,
                    ),
                ),
                Params::Signal(params) => check(
                    "cuGraphAddExternalSemaphoresSignalNode",
                    sys::cuGraphAddExternalSemaphoresSignalNode(
                        &mut node, graph, from, count, params,
                    ),
                ),
            })
        }?;
        Ok(SemaphoreNode { endpoint: self.clone(), operation, node: Node(node) })
    }
}

impl SemaphoreNode {
    /// Returns the CUDA handle, valid as long as the graph.
    pub fn handle(&self) -> sys::CUgraphNode {
        self.node.0
    }

    /// Sets the semaphore and the value for later launches of `exec`. Launches that are already
    /// enqueued are not affected.
    ///
    /// # Safety
    /// - `exec` was instantiated from the node's graph, which still exists, and no other thread
    ///   uses either during the call.
    /// - `semaphore` stays alive until the launches of `exec` are done. The graph keeps only the
    ///   one that the node was created with.
    ///
    /// # Errors
    /// The errors of [`Endpoint::wait`] or [`Endpoint::signal`], except for the stream.
    ///
    /// # References
    /// `cuGraphExecExternalSemaphoresWaitNodeSetParams`,
    /// `cuGraphExecExternalSemaphoresSignalNodeSetParams`.
    #[doc(alias = "cuGraphExecExternalSemaphoresWaitNodeSetParams")]
    #[doc(alias = "cuGraphExecExternalSemaphoresSignalNodeSetParams")]
    pub unsafe fn set(
        &self,
        exec: sys::CUgraphExec,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<()> {
        self.endpoint.check_operation(self.operation, semaphore, value)?;
        let _current = self.endpoint.enter()?;
        let node = self.node.0;
        // SAFETY: the context is current; the executable graph has this node and exists, and so
        // does the graph (the caller's promise); the driver copies the parameters, of one semaphore
        // as before.
        unsafe {
            with_params(self.operation, semaphore, value, |params| match params {
                Params::Wait(params) => check(
                    "cuGraphExecExternalSemaphoresWaitNodeSetParams",
                    sys::cuGraphExecExternalSemaphoresWaitNodeSetParams(exec, node, params),
                ),
                Params::Signal(params) => check(
                    "cuGraphExecExternalSemaphoresSignalNodeSetParams",
                    sys::cuGraphExecExternalSemaphoresSignalNodeSetParams(exec, node, params),
                ),
            })
        }
    }
}

/// The parameters of a node.
enum Params<'a> {
    Wait(&'a sys::CUDA_EXT_SEM_WAIT_NODE_PARAMS),
    Signal(&'a sys::CUDA_EXT_SEM_SIGNAL_NODE_PARAMS),
}

/// Calls `apply` with the parameters of a node for one semaphore.
fn with_params<R>(
    operation: Operation,
    semaphore: &Semaphore,
    value: Option<u64>,
    apply: impl FnOnce(Params<'_>) -> R,
) -> R {
    with_node_params(operation, semaphore.handle(), value.unwrap_or(0), apply)
}

fn with_node_params<R>(
    operation: Operation,
    mut handle: sys::CUexternalSemaphore,
    value: u64,
    apply: impl FnOnce(Params<'_>) -> R,
) -> R {
    match operation {
        Operation::Wait => apply(Params::Wait(&sys::CUDA_EXT_SEM_WAIT_NODE_PARAMS {
            extSemArray: &mut handle,
            paramsArray: wait_params(value).as_ptr(),
            numExtSems: 1,
        })),
        Operation::Signal => apply(Params::Signal(&sys::CUDA_EXT_SEM_SIGNAL_NODE_PARAMS {
            extSemArray: &mut handle,
            paramsArray: signal_params(value).as_ptr(),
            numExtSems: 1,
        })),
    }
}

impl Semaphore {
    /// Keeps the semaphore alive as long as the graph that `stream` is being captured into, its
    /// executable graphs, and their launches.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn keep_in_capture(&self, stream: &CudaStream) -> Result<()> {
        keep_in_capture(self.endpoint(), stream, self.clone())
    }
}

impl Memory {
    /// Keeps the memory alive as long as the graph that `stream` is being captured into, its
    /// executable graphs, and their launches.
    ///
    /// Pass bare addresses ([`Buffer::device_ptr`](super::Buffer::device_ptr)) to a graph's
    /// kernels: cudarc's views order accesses with events, which fails in a capture. After this
    /// call, a buffer may be dropped before the graph.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the stream is not being captured;
    /// [`Error::Mismatch`](crate::Error::Mismatch) for a stream of another context;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails. The capture stays valid.
    ///
    /// # References
    /// `cuUserObjectCreate`, `cuGraphRetainUserObject`.
    #[doc(alias = "cuGraphRetainUserObject")]
    pub fn keep_in_capture(&self, stream: &CudaStream) -> Result<()> {
        keep_in_capture(self.endpoint(), stream, self.clone())
    }
}

fn keep_in_capture(
    endpoint: &Endpoint,
    stream: &CudaStream,
    object: impl Send + 'static,
) -> Result<()> {
    endpoint.check_stream(stream)?;
    sweep();
    let _current = endpoint.enter()?;
    let capture = Capture::of(stream)?;
    // SAFETY: the graph of a capture in progress, which may be used in any way but destroyed.
    unsafe { keep(capture.graph, object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_semaphore_and_its_value() {
        let handle = 0x7f00_0000_1000_usize as sys::CUexternalSemaphore;
        with_node_params(Operation::Wait, handle, 7, |params| {
            let Params::Wait(params) = params else { panic!("a wait") };
            // SAFETY: both arrays have one element, and every field is written or zero.
            let (semaphore, wait) = unsafe { (*params.extSemArray, *params.paramsArray) };
            assert_eq!((semaphore, wait.params.fence.value, params.numExtSems), (handle, 7, 1));
        });
        with_node_params(Operation::Signal, handle, u64::MAX, |params| {
            let Params::Signal(params) = params else { panic!("a signal") };
            // SAFETY: as above.
            let (semaphore, signal) = unsafe { (*params.extSemArray, *params.paramsArray) };
            assert_eq!((semaphore, params.numExtSems), (handle, 1));
            assert_eq!(signal.params.fence.value, u64::MAX);
        });
    }
}
