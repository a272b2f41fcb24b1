//! Waiting by asking again and again: CUDA's own host waits take no timeout.

use std::time::{Duration, Instant};
use std::{hint, thread};

/// A handoff between two APIs takes some hundred microseconds, and a thread that sleeps wakes up
/// tens of microseconds late; so first the answer is asked for without a pause.
const SPIN: Duration = Duration::from_millis(1);
/// Then other threads get the processor in between.
const YIELD: Duration = Duration::from_millis(10);
/// Then the thread sleeps, at first for so long and then twice as long each time,
const FIRST_NAP: Duration = Duration::from_micros(50);
/// up to this.
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// Asks until `ready` says yes, or `timeout` is over and it still says no. Asks at least once.
pub(crate) fn poll<E>(
    timeout: Duration,
    mut ready: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    let mut nap = FIRST_NAP;
    loop {
        if ready()? {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= timeout {
            return Ok(false);
        }
        if waited < SPIN {
            hint::spin_loop();
        } else if waited < YIELD {
            thread::yield_now();
        } else {
            thread::sleep(nap.min(timeout - waited));
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn what_is_ready_is_asked_once() {
        let mut asked = 0;
        let ready = poll(Duration::ZERO, || {
            asked += 1;
            Ok::<_, Infallible>(true)
        });
        assert_eq!((ready, asked), (Ok(true), 1));
    }

    #[test]
    fn what_never_gets_ready_ends_at_the_timeout() {
        let timeout = Duration::from_millis(30);
        let start = Instant::now();
        let mut asked = 0;
        let ready = poll(timeout, || {
            asked += 1;
            Ok::<_, Infallible>(false)
        });
        assert_eq!(ready, Ok(false));
        assert!(start.elapsed() >= timeout && asked > 2);
        let at_once = poll(Duration::ZERO, || Ok::<_, Infallible>(false));
        assert_eq!(at_once, Ok(false));
    }

    #[test]
    fn an_endless_timeout_is_one_too_and_an_error_ends_it() {
        let mut asked = 0;
        let ready = poll(Duration::MAX, || {
            asked += 1;
            if asked < 5 { Ok(false) } else { Err("lost") }
        });
        assert_eq!(ready, Err("lost"));
    }
}
