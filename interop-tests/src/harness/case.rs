//! One case of the conformance matrix.

use std::fmt;

use anyhow::Result;

use super::fixture::Need;
use super::test_gpu::TestGpu;

/// A driver's bug that makes a case fail.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedFailure {
    /// Part of the driver's name and version, as [`Fixture::driver`](super::Fixture::driver) returns it.
    pub driver: &'static str,
    /// What the driver does wrong.
    pub why: &'static str,
    /// Part of the error's text. Any other error is a failure.
    pub error: &'static str,
}

/// What a case does. An error fails it.
type CaseFn<F> = Box<dyn Fn(&F) -> Result<()>>;

/// A case that runs on a GPU.
pub type Case = CaseOn<TestGpu>;

/// One case of the conformance matrix, which runs on a fixture.
pub struct CaseOn<F> {
    pub(super) name: String,
    pub(super) needs: Vec<Need>,
    pub(super) expected_failures: Vec<ExpectedFailure>,
    pub(super) alone: bool,
    pub(super) slow: bool,
    pub(super) run: CaseFn<F>,
}

impl<F> fmt::Debug for CaseOn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish()
    }
}

impl<F> CaseOn<F> {
    /// Makes a case with a name like `vulkan→gl/opaque_fd/buffer/aliases/31`, which ends in its row of
    /// the conformance matrix.
    pub fn new(name: impl Into<String>, run: impl Fn(&F) -> Result<()> + 'static) -> Self {
        Self {
            name: name.into(),
            needs: Vec::new(),
            expected_failures: Vec::new(),
            alone: false,
            slow: false,
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

    /// Marks a case that other cases would disturb, or that would disturb them: it measures time, or needs much
    /// of the machine's memory. It runs after the others, with no case beside it.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Marks a case that takes seconds. It runs before the others, so that in the end no job waits for it alone.
    #[must_use]
    pub fn slow(mut self) -> Self {
        self.slow = true;
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
