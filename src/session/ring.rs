//! The ring that a producer announces, and the state of each slot: free, being written, or held by
//! consumers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::work::{Deadline, SlotWork, WORK_TIMEOUT};
use crate::error::{Error, Invalid, Mismatch, Result};
use crate::ipc::wire::{MAX_NAME, MAX_SEMAPHORES, MAX_SLOTS, ReleaseToken, RingInfo};
use crate::payload::{Payload, SemaphoreKind, SemaphorePayload};

/// The ring of a session: one payload per slot, timeline semaphores, and what a frame contains.
///
/// The producer fills it with its exports. Each consumer gets its own copy to import, with its own
/// descriptors.
#[derive(Debug, Default)]
pub struct Ring {
    /// The ring's name, for people to read. At most 256 bytes, without control characters.
    pub name: String,
    /// What a frame contains, as far as the payloads don't describe it, for example `rgba8
    /// 1920x1080`. Producer and consumer agree on its meaning. At most 256 bytes, without control
    /// characters.
    pub format: String,
    /// One memory, buffer or image payload per slot, 1 to 64.
    pub slots: Vec<Payload>,
    /// The timeline semaphores that frames refer to, at most 8.
    ///
    /// Binary semaphores are not supported. Each signal has one waiter, and a signal whose consumer
    /// has died would stay pending.
    pub semaphores: Vec<SemaphorePayload>,
}

impl Ring {
    /// Creates a ring without slots and semaphores.
    pub fn new(name: impl Into<String>, format: impl Into<String>) -> Self {
        Self { name: name.into(), format: format.into(), ..Self::default() }
    }

    /// Adds a slot.
    #[must_use]
    pub fn slot(mut self, payload: impl Into<Payload>) -> Self {
        self.slots.push(payload.into());
        self
    }

    /// Adds a timeline semaphore.
    #[must_use]
    pub fn semaphore(mut self, payload: SemaphorePayload) -> Self {
        self.semaphores.push(payload);
        self
    }

    /// Returns the message that announces the ring.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a consumer would refuse the ring.
    pub(super) fn info(&self, drops_frames: bool) -> Result<RingInfo> {
        let wrong = |field, problem: String| Err(Error::from(Invalid::new(field, problem)));
        let (slots, semaphores) = (self.slots.len(), self.semaphores.len());
        if !(1..=MAX_SLOTS).contains(&slots) {
            return wrong("ring.slots", format!("are {slots}, not 1 to {MAX_SLOTS}"));
        }
        if self.slots.iter().any(|slot| matches!(slot, Payload::Semaphore(_))) {
            return wrong("ring.slots", "contain a semaphore; add it with Ring::semaphore".into());
        }
        if semaphores > MAX_SEMAPHORES {
            let problem = format!("are {semaphores}, not 0 to {MAX_SEMAPHORES}");
            return wrong("ring.semaphores", problem);
        }
        for (field, text) in [("ring.name", &self.name), ("ring.format", &self.format)] {
            if text.len() > MAX_NAME {
                return wrong(field, format!("has {} bytes, more than {MAX_NAME}", text.len()));
            }
            if text.chars().any(char::is_control) {
                return wrong(field, "contains a control character".into());
            }
        }
        self.semaphores.iter().try_for_each(check_timeline)?;
        Ok(RingInfo {
            slots: slots as u32,
            semaphores: semaphores as u32,
            drops_frames,
            name: self.name.clone(),
            format: self.format.clone(),
        })
    }
}

/// Refuses a semaphore that a session can't use.
pub(super) fn check_timeline(semaphore: &SemaphorePayload) -> Result<()> {
    match semaphore.info().kind {
        SemaphoreKind::Timeline => Ok(()),
        SemaphoreKind::Binary => Err(Invalid::new("ring.semaphores", "contain a binary semaphore")
            .help("use a timeline semaphore, or wait on the host before publishing")
            .into()),
    }
}

/// A slot of the ring that only the producer uses, and may write to.
///
/// [`Producer::publish`](super::Producer::publish) sends it to the consumers. Dropping it frees the
/// slot as soon as the added [work](Self::add_work) is done.
#[derive(Debug)]
#[must_use = "publish the slot; no consumer sees it otherwise"]
pub struct WritableSlot {
    index: usize,
    work: Arc<Mutex<SlotWork>>,
}

fn locked(work: &Mutex<SlotWork>) -> MutexGuard<'_, SlotWork> {
    // A panic in the application's wait leaves the list unchanged.
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WritableSlot {
    /// Returns the index of the slot, from 0. Its payload is the one at this index of
    /// [`Ring::slots`](super::Ring::slots).
    pub fn index(&self) -> usize {
        self.index
    }

    /// Adds submitted GPU work that uses the slot, as [described](super#work-on-the-gpu). The
    /// producer does not return the slot again before the work is done, even if the slot is dropped
    /// or published, or its consumers leave.
    ///
    /// `wait` waits on the host for at most the given time (0: not at all), and returns
    /// [`Error::Timeout`] if the work is not done by then. It owns what the work uses.
    pub fn add_work(&mut self, wait: impl FnMut(Duration) -> Result<()> + Send + 'static) {
        locked(&self.work).add(wait);
    }

    /// Returns whether all work that was added is done. Never waits.
    pub(super) fn is_done(&self) -> bool {
        locked(&self.work).is_done(Duration::ZERO)
    }
}

#[derive(Debug)]
enum State {
    Free,
    /// The producer writes to it until its [`WritableSlot`] is dropped.
    Writing,
    /// This many consumers hold it.
    Sent(usize),
}

#[derive(Debug)]
struct Slot {
    state: State,
    /// The producer's work. A [`WritableSlot`] holds it as well.
    work: Arc<Mutex<SlotWork>>,
}

/// The slots of a ring.
#[derive(Debug)]
pub(super) struct SlotTable {
    slots: Vec<Slot>,
    /// The free slots. The one that has been free for longest comes first.
    free: VecDeque<usize>,
}

impl SlotTable {
    pub(super) fn new(slots: usize) -> Self {
        let slot = |_| Slot { state: State::Free, work: Arc::default() };
        Self { slots: (0..slots).map(slot).collect(), free: (0..slots).collect() }
    }

    /// Returns the slot that has been free for longest, or `None` if no slot is free.
    pub(super) fn take(&mut self) -> Option<WritableSlot> {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if matches!(slot.state, State::Writing) && Arc::strong_count(&slot.work) == 1 {
                slot.state = State::Free;
                self.free.push_back(index);
            }
        }
        let is_done = |&slot: &usize| locked(&self.slots[slot].work).is_done(Duration::ZERO);
        let at = self.free.iter().position(is_done)?;
        let index = self.free.remove(at)?;
        let slot = &mut self.slots[index];
        slot.state = State::Writing;
        Some(WritableSlot { index, work: slot.work.clone() })
    }

    /// Returns whether some slot is free except for the producer's own work.
    pub(super) fn is_any_in_work(&self) -> bool {
        !self.free.is_empty()
    }

    /// Checks that the slot was taken from this table.
    pub(super) fn check_own(&self, slot: &WritableSlot) -> Result<()> {
        match self.slots.get(slot.index) {
            Some(own) if Arc::ptr_eq(&own.work, &slot.work) => Ok(()),
            _ => Err(Mismatch::new("slot.producer", "this producer", "another producer")
                .help("publish a slot with the producer that it was taken from")
                .into()),
        }
    }

    /// Records that `holders` consumers hold the slot from now on.
    pub(super) fn sent(&mut self, slot: &WritableSlot, holders: usize) {
        self.slots[slot.index].state = State::Sent(holders);
        if holders == 0 {
            self.release(slot.index, 0);
        }
    }

    /// Records that a consumer no longer holds the slot.
    pub(super) fn released(&mut self, index: usize) {
        self.release(index, 1);
    }

    fn release(&mut self, index: usize, by: usize) {
        let Some(Slot { state, .. }) = self.slots.get_mut(index) else { return };
        let State::Sent(holders) = state else { return };
        *holders = holders.saturating_sub(by);
        if *holders == 0 {
            *state = State::Free;
            self.free.push_back(index);
        }
    }

    /// Returns whether consumers hold any slot.
    pub(super) fn is_any_sent(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, State::Sent(_)))
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        // One timeout for all. A slot that the application still has waits when it is dropped.
        let deadline = Deadline::after(WORK_TIMEOUT);
        for slot in self.slots.iter().filter(|slot| Arc::strong_count(&slot.work) == 1) {
            locked(&slot.work).end(deadline.left().unwrap_or_default());
        }
    }
}

/// The slots that one consumer holds.
#[derive(Debug)]
pub(super) struct HeldSlots {
    /// The sequence number of the frame in each slot that it holds.
    frames: Vec<Option<u64>>,
    count: usize,
    /// Whether it ever released one.
    has_released: bool,
    /// When it last released a slot, or got one while it held none.
    since: Instant,
}

impl HeldSlots {
    pub(super) fn new(slots: usize) -> Self {
        Self { frames: vec![None; slots], count: 0, has_released: false, since: Instant::now() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn has_released(&self) -> bool {
        self.has_released
    }

    /// Returns how long it has released none of its slots, or `None` if it holds none.
    pub(super) fn silent(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.since.elapsed())
    }

    pub(super) fn add(&mut self, slot: usize, sequence: u64) {
        if self.count == 0 {
            self.since = Instant::now();
        }
        if let Some(frame) = self.frames.get_mut(slot) {
            self.count += usize::from(frame.is_none());
            *frame = Some(sequence);
        }
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) if it does not hold the slot, or holds it with another
    /// frame.
    pub(super) fn remove(&mut self, release: &ReleaseToken) -> Result<usize> {
        let ReleaseToken { slot, sequence } = *release;
        let index = slot as usize;
        let problem = match self.frames.get_mut(index) {
            Some(frame) if *frame == Some(sequence) => {
                *frame = None;
                self.count -= 1;
                self.has_released = true;
                self.since = Instant::now();
                return Ok(index);
            }
            Some(Some(other)) => format!("slot {slot} holds frame {other}, not {sequence}"),
            Some(None) => format!("slot {slot} is not held by the consumer"),
            None => format!("the ring has no slot {slot}"),
        };
        Err(Invalid::new("release", problem).help("release each frame once").into())
    }

    /// Returns the indices of the slots that it holds.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        let held = |(slot, frame): (usize, &Option<u64>)| frame.is_some().then_some(slot);
        self.frames.iter().enumerate().filter_map(held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take,
        Drop,
        /// To the consumers whose bit is set.
        Send(u8),
        /// Consumer, slot, and how many frames ago.
        Release(usize, u32, u64),
        Die(usize),
    }

    const SLOTS: usize = 3;
    const CONSUMERS: usize = 3;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Take),
            1 => Just(Step::Drop),
            3 => any::<u8>().prop_map(Step::Send),
            6 => (0..CONSUMERS, 0..SLOTS as u32 + 1, 0..4u64).prop_map(|(c, s, n)| Step::Release(c, s, n)),
            1 => (0..CONSUMERS).prop_map(Step::Die),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_slot_is_lost_or_used_twice(steps in prop::collection::vec(step(), 0..60)) {
            let mut table = SlotTable::new(SLOTS);
            let mut consumers: Vec<HeldSlots> = (0..CONSUMERS).map(|_| HeldSlots::new(SLOTS)).collect();
            // The same in another form: the frame that each consumer holds in each slot.
            let mut expected = vec![vec![None; SLOTS]; CONSUMERS];
            let (mut taken, mut sequence): (Vec<WritableSlot>, u64) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Take => taken.extend(table.take()),
                    Step::Drop => drop(taken.pop()),
                    Step::Send(to) => {
                        let Some(slot) = taken.pop() else { continue };
                        prop_assert!(table.check_own(&slot).is_ok());
                        sequence += 1;
                        let mut holders = 0;
                        for (c, held) in consumers.iter_mut().enumerate() {
                            if to >> c & 1 == 1 {
                                held.add(slot.index(), sequence);
                                expected[c][slot.index()] = Some(sequence);
                                holders += 1;
                            }
                        }
                        table.sent(&slot, holders);
                    }
                    Step::Release(c, slot, ago) => {
                        let sequence = sequence.saturating_sub(ago);
                        let has = expected[c].get(slot as usize) == Some(&Some(sequence));
                        let back = consumers[c].remove(&ReleaseToken { slot, sequence });
                        prop_assert_eq!(back.is_ok(), has);
                        if let Ok(slot) = back {
                            expected[c][slot] = None;
                            table.released(slot);
                        }
                    }
                    Step::Die(c) => {
                        let dead = std::mem::replace(&mut consumers[c], HeldSlots::new(SLOTS));
                        let had: Vec<_> = dead.slots().collect();
                        prop_assert_eq!(had.len(), dead.count());
                        had.into_iter().for_each(|slot| table.released(slot));
                        expected[c] = vec![None; SLOTS];
                    }
                }
                for (held, expected) in consumers.iter().zip(&expected) {
                    let count = expected.iter().flatten().count();
                    prop_assert_eq!((held.count(), held.silent().is_some()), (count, count > 0));
                }
                let with_consumers: Vec<_> =
                    (0..SLOTS).filter(|slot| expected.iter().any(|held| held[*slot].is_some())).collect();
                prop_assert_eq!(table.is_any_sent(), !with_consumers.is_empty());
                prop_assert!(taken.iter().all(|slot| !with_consumers.contains(&slot.index())));
            }
            // All slots that no consumer holds can be taken, each once.
            let free = std::iter::from_fn(|| table.take()).collect::<Vec<_>>();
            let mut all: Vec<_> = free.iter().chain(&taken).map(WritableSlot::index).collect();
            all.extend((0..SLOTS).filter(|slot| expected.iter().any(|held| held[*slot].is_some())));
            all.sort();
            prop_assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
        }
    }
}
