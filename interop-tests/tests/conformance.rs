//! The conformance suite: `cargo test -p interop-tests --test conformance`.

use std::process::ExitCode;

use interop_tests::{cases, suite};

fn main() -> ExitCode {
    suite::run(cases::all())
}
