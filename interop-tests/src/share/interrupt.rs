//! Ctrl-C as a wish to end, and where the examples meet.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user wants to end.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicBool);

/// What the handler sets: it may do nothing else.
static ASKED: Interrupt = Interrupt(AtomicBool::new(false));

impl Interrupt {
    /// One that nobody asks.
    pub const fn never() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Makes SIGINT (Ctrl-C) and SIGTERM a wish to end; a second one ends the process as ever.
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
        &ASKED
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks for it.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

extern "C" fn note(_signal: libc::c_int) {
    ASKED.ask();
}

/// The socket's path where none is given: in the user's own directory for such things.
pub fn default_socket() -> PathBuf {
    let name = "gpu-interop-share.sock";
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory).join(name),
        // SAFETY: getuid takes nothing and always succeeds.
        None => std::env::temp_dir().join(format!("{}-{name}", unsafe { libc::getuid() })),
    }
}
