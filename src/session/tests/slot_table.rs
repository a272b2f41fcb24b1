//! At any time a slot is free, being written, or held by the consumers that have not released it.

use proptest::prelude::*;

use crate::ipc::wire::ReleaseToken;
use crate::session::slot_table::{HeldSlots, SlotTable, WritableSlot};

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
                    prop_assert!(table.check_own(&slot).is_err());
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
