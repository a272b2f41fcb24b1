//! The conformance suite: `cargo test -p interop-tests --test conformance`.

use std::process::ExitCode;

use interop_tests::{cases, suite};

fn main() -> ExitCode {
    match suite::run_as_child(&cases::roles()) {
        Some(code) => code,
        None => suite::run(cases::all()),
    }
}
