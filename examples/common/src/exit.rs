//! The exit statuses of all demos.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done, and every byte verified |
//! | 1 | failed, or the result is not what the CPU computes |
//! | 2 | this machine lacks something, which the error names |
//! | 64 | the arguments are invalid |

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use gpu_interop::Error;
use gpu_interop::error::Missing;

/// How a demo ended, if no error stopped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done and verified.
    Verified,
    /// Something is wrong with the result. The text names it.
    NotVerified(String),
    /// The machine lacks something that the demo needs. The text names it.
    Missing(String),
    /// An argument is invalid. The text names it, and what is valid.
    InvalidArguments(String),
}

impl Outcome {
    const FAILED: u8 = 1;
    const MISSING: u8 = 2;
    /// `EX_USAGE` of sysexits.h.
    const USAGE: u8 = 64;

    fn status(&self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::NotVerified(_) => Self::FAILED,
            Self::Missing(_) => Self::MISSING,
            Self::InvalidArguments(_) => Self::USAGE,
        }
    }
}

/// An invalid combination or value of arguments, found after the command line was parsed.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Parses the command line, runs the demo and returns the process's exit status. Errors go to standard error.
pub fn run<Options: Parser>(demo: impl FnOnce(&Options) -> Result<Outcome>) -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version are printed the same way, and are not errors.
            let status = if error.use_stderr() { Outcome::USAGE } else { 0 };
            let _ = error.print();
            return status.into();
        }
    };
    let outcome = demo(&options).unwrap_or_else(|error| of_error(&error));
    match &outcome {
        Outcome::Verified => {}
        Outcome::NotVerified(reason) | Outcome::InvalidArguments(reason) => {
            eprintln!("error: {reason}")
        }
        Outcome::Missing(reason) => eprintln!("missing: {reason}"),
    }
    outcome.status().into()
}

/// Distinguishes what the machine lacks and invalid arguments from other failures.
fn of_error(error: &anyhow::Error) -> Outcome {
    let missing = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(Error::Missing(_))) || cause.is::<Missing>()
    };
    let reason = format!("{error:#}");
    if error.chain().any(missing) {
        Outcome::Missing(reason)
    } else if error.is::<UsageError>() {
        Outcome::InvalidArguments(reason)
    } else {
        Outcome::NotVerified(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_interop::Api;

    #[test]
    fn only_what_the_machine_lacks_is_missing() {
        let missing = || Missing::new(Api::Cuda, "libcuda.so.1", "CUDA");
        assert_eq!(of_error(&Error::from(missing()).into()).status(), 2);
        let wrapped = anyhow::Error::from(Error::from(missing())).context("opening CUDA");
        assert_eq!(of_error(&wrapped).status(), 2);
        assert_eq!(of_error(&anyhow::anyhow!("a driver error")).status(), 1);
        assert_eq!(of_error(&UsageError("--rate 0".into()).into()).status(), 64);
        assert_eq!(Outcome::Verified.status(), 0);
    }
}
