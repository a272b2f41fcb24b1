//! How long the demos wait for each other, the end on Ctrl-C, and the default path of the socket.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpu_interop::session::ProducerOptions;

/// How long a consumer may keep a slot that the producer waits for: longer than any check takes, even on a
/// busy CPU.
pub(super) const EVICT_AFTER: Duration = Duration::from_secs(5);

/// How long a consumer may take to open its API and compile its kernels.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval at which a wait checks for Ctrl-C.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The timeouts that both demos use.
pub fn session_options() -> ProducerOptions {
    ProducerOptions {
        evict_after: EVICT_AFTER,
        join_timeout: JOIN_TIMEOUT,
        ..ProducerOptions::default()
    }
}

/// Whether the user has requested the program to end.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicBool);

/// Set by the signal handler, which may do nothing else.
static REQUESTED: Interrupt = Interrupt(AtomicBool::new(false));

impl Interrupt {
    /// One that is never requested.
    pub const fn never() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Turns the first SIGINT (Ctrl-C) or SIGTERM into a request to end; a second one ends the process.
    pub fn on_signals() -> &'static Self {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let handler: extern "C" fn(libc::c_int) = note;
            // SAFETY: an action of zeros has an empty mask and no flags; the handler stores to an atomic,
            // which a handler may do, and resets itself.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_RESETHAND;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
        &REQUESTED
    }

    /// Whether the end was requested.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Requests the end.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

extern "C" fn note(_signal: libc::c_int) {
    REQUESTED.request();
}

/// The default path of the socket: in `XDG_RUNTIME_DIR`, or in the directory for temporary files with the
/// user ID in its name.
pub fn default_socket() -> PathBuf {
    let name = "gpu-interop-share.sock";
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory).join(name),
        // SAFETY: getuid takes nothing and always succeeds.
        None => std::env::temp_dir().join(format!("{}-{name}", unsafe { libc::getuid() })),
    }
}
