//! The cases of the conformance matrix, a module a group.

mod aliasing;

use crate::suite::Case;

/// Every case, in the order of the matrix.
pub fn all() -> Vec<Case> {
    [aliasing::cases()].into_iter().flatten().collect()
}
