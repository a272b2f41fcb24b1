//! Arguments from C: required pointers, outputs, lists, texts, and structures that can grow.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::time::Duration;

use gpu_interop::error::Invalid;
use gpu_interop::{ImportResult, Result};

/// Rejects a null pointer.
pub(crate) fn required<T>(value: Option<T>, name: &'static str) -> Result<T> {
    value.ok_or_else(|| Invalid::new(name, "is null").into())
}

/// Rejects a null pointer, and a pointer to a handle that is null.
pub(crate) fn handle<'a, T>(
    value: Option<&'a mut Option<Box<T>>>,
    name: &'static str,
) -> Result<&'a mut Option<Box<T>>> {
    let handle = required(value, name)?;
    if handle.is_none() {
        return Err(Invalid::new(name, "points to a null handle")
            .help("a call that succeeds consumes the handle and sets the pointer to null")
            .into());
    }
    Ok(handle)
}

/// Consumes a handle with `run`. If that fails, `wrap` puts the content back.
pub(crate) fn consume<T, P, R>(
    handle: &mut Option<Box<T>>,
    run: impl FnOnce(T) -> ImportResult<R, P>,
    wrap: impl FnOnce(P) -> T,
) -> Result<R> {
    let Some(taken) = handle.take() else {
        return Err(Invalid::new("handle", "is null").into());
    };
    run(*taken).map_err(|error| {
        let (back, error) = error.into_parts();
        *handle = Some(Box::new(wrap(back)));
        error
    })
}

/// Returns a list of `count` elements; an empty one may be null.
///
/// # Safety
/// `start` is null, or valid for `count` elements for `'a`.
pub(crate) unsafe fn list<'a, T>(
    start: *const T,
    count: usize,
    name: &'static str,
) -> Result<&'a [T]> {
    match (start.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Invalid::new(name, format!("is null, but {count} are counted")).into()),
        // SAFETY: the caller's promise.
        _ => Ok(unsafe { slice::from_raw_parts(start, count) }),
    }
}

/// Returns a text.
///
/// # Safety
/// `text` is null, or ends with a 0 and is valid for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &'static str) -> Result<&'a CStr> {
    if text.is_null() {
        return Err(Invalid::new(name, "is null").into());
    }
    // SAFETY: not null; the rest is the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// Converts nanoseconds; 0 means `default`.
pub(crate) fn nanoseconds(value: u64, default: Duration) -> Duration {
    if value == 0 { default } else { Duration::from_nanos(value) }
}

/// A structure from C that can grow.
///
/// # Safety
/// It is `repr(C)`, its first field is the `usize` `struct_size`, and every field may have any bits,
/// zeros too.
pub(crate) unsafe trait Grows: Copy {
    /// Its C name.
    const NAME: &str;
}

/// Implements [`Grows`].
macro_rules! grows {
    ($($name:ident),*) => { $(
        // SAFETY: `repr(C)`, with `struct_size` first; the fields are integers, floats, pointers,
        // and `Option`s of function pointers and references that are read as such only if the
        // caller set them.
        unsafe impl $crate::args::Grows for $name {
            const NAME: &str = stringify!($name);
        }
        const _: () = assert!(std::mem::offset_of!($name, struct_size) == 0);
    )* };
}
pub(crate) use grows;

/// The largest structure that is believed: more is memory that was not initialised.
const MAX_SIZE: usize = 4096;

/// Reads a structure that may be of another version of the header: what it lacks is 0, and what it
/// has in addition must be 0.
///
/// # Safety
/// `from` is null, or valid for as many bytes as its first field counts.
pub(crate) unsafe fn structure<T: Grows>(from: *const T, name: &'static str) -> Result<T> {
    if from.is_null() {
        return Err(Invalid::new(name, "is null").into());
    }
    // SAFETY: valid for the first field, at least.
    let size = unsafe { from.cast::<usize>().read() };
    if !(size_of::<usize>()..=MAX_SIZE).contains(&size) {
        let problem = format!("is {size}");
        return Err(Invalid::new(format!("{name}.struct_size"), problem)
            .help(format!("set it to sizeof({})", T::NAME))
            .into());
    }
    let mut value = MaybeUninit::<T>::zeroed();
    let known = size.min(size_of::<T>());
    // SAFETY: valid for `size` bytes, of which `value` has room for the known ones; bytes that C
    // left undefined can only be padding, which is copied without being read.
    let added = unsafe {
        value.as_mut_ptr().cast::<MaybeUninit<u8>>().copy_from_nonoverlapping(from.cast(), known);
        slice::from_raw_parts(from.cast::<u8>().add(known), size - known)
    };
    if added.iter().any(|&byte| byte != 0) {
        let problem = format!("uses fields of {} that this version of the library lacks", T::NAME);
        return Err(Invalid::new(name, problem).help("use a newer library").into());
    }
    // SAFETY: every field may have any bits (`Grows`).
    Ok(unsafe { value.assume_init() })
}

/// Like [`structure`], but a null pointer means a structure of zeros: all defaults.
///
/// # Safety
/// Same as [`structure`].
pub(crate) unsafe fn options<T: Grows>(from: *const T, name: &'static str) -> Result<T> {
    if from.is_null() {
        // SAFETY: every field may be 0 (`Grows`).
        return Ok(unsafe { MaybeUninit::zeroed().assume_init() });
    }
    // SAFETY: the caller's promise.
    unsafe { structure(from, name) }
}

/// Writes to a structure from C as many bytes as it has.
///
/// # Safety
/// [`structure`] has read `to`, which may be written to.
pub(crate) unsafe fn fill<T: Grows>(to: *mut T, value: &T) {
    // SAFETY: valid for its `struct_size` bytes, of which no more are written than `value` has.
    unsafe {
        let size = to.cast::<usize>().read().min(size_of::<T>());
        let from = ptr::from_ref(value).cast::<MaybeUninit<u8>>();
        to.cast::<MaybeUninit<u8>>().copy_from_nonoverlapping(from, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Short {
        struct_size: usize,
        a: u64,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Long {
        struct_size: usize,
        a: u64,
        b: u64,
    }
    grows!(Short, Long);

    #[test]
    fn an_older_header_gives_defaults_and_a_newer_one_must_give_zeros() {
        let short = Short { struct_size: size_of::<Short>(), a: 7 };
        // SAFETY: only as many bytes are read as `struct_size` counts.
        let read = unsafe { structure((&raw const short).cast::<Long>(), "options") };
        assert_eq!(read.map(|read| (read.a, read.b)), Ok((7, 0)));

        let mut long = Long { struct_size: size_of::<Long>(), a: 7, b: 0 };
        // SAFETY: as above.
        let read = unsafe { structure((&raw const long).cast::<Short>(), "options") };
        assert_eq!(read.map(|read| read.a), Ok(7));
        long.b = 1;
        // SAFETY: as above.
        let read = unsafe { structure((&raw const long).cast::<Short>(), "options") };
        let text = read.unwrap_err().to_string();
        assert!(text.contains("newer library"), "{text}");
    }

    #[test]
    fn a_size_that_was_not_set_is_refused() {
        for struct_size in [0, 7, usize::MAX] {
            let short = Short { struct_size, a: 7 };
            // SAFETY: the size is refused before anything else is read.
            let text = unsafe { structure(&short, "options") }.unwrap_err().to_string();
            assert!(text.contains("sizeof(Short)"), "{text}");
        }
        // SAFETY: null.
        let defaults = unsafe { options(std::ptr::null::<Short>(), "options") };
        assert_eq!(defaults.map(|short| short.a), Ok(0));
    }
}
