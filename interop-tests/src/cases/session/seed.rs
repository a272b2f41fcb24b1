//! SplitMix64 that can be had again, and what a process holds before and after.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Descriptors, open_descriptors};

/// Numbers that look like chance and are the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct SplitMix64 {
    seed: u64,
    state: u64,
}

/// What `INTEROP_SEED` says where it is not set.
const SEED: u64 = 0x5e55_1011;

impl SplitMix64 {
    /// Of `INTEROP_SEED`, or always the same.
    pub(crate) fn new() -> Result<Self> {
        let seed = match std::env::var("INTEROP_SEED") {
            Ok(text) => text.parse().context("INTEROP_SEED")?,
            Err(_) => SEED,
        };
        Ok(Self { seed, state: seed })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

/// How many times a peer dies: `INTEROP_KILLS`, else few.
pub(crate) fn kills() -> Result<u32> {
    match std::env::var("INTEROP_KILLS") {
        Ok(text) => text.parse().context("INTEROP_KILLS"),
        Err(_) => Ok(25),
    }
}

/// For how long, since the machine was started, somebody was ready to run while others had the
/// processors. 0 where the kernel does not tell.
///
/// A process that is killed needs a processor to end, as the one that is told of it does.
pub(crate) fn processors_wanted() -> Duration {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = pressure.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}

/// What this process has open and mapped.
#[derive(Clone, Debug)]
pub(crate) struct ProcessResources {
    pub(crate) descriptors: Descriptors,
    /// Mappings of memory that a driver shares: memfds and the devices of GPUs.
    pub(crate) shared: usize,
    /// Their size in KiB.
    pub(crate) shared_kib: u64,
    /// The whole address space in KiB.
    pub(crate) address_space_kib: u64,
}

/// How far the heap may have grown meanwhile, of this process and of its drivers.
const HEAP_KIB: u64 = 32 << 10;

impl ProcessResources {
    pub(crate) fn now() -> Result<Self> {
        let (mut shared, mut shared_kib) = (0, 0);
        for line in fs::read_to_string("/proc/self/maps")?.lines() {
            if !(line.contains("/memfd:") || line.contains("/dev/nvidia")) {
                continue;
            }
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let (from, to) = range.with_context(|| format!("a mapping without ends: {line}"))?;
            let bytes = u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?;
            shared += 1;
            shared_kib += bytes >> 10;
        }
        let status = fs::read_to_string("/proc/self/status")?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let size = size.and_then(|text| text.trim().strip_suffix(" kB"));
        let address_space_kib = size.context("VmSize of /proc/self/status")?.parse()?;
        Ok(Self { descriptors: open_descriptors(), shared, shared_kib, address_space_kib })
    }

    /// Checks that as much is open and no more mapped now: NVIDIA's driver gives back some of what it
    /// mapped for itself.
    pub(crate) fn require_same(&self, now: &Self) -> Result<()> {
        self.descriptors.require_same(&now.descriptors)?;
        let (before, after) = ((self.shared, self.shared_kib), (now.shared, now.shared_kib));
        let is_more = after.0 > before.0 || after.1 > before.1;
        ensure!(!is_more, "shared mappings and KiB: {before:?} before, {after:?} after");
        let grown = now.address_space_kib.saturating_sub(self.address_space_kib);
        ensure!(grown <= HEAP_KIB, "the address space has grown by {grown} KiB: {self:?}");
        Ok(())
    }
}
