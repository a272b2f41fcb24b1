//! The one error type, and the shape of an import that failed.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Text that is mostly known when the program is built.
pub type Text = Cow<'static, str>;

/// Whose word an error or a capability is.
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
    /// An API lacks what was asked of it.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Two values that must be equal are not.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A parameter is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A driver or the kernel refused a call.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Something did not happen in time. What was waited for stays usable.
    #[error("{what} did not happen within {waited:?}")]
    Timeout {
        /// What was waited for.
        what: Text,
        /// How long.
        waited: Duration,
    },
    /// The other end is gone: it closed the connection, or its process ended. Nothing was half-done.
    #[error("the peer closed {what}")]
    Closed {
        /// What it closed.
        what: Text,
    },
}

impl Error {
    /// A failed system call, with its errno.
    pub(crate) fn io(call: &'static str, error: &std::io::Error) -> Self {
        let code = i64::from(error.raw_os_error().unwrap_or(0));
        DriverError { api: Api::Linux, call, code, name: error.to_string().into() }.into()
    }
}

/// An API lacks what was asked of it: an extension, a feature, a format, a library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error("{api} lacks {what}, needed for {needed_for}{}", Help(.help))]
pub struct Missing {
    /// Which API.
    pub api: Api,
    /// What it lacks: the extension's, format's or library's own name.
    pub what: Text,
    /// What that is needed for.
    pub needed_for: Text,
    /// What would help, where something would.
    pub help: Option<Text>,
}

impl Missing {
    /// `api` lacks `what`, needed for `needed_for`.
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
    /// Which value.
    pub field: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// What would help, where something would.
    pub help: Option<Text>,
}

impl Mismatch {
    /// `field` must be `expected` and is `found`.
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
    /// Which parameter, by a path into it where it is a structure (`desc.size`).
    pub parameter: Text,
    /// What is wrong with it.
    pub problem: Text,
    /// The specification's rule, where it has one.
    pub vuid: Option<&'static str>,
    /// What would help, where something would.
    pub help: Option<Text>,
}

impl Invalid {
    /// `parameter` is wrong because of `problem`.
    pub fn new(parameter: impl Into<Text>, problem: impl Into<Text>) -> Self {
        Self { parameter: parameter.into(), problem: problem.into(), vuid: None, help: None }
    }

    /// Adds the specification's rule.
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

/// A driver or the kernel refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{api}: {call} failed with {name} ({code})")]
pub struct DriverError {
    /// Which API.
    pub api: Api,
    /// The call, by its C name.
    pub call: &'static str,
    /// The code it returned.
    pub code: i64,
    /// The code's name, or the kernel's words for it.
    pub name: Text,
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

/// An import that failed: why, and the payload, whose fd is still open and again the caller's.
///
/// Dropping it closes the fd, once. `?` in a function that returns [`Error`] does just that.
pub struct ImportError<P>(Box<(P, Error)>);

/// The result of an import that consumes a payload `P`.
pub type ImportResult<T, P> = std::result::Result<T, ImportError<P>>;

impl<P> ImportError<P> {
    /// `payload` was refused because of `error`.
    pub fn new(payload: P, error: impl Into<Error>) -> Self {
        Self(Box::new((payload, error.into())))
    }

    /// Why the import failed.
    pub fn error(&self) -> &Error {
        &self.0.1
    }

    /// The payload, to be used again.
    pub fn into_payload(self) -> P {
        self.0.0
    }

    /// The payload and why it was refused.
    pub fn into_parts(self) -> (P, Error) {
        *self.0
    }

    /// The same error for a payload that `wrap` puts around this one.
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
    fn an_error_says_what_was_wrong_and_what_would_help() {
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
    fn a_failed_import_gives_the_payload_back() {
        let failed = ImportError::new("payload", Invalid::new("fd", "is a pipe"));
        let (payload, error) = failed.into_parts();
        assert_eq!(payload, "payload");
        assert!(matches!(error, Error::Invalid(_)));
    }
}
