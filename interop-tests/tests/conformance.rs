//! The conformance suite: `cargo test -p interop-tests --test conformance`.

use std::process::ExitCode;

use interop_tests::{cases, harness};

fn main() -> ExitCode {
    match harness::run_as_child(&cases::roles()) {
        Some(code) => code,
        None => harness::run(cases::all()),
    }
}
