//! The conformance suite: `cargo test -p interop-tests --test conformance`.

use std::process::ExitCode;

use interop_tests::{cases, harness};

fn main() -> ExitCode {
    harness::run(cases::all, &cases::roles())
}
