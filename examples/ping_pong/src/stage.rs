//! One user's part in a path.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::handoff::Ticket;
use interop_gpu::Kernel;

use crate::user::{Ends, PayloadUser, Work};

/// What a pass works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The whole payload.
    Whole,
    /// The first 4 KiB, so that the handoff dominates.
    Touch,
}

/// One user of a path's payload. Errors are those of the driver.
#[allow(clippy::missing_errors_doc)]
pub trait Stage {
    /// The API.
    fn api(&self) -> &'static str;

    /// The step of this stage's kernel.
    fn step(&self) -> u32;

    /// Sets the number of work groups for whole passes; 0 is one thread per element.
    fn set_groups(&mut self, groups: u32) -> Result<()>;

    /// Acquires the payload, runs the kernel and releases the payload to the next stage. The very first
    /// pass has no ticket. Does not wait if the handoff allows it.
    fn pass(&mut self, ticket: Option<Ticket>, pass: Pass) -> Result<Ticket>;

    /// Acquires the payload and keeps it until the next [`release`](Self::release).
    fn acquire(&mut self, ticket: Ticket) -> Result<()>;

    /// Releases the payload to the next stage.
    fn release(&mut self) -> Result<Ticket>;

    /// Runs the kernel over the payload, which this stage has acquired, and returns how long it took.
    fn time_shared(&mut self, groups: u32) -> Result<Duration>;

    /// Runs the kernel over private memory of the same size, and returns how long it took.
    fn time_private(&mut self, groups: u32) -> Result<Duration>;

    /// Reads the payload, which this stage has acquired.
    fn read(&mut self) -> Result<Vec<u8>>;

    /// Waits until all of this stage's work is done.
    fn finish(&mut self) -> Result<()>;
}

/// A stage whose user is `U`.
pub(crate) struct UserStage<U: PayloadUser> {
    whole: U::Prepared,
    touch: U::Prepared,
    private: U::Private,
    ends: Ends<U>,
    user: U,
    step: u32,
}

impl<U: PayloadUser> UserStage<U> {
    pub(crate) fn boxed(user: U, ends: Ends<U>, step: u32, bytes: u64) -> Result<Box<dyn Stage>> {
        let buffers = std::slice::from_ref(&ends.buffer);
        let whole = user.prepare(buffers, whole(step, 0))?;
        let touch = user.prepare(buffers, Work::Touch(Kernel::PingPong { step }))?;
        let private = user.private(bytes)?;
        Ok(Box::new(Self { whole, touch, private, ends, user, step }))
    }
}

fn whole(step: u32, groups: u32) -> Work {
    Work::Whole(Kernel::PingPong { step }, groups)
}

impl<U: PayloadUser> Stage for UserStage<U> {
    fn api(&self) -> &'static str {
        self.user.name()
    }

    fn step(&self) -> u32 {
        self.step
    }

    fn set_groups(&mut self, groups: u32) -> Result<()> {
        let buffers = std::slice::from_ref(&self.ends.buffer);
        self.whole = self.user.prepare(buffers, whole(self.step, groups))?;
        Ok(())
    }

    fn pass(&mut self, ticket: Option<Ticket>, pass: Pass) -> Result<Ticket> {
        let prepared = match pass {
            Pass::Whole => &self.whole,
            Pass::Touch => &self.touch,
        };
        self.user.pass(ticket, &mut self.ends, prepared)
    }

    fn acquire(&mut self, ticket: Ticket) -> Result<()> {
        self.user.acquire(ticket, &mut self.ends)
    }

    fn release(&mut self) -> Result<Ticket> {
        self.user.release(&mut self.ends)
    }

    fn time_shared(&mut self, groups: u32) -> Result<Duration> {
        self.user.time(&self.ends.buffer, whole(self.step, groups))
    }

    fn time_private(&mut self, groups: u32) -> Result<Duration> {
        self.user.time_private(&mut self.private, whole(self.step, groups))
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.user.read(&self.ends.buffer)
    }

    fn finish(&mut self) -> Result<()> {
        self.user.finish()
    }
}

impl<U: PayloadUser> Drop for UserStage<U> {
    fn drop(&mut self) {
        // Nothing may be in flight when the buffers are destroyed. A lost device has nothing in flight, so
        // errors are ignored.
        let _ = self.user.finish();
    }
}
