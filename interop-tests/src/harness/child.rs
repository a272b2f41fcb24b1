//! Real child processes: the test binary itself, run again.

use std::process::{Command, ExitCode};

/// What tells the binary that it is a child, and which.
const VARIABLE: &str = "INTEROP_CHILD";

/// A command that runs this binary again as the child called `role`.
///
/// # Errors
/// Where the kernel doesn't tell the binary's path.
pub fn child_arguments(role: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, role);
    Ok(command)
}

/// A child's name and what it does.
pub type Role = (&'static str, fn() -> anyhow::Result<()>);

/// Runs the child that this process is, if it is one.
pub fn run_as_child(roles: &[Role]) -> Option<ExitCode> {
    let role = std::env::var(VARIABLE).ok()?;
    let found = roles.iter().find(|(name, _)| *name == role);
    let result = match found {
        Some((_, run)) => run(),
        None => Err(anyhow::anyhow!("no child is called {role}")),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{role}: {error:#}");
            ExitCode::FAILURE
        }
    })
}
