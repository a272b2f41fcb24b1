//! A made-up OpenGL that records its calls. What reaches a driver only as an argument (bindings,
//! offsets, tokens, the order of deletions) is compared here without a driver.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

/// The UUIDs that the made-up OpenGL reports: 16 times this byte.
pub(super) const DEVICE: u8 = 1;
pub(super) const DRIVER: u8 = 2;

/// The registry's targets, each with the parameter that holds its binding.
pub(super) const TARGETS: [(u32, u32); 11] = [
    (0x8892, 0x8894), // GL_ARRAY_BUFFER
    (0x8CA9, 0x8CA6), // GL_DRAW_FRAMEBUFFER
    (0x0DE0, 0x8068), // GL_TEXTURE_1D
    (0x8C18, 0x8C1C), // GL_TEXTURE_1D_ARRAY
    (0x0DE1, 0x8069), // GL_TEXTURE_2D
    (0x8C1A, 0x8C1D), // GL_TEXTURE_2D_ARRAY
    (0x9100, 0x9104), // GL_TEXTURE_2D_MULTISAMPLE
    (0x9102, 0x9105), // GL_TEXTURE_2D_MULTISAMPLE_ARRAY
    (0x806F, 0x806A), // GL_TEXTURE_3D
    (0x8513, 0x8514), // GL_TEXTURE_CUBE_MAP
    (0x9009, 0x900A), // GL_TEXTURE_CUBE_MAP_ARRAY
];

/// The maximum number of open debug groups.
pub(super) const DEBUG_GROUPS: u32 = 8;

#[derive(Default)]
pub(super) struct State {
    pub(super) calls: Vec<(&'static str, Vec<u64>)>,
    pub(super) bindings: BTreeMap<u32, u32>,
    pub(super) last_name: u32,
    pub(super) not_current: bool,
    pub(super) refused: Option<&'static str>,
    pub(super) error: u32,
    /// Whether an error was generated while debug output was enabled.
    pub(super) reported: bool,
    pub(super) debug_output: bool,
    pub(super) debug_groups: u32,
    pub(super) tilings: Vec<i32>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

pub(super) fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(f)
}

/// Forgets everything, and binds the names 1 to 11 to [`TARGETS`].
pub(super) fn reset() {
    let bindings = TARGETS.iter().zip(1..).map(|(&(target, _), name)| (target, name)).collect();
    with(|state| {
        *state = State {
            bindings,
            tilings: vec![0x9584, 0x9585],
            last_name: 100,
            debug_output: true,
            debug_groups: 1,
            ..State::default()
        };
    });
}

/// Makes the context current on this thread, or not.
pub(super) fn set_current(current: bool) {
    with(|state| state.not_current = !current);
}

/// Makes every later call of `name` fail with `GL_OUT_OF_MEMORY`.
pub(super) fn refuse(name: &'static str) {
    with(|state| state.refused = Some(name));
}

/// Sets the tilings that `GL_TILING_TYPES_EXT` lists.
pub(super) fn set_tilings(tilings: &[i32]) {
    with(|state| state.tilings = tilings.to_vec());
}

/// Returns the name that is bound to each target.
pub(super) fn bindings() -> BTreeMap<u32, u32> {
    with(|state| state.bindings.clone())
}

/// Returns and forgets the calls so far, each with its arguments.
pub(super) fn take_calls() -> Vec<(&'static str, Vec<u64>)> {
    with(|state| std::mem::take(&mut state.calls))
}

/// Returns the names of the calls so far and forgets them.
pub(super) fn take_names() -> Vec<&'static str> {
    take_calls().into_iter().map(|(name, _)| name).collect()
}

pub(super) fn record(name: &'static str, arguments: &[u64]) {
    with(|state| {
        state.calls.push((name, arguments.to_vec()));
    });
    if with(|state| state.refused == Some(name)) {
        generate(glow::OUT_OF_MEMORY);
    }
}

/// Generates an error. Like Mesa, this OpenGL has one flag for all errors.
pub(super) fn generate(code: u32) {
    with(|state| {
        state.reported |= state.debug_output;
        if state.error == glow::NO_ERROR {
            state.error = code;
        }
    });
}

/// Returns the pending error, and clears it.
pub(super) fn take_error() -> u32 {
    with(|state| std::mem::take(&mut state.error))
}

/// Returns whether the debug callback, which is enabled, has received an error since this was
/// called last.
pub(super) fn take_reported() -> bool {
    with(|state| {
        assert!(state.debug_output && state.debug_groups == 1);
        std::mem::take(&mut state.reported)
    })
}

/// Writes a new name to `names`.
pub(super) fn create(name: &'static str, names: *mut u32) {
    let new = with(|state| {
        state.last_name += 1;
        state.last_name
    });
    record(name, &[new.into()]);
    // SAFETY: the caller passes room for the one name that it asks for.
    unsafe { names.write(new) };
}

/// Copies an array argument.
pub(super) fn array(count: u32, values: *const u32) -> Vec<u64> {
    // SAFETY: the caller passes as many values as it counts.
    (0..count as usize).map(|at| unsafe { *values.add(at) }.into()).collect()
}

/// Takes over the descriptor, as a driver does when it accepts it.
pub(super) fn take_over(fd: i32) {
    // SAFETY: the caller passes an open descriptor and gives it up.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Returns a file that may be an allocation of `bytes`.
pub(super) fn memory_fd(bytes: u64) -> OwnedFd {
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file.into()
}

/// Returns a descriptor that may be a semaphore.
pub(super) fn semaphore_fd() -> OwnedFd {
    // SAFETY: eventfd takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the descriptor is new and belongs to nothing else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The texts of the warnings while `f` runs.
pub(super) fn warnings(f: impl FnOnce()) -> Vec<String> {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Level, Metadata, span};

    #[derive(Clone, Default)]
    struct Texts(Arc<Mutex<Vec<String>>>);

    impl Visit for Texts {
        fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }

    impl tracing::Subscriber for Texts {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    let texts = Texts::default();
    tracing::subscriber::with_default(texts.clone(), f);
    texts.0.lock().unwrap().clone()
}
