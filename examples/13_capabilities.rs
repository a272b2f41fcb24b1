//! Prints what this machine can share, between which APIs, and what is missing for the rest.
//!
//! `cargo run -p gpu-interop --features headless --example 13_capabilities`

use std::process::ExitCode;

use gpu_interop::capabilities::{Capabilities, plan, plan_handoff};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::{BufferDesc, Error, Peer};

fn main() -> ExitCode {
    match run() {
        Ok(is_same) => ExitCode::from(u8::from(!is_same)),
        Err(error) => {
            eprintln!("{error}");
            let is_missing = matches!(error.downcast_ref(), Some(Error::Missing(_)));
            ExitCode::from(if is_missing { 2 } else { 1 })
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let gpu = Headless::open(&GpuSelector::Any, &VulkanOptions::default())?;
    println!("GPU: {}", gpu.vulkan.identity());
    let vulkan = capabilities(&gpu.vulkan.endpoint()?)?;
    report(&vulkan, &vulkan);
    match gpu.gl() {
        Ok(gl) => report(&vulkan, &capabilities(&gl.endpoint()?)?),
        Err(error) => println!("OpenGL is not available: {error}"),
    }
    match gpu.cuda() {
        Ok(cuda) => report(&vulkan, &capabilities(&cuda.endpoint()?)?),
        Err(error) => println!("CUDA is not available: {error}"),
    }
    Ok(true)
}

/// Returns what an endpoint can do with a buffer; the same code works for every API.
fn capabilities(peer: &impl Peer) -> Result<Capabilities, Error> {
    peer.capabilities(&BufferDesc::storage(4096).into())
}

/// Prints how a Vulkan buffer can be shared with another endpoint, and how the two would be
/// synchronised.
fn report(vulkan: &Capabilities, other: &Capabilities) {
    match plan(vulkan, other, &BufferDesc::storage(4096).into()) {
        Ok(plan) => println!("Vulkan -> {}: buffers as {}", other.api, plan.handle_type),
        Err(error) => println!("Vulkan -> {}: {error}", other.api),
    }
    match plan_handoff(vulkan, vulkan, other, None) {
        Ok(plan) => println!("    {plan}"),
        Err(error) => println!("    {error}"),
    }
}
