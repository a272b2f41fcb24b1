//! Sessions under attack: a good consumer gets every frame in time while other processes try to stop the
//! producer, one by one and all at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gpu_interop::Error;
use gpu_interop::session::{Consumer, JoinOptions, ProducerOptions};
use serde::Serialize;

use crate::cases::session::attackers::{ATTACK, ATTACKS, Attack};
use crate::cases::session::peers::{
    Child, SOCKET, TIMEOUT, TestConsumer, TestProducer, directory, parameters,
};
use crate::harness::{Case, Role, TestGpu, child_arguments};

/// How much longer the good consumer's longest gap may be under attack.
const MORE: Duration = Duration::from_millis(200);

/// How long the session runs undisturbed, and how long it is attacked.
const QUIET: Duration = Duration::from_millis(1000);
const ATTACKED: Duration = Duration::from_millis(2500);

/// The time between two frames.
const INTERVAL: Duration = Duration::from_millis(10);

/// Tags of frames count from here while there is an attack.
const UNDER_ATTACK: u64 = 1 << 32;

const MEASURES: &str = "measures the gaps between frames";

pub(in crate::cases) fn cases() -> Vec<Case> {
    let case = |name: &str, attacks: Vec<Attack>| {
        let name = format!("vulkan→vulkan/opaque_fd/session/attacks/{name}/60");
        // What is measured is the time that other work takes.
        Case::new(name, move |test_gpu: &TestGpu| under(test_gpu, &attacks)).alone()
    };
    let mut cases: Vec<_> =
        Attack::ALL.into_iter().map(|attack| case(attack.name(), vec![attack])).collect();
    cases.push(case("all_at_once", Attack::ALL.to_vec()));
    cases
}

pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(MEASURES, measures)]
}

/// In the good consumer: checks every frame, and prints how many there were and the longest times between
/// two of them in ms, without and with an attack.
fn measures() -> Result<()> {
    let (gpu, path, _) = parameters()?;
    let options = JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() };
    let mut consumer = TestConsumer::new(&gpu, Consumer::join(path, options)?)?;
    let (mut longest, mut last) = ([Duration::ZERO; 2], None::<Instant>);
    let end = loop {
        match consumer.step(TIMEOUT) {
            Ok(tag) => {
                let now = Instant::now();
                let gap = last.map_or(Duration::ZERO, |last| now - last);
                let phase = usize::from(tag >= UNDER_ATTACK);
                longest[phase] = longest[phase].max(gap);
                last = Some(now);
            }
            Err(error) if matches!(error.downcast_ref(), Some(Error::Closed { .. })) => {
                break consumer.consumer.end().context("closed, but not ended")?;
            }
            Err(error) => return Err(error),
        }
    };
    let [quiet, attacked] = longest.map(|gap| gap.as_secs_f64() * 1e3);
    println!("{end:?} {} {} {quiet} {attacked}", consumer.verified, consumer.consumer.missed());
    Ok(())
}

/// The result of one session.
#[derive(Debug, Serialize)]
struct AttackReport {
    attacks: Vec<&'static str>,
    frames_verified: u64,
    /// The longest times between two frames of the good consumer.
    longest_gap_ms: Gaps,
    /// The longest times that one call of the producer took.
    longest_drain_ms: Gaps,
    /// Events of the producer while it was attacked.
    events: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Gaps {
    undisturbed: f64,
    attacked: f64,
}

/// A hostile process, which is killed when this is dropped.
struct Attacker(process::Child);

impl Attacker {
    fn start(attack: Attack, path: &Path) -> Result<Self> {
        let mut command = child_arguments(ATTACKS)?;
        command.env(SOCKET, path).env(ATTACK, attack.name());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        if attack == Attack::Lock {
            let output = child.stdout.take().context("no output")?;
            BufReader::new(output).read_line(&mut String::new())?;
        }
        Ok(Self(child))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On a machine with other work, a process may get no processor for longer than the limit. Therefore the gaps
/// are measured again if they are too long, twice at most. Every frame must arrive each time.
fn under(test_gpu: &TestGpu, attacks: &[Attack]) -> Result<()> {
    let mut more = Duration::MAX;
    for _ in 0..3 {
        let gaps = attacked(test_gpu, attacks)?.longest_gap_ms;
        more = Duration::from_secs_f64((gaps.attacked - gaps.undisturbed).max(0.0) / 1e3);
        if more <= MORE {
            return Ok(());
        }
    }
    anyhow::bail!("the longest gap is longer by {more:?}, three times");
}

fn attacked(test_gpu: &TestGpu, attacks: &[Attack]) -> Result<AttackReport> {
    let directory = directory()?;
    let path = directory.path().join("socket");
    // The directory's lock is taken before the producer binds.
    let mut attackers = Vec::new();
    if attacks.contains(&Attack::Lock) {
        attackers.push(Attacker::start(Attack::Lock, &path)?);
    }
    // A silent consumer may delay the others once, for this long.
    let evict_after = Duration::from_millis(120);
    let options = ProducerOptions { evict_after, ..ProducerOptions::default() };
    let started = Instant::now();
    let mut test = TestProducer::open(test_gpu.vulkan(), Some(&path), options)?;
    ensure!(started.elapsed() < Duration::from_secs(1), "bind took {:?}", started.elapsed());
    let good = Child::start(test_gpu, MEASURES, &path, None)?;
    test.producer.wait_for_consumers(1, TIMEOUT)?;
    while test.producer.poll(Duration::ZERO)?.is_some() {}

    let mut drains = Gaps::default();
    let (mut events, mut first) = (0, 0);
    run(&mut test, QUIET, &mut drains.undisturbed, &mut events)?;
    first += test.published;
    events = 0;
    for attack in attacks.iter().filter(|attack| **attack != Attack::Lock) {
        attackers.push(Attacker::start(*attack, &path)?);
    }
    test.tags = UNDER_ATTACK;
    run(&mut test, ATTACKED, &mut drains.attacked, &mut events)?;
    let published = test.published;
    ensure!(published > first, "no frame was published under attack");
    // The end is attacked as well.
    let started = Instant::now();
    test.finish()?;
    ensure!(started.elapsed() < Duration::from_secs(2), "finish took {:?}", started.elapsed());
    drop(attackers);

    let output = good.end()?;
    let words: Vec<_> = output.split(' ').collect();
    let [end, verified, missed, quiet, attacked] = words[..] else {
        anyhow::bail!("the good consumer: {output}")
    };
    let gaps = Gaps { undisturbed: quiet.parse()?, attacked: attacked.parse()? };
    let report = AttackReport {
        attacks: attacks.iter().map(|attack| attack.name()).collect(),
        frames_verified: verified.parse()?,
        longest_gap_ms: gaps,
        longest_drain_ms: drains,
        events,
    };
    report.write()?;
    ensure!(end == "Done" && missed == "0", "the good consumer: {output}");
    ensure!(report.frames_verified == published, "{verified} of {published} frames");
    Ok(report)
}

/// Publishes frames at a constant rate for a while, and fetches all events after each.
fn run(
    test: &mut TestProducer<'_>,
    time: Duration,
    drain: &mut f64,
    events: &mut u64,
) -> Result<()> {
    let started = Instant::now();
    let mut next = started;
    while started.elapsed() < time {
        test.step(Duration::from_millis(50))?;
        let draining = Instant::now();
        while test.producer.poll(Duration::ZERO)?.is_some() {
            *events += 1;
        }
        *drain = drain.max(draining.elapsed().as_secs_f64() * 1e3);
        next += INTERVAL;
        match next.checked_duration_since(Instant::now()) {
            Some(left) => std::thread::sleep(left),
            None => next = Instant::now(),
        }
    }
    Ok(())
}

impl AttackReport {
    /// Appends it to the file `INTEROP_ATTACKS_REPORT`, one line per session.
    fn write(&self) -> Result<()> {
        let Some(path) = std::env::var_os("INTEROP_ATTACKS_REPORT") else { return Ok(()) };
        let mut file = File::options().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}
