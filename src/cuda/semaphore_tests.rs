//! Values of semaphores, without a driver.

use super::*;
use SemaphoreKind::{Binary, Timeline};

#[test]
fn a_timeline_has_a_value_and_a_binary_semaphore_none() {
    for operation in [Operation::Wait, Operation::Signal] {
        assert_eq!(checked_value(operation, Binary, None), Ok(0));
        assert_eq!(checked_value(operation, Timeline, Some(7)), Ok(7));
        for (kind, value) in [(Binary, Some(1)), (Timeline, None)] {
            let refused = checked_value(operation, kind, value);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
    }
}

#[test]
fn a_timeline_is_waited_for_at_0_but_never_signalled_with_it() {
    assert_eq!(checked_value(Operation::Wait, Timeline, Some(0)), Ok(0));
    assert!(checked_value(Operation::Signal, Timeline, Some(0)).is_err());
}
