//! One case of the conformance matrix.

use std::fmt;

use anyhow::Result;

use super::test_gpu::{Need, TestGpu};

/// A driver's bug that makes a case fail.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedFailure {
    /// Part of the driver's name and version, as [`TestGpu::driver`] returns it.
    pub driver: &'static str,
    /// What the driver does wrong.
    pub why: &'static str,
    /// Part of the error's text. Any other error is a failure.
    pub error: &'static str,
}

/// What a case does. An error fails it.
pub(super) type CaseFn = Box<dyn Fn(&TestGpu) -> Result<()> + Send>;

/// One case of the conformance matrix.
pub struct Case {
    pub(super) name: String,
    pub(super) needs: Vec<Need>,
    pub(super) expected_failures: Vec<ExpectedFailure>,
    pub(super) run: CaseFn,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish()
    }
}

impl Case {
    /// Makes a case with a name like `vulkan→gl/opaque_fd/buffer/aliases/31`, which ends in its row of
    /// the conformance matrix.
    pub fn new(
        name: impl Into<String>,
        run: impl Fn(&TestGpu) -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            needs: Vec::new(),
            expected_failures: Vec::new(),
            run: Box::new(run),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds requirements of the case.
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Adds a driver on which the case fails with an error that contains `error`, and why. If the case
    /// passes there all the same, the run fails, so that the entry doesn't outlive the bug.
    #[must_use]
    pub fn expected_failure(
        mut self,
        driver: &'static str,
        why: &'static str,
        error: &'static str,
    ) -> Self {
        self.expected_failures.push(ExpectedFailure { driver, why, error });
        self
    }
}
