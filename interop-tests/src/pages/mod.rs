//! Pages that show reports: of one run, and of all committed reports ([`record()`]).
//!
//! A page is one file of HTML without scripts. Its matrix links to lists of cases below it, which are closed until a
//! link leads into them.

pub(crate) mod cells;
pub(crate) mod compare;
mod html;
mod record;
pub(crate) mod run;

pub use record::{PAGE, record};
