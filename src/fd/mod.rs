//! File descriptors of memory and semaphores: handle types, checks, and the transfer to a driver.

mod file;
mod handle;
#[cfg(feature = "ipc")]
mod received;

#[cfg(all(test, feature = "session"))]
pub(crate) use file::set_pass_rights;
#[cfg(feature = "session")]
pub(crate) use file::{PeerCredentials, refuse_descriptors};
pub use handle::{MemoryHandleType, SemaphoreHandleType};
#[cfg(feature = "ipc")]
pub(crate) use received::{can_answer_at_once, check_received_memory, check_received_semaphore};
#[allow(unused_imports)]
pub(crate) use {
    file::{FileKind, check_descriptor, close_on_exec, duplicate, explain, failed, file_kind},
    handle::{
        check_file, check_mapped_file, check_memory_fd, check_no_file, check_nvidia_fd,
        check_semaphore_fd, transfer_duplicate, transfer_fd,
    },
};
