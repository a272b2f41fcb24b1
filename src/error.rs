//! The error type, and imports that failed.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The result of nearly every function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Text that is mostly known at compile time.
pub type Text = Cow<'static, str>;

/// The API that reported an error or has a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Api {
    /// Vulkan.
    Vulkan,
    /// OpenGL.
    OpenGl,
    /// The CUDA driver API.
    Cuda,
    /// EGL, which opens an OpenGL context without a display.
    Egl,
    /// The Linux kernel: file descriptors and sockets.
    Linux,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Api::Vulkan => "Vulkan",
            Api::OpenGl => "OpenGL",
            Api::Cuda => "CUDA",
            Api::Egl => "EGL",
            Api::Linux => "Linux",
        })
    }
}

/// Everything that can go wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An API lacks something that is needed.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Two values that must be equal are not.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A parameter is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A call to a driver or to the kernel failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A wait timed out. It can be repeated.
    #[error("{what} did not happen within {waited:?}")]
    Timeout {
        /// What was waited for.
        what: Text,
        /// How long the wait took.
        waited: Duration,
    },
    /// The peer closed the connection, or its process exited, between two messages.
    #[error("the peer closed {what}")]
    Closed {
        /// What was closed.
        what: Text,
    },
}

impl Error {
    /// Returns the error of a failed system call, with its errno.
    pub(crate) fn io(call: &'static str, error: &std::io::Error) -> Self {
        let (code, mut name) = (error.raw_os_error().unwrap_or(0), error.to_string());
        // The code follows the name in `DriverError`'s text.
        if let Some(end) = name.find(" (os error ") {
            name.truncate(end);
        }
        let error = DriverError::new(Api::Linux, call, code, name);
        if code == libc::EMFILE { error.help(OUT_OF_DESCRIPTORS).into() } else { error.into() }
    }
}

/// What helps if a process has no free file descriptor.
pub(crate) const OUT_OF_DESCRIPTORS: &str = "the process is out of file descriptors: raise \
    RLIMIT_NOFILE, or drop payloads that are no longer needed";

/// An API lacks something that is needed: an extension, a feature, a format, a library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error("{api} lacks {what}, needed for {needed_for}{}", Help(.help))]
pub struct Missing {
    /// The API.
    pub api: Api,
    /// What it lacks, by its own name: an extension, a format, a library.
    pub what: Text,
    /// What it is needed for.
    pub needed_for: Text,
    /// What would help, if anything would.
    pub help: Option<Text>,
}

impl Missing {
    /// Reports that `api` lacks `what`, which is needed for `needed_for`.
    pub fn new(api: Api, what: impl Into<Text>, needed_for: impl Into<Text>) -> Self {
        Self { api, what: what.into(), needed_for: needed_for.into(), help: None }
    }

    /// Adds what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<Text>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Two values that must be equal are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} differs: expected {expected}, found {found}{}", Help(.help))]
pub struct Mismatch {
    /// The name of the value.
    pub field: &'static str,
    /// The value that is required.
    pub expected: String,
    /// The value that was found.
    pub found: String,
    /// What would help, if anything would.
    pub help: Option<Text>,
}

impl Mismatch {
    /// Reports that `field` must be `expected` and is `found`.
    pub fn new(field: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { field, expected: expected.to_string(), found: found.to_string(), help: None }
    }

    /// Adds what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<Text>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A parameter is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {problem}{}{}", Vuid(.vuid), Help(.help))]
pub struct Invalid {
    /// The parameter; for a field of a structure, its path (`desc.size`).
    pub parameter: Text,
    /// What is wrong with it.
    pub problem: Text,
    /// The VUID of the specification's rule, if there is one.
    pub vuid: Option<&'static str>,
    /// What would help, if anything would.
    pub help: Option<Text>,
}

impl Invalid {
    /// Reports that `parameter` is wrong because of `problem`.
    pub fn new(parameter: impl Into<Text>, problem: impl Into<Text>) -> Self {
        Self { parameter: parameter.into(), problem: problem.into(), vuid: None, help: None }
    }

    /// Adds the VUID of the specification's rule.
    #[must_use]
    pub fn vuid(mut self, vuid: &'static str) -> Self {
        self.vuid = Some(vuid);
        self
    }

    /// Adds what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<Text>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A call to a driver or to the kernel failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{api}: {call} failed with {name} ({code}){}", Help(.help))]
pub struct DriverError {
    /// The API.
    pub api: Api,
    /// The C name of the call.
    pub call: &'static str,
    /// The code that it returned.
    pub code: i64,
    /// The C name of the code, or the kernel's description of it.
    pub name: Text,
    /// What would help, if the reason for the failure is known.
    pub help: Option<Text>,
}

impl DriverError {
    /// Reports that `call` failed with `code`, named `name`.
    pub fn new(api: Api, call: &'static str, code: impl Into<i64>, name: impl Into<Text>) -> Self {
        Self { api, call, code: code.into(), name: name.into(), help: None }
    }

    /// Adds what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<Text>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns a number with its noun in the singular or plural: "1 slot", "2 slots".
///
/// Public for the demos, and not part of the API.
#[doc(hidden)]
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

struct Help<'a>(&'a Option<Text>);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

struct Vuid<'a>(&'a Option<&'static str>);

impl fmt::Display for Vuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |vuid| write!(f, " ({vuid})"))
    }
}

/// A failed import: the error, and the payload, whose descriptor is still open.
///
/// Dropping it closes the descriptor. So does `?` in a function that returns [`Error`].
pub struct ImportError<P>(Box<(P, Error)>);

/// The result of an import that consumes a payload `P`.
pub type ImportResult<T, P> = std::result::Result<T, ImportError<P>>;

impl<P> ImportError<P> {
    /// Reports that `payload` was rejected because of `error`.
    pub fn new(payload: P, error: impl Into<Error>) -> Self {
        Self(Box::new((payload, error.into())))
    }

    /// Returns why the import failed.
    pub fn error(&self) -> &Error {
        &self.0.1
    }

    /// Returns the payload, which can be used again.
    pub fn into_payload(self) -> P {
        self.0.0
    }

    /// Returns the payload, and why it was rejected.
    pub fn into_parts(self) -> (P, Error) {
        *self.0
    }

    /// Converts the payload with `wrap` and keeps the error.
    pub fn map<Q>(self, wrap: impl FnOnce(P) -> Q) -> ImportError<Q> {
        let (payload, error) = *self.0;
        ImportError::new(wrap(payload), error)
    }
}

impl<P> fmt::Debug for ImportError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportError").field("error", self.error()).finish_non_exhaustive()
    }
}

impl<P> fmt::Display for ImportError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error(), f)
    }
}

impl<P> std::error::Error for ImportError<P> {}

impl<P> From<ImportError<P>> for Error {
    fn from(import: ImportError<P>) -> Self {
        import.0.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_was_wrong_and_what_would_help() {
        let missing = Missing::new(Api::OpenGl, "GL_EXT_semaphore_fd", "a timeline semaphore");
        assert_eq!(
            missing.to_string(),
            "OpenGL lacks GL_EXT_semaphore_fd, needed for a timeline semaphore"
        );
        let invalid = Invalid::new("desc.size", "is 0")
            .vuid("VUID-VkBufferCreateInfo-size-00912")
            .help("ask for at least one byte");
        assert_eq!(
            invalid.to_string(),
            "desc.size: is 0 (VUID-VkBufferCreateInfo-size-00912); ask for at least one byte"
        );
    }

    #[test]
    fn one_is_singular_and_every_other_number_plural() {
        assert_eq!([0, 1, 2].map(|n: u32| counted(n, "slot")), ["0 slots", "1 slot", "2 slots"]);
    }

    #[test]
    fn the_code_of_a_failed_system_call_is_printed_once() {
        let full = Error::io("dup", &std::io::Error::from_raw_os_error(24));
        let text = full.to_string();
        assert!(text.starts_with("Linux: dup failed with Too many open files (24); "), "{text}");
        assert!(text.contains("RLIMIT_NOFILE"), "{text}");
    }

    #[test]
    fn a_failed_import_gives_the_payload_back() {
        let failed = ImportError::new("payload", Invalid::new("fd", "is a pipe"));
        let (payload, error) = failed.into_parts();
        assert_eq!(payload, "payload");
        assert!(matches!(error, Error::Invalid(_)));
    }
}
