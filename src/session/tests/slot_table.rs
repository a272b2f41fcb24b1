//! Whatever happens, a slot is free, the producer's, or with those that have not given it back.

use proptest::prelude::*;

use crate::ipc::wire::ReleaseToken;
use crate::session::slot_table::{Held, Slot, SlotTable};

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Drop,
    /// To those consumers whose bit is set.
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
    fn no_slot_is_lost_or_in_two_hands(steps in prop::collection::vec(step(), 0..60)) {
        let mut ledger = SlotTable::new(SLOTS);
        let mut consumers: Vec<Held> = (0..CONSUMERS).map(|_| Held::new(SLOTS)).collect();
        // The same, told in another way: who has each slot, with which frame.
        let mut truth = vec![vec![None; SLOTS]; CONSUMERS];
        let (mut taken, mut sequence): (Vec<Slot>, u64) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Take => taken.extend(ledger.take()),
                Step::Drop => drop(taken.pop()),
                Step::Send(to) => {
                    let Some(slot) = taken.pop() else { continue };
                    prop_assert!(ledger.check_own(&slot).is_ok());
                    sequence += 1;
                    let mut holders = 0;
                    for (c, held) in consumers.iter_mut().enumerate() {
                        if to >> c & 1 == 1 {
                            held.add(slot.index(), sequence);
                            truth[c][slot.index()] = Some(sequence);
                            holders += 1;
                        }
                    }
                    ledger.sent(&slot, holders);
                    prop_assert!(ledger.check_own(&slot).is_err());
                }
                Step::Release(c, slot, ago) => {
                    let sequence = sequence.saturating_sub(ago);
                    let has = truth[c].get(slot as usize) == Some(&Some(sequence));
                    let back = consumers[c].take_back(&ReleaseToken { slot, sequence });
                    prop_assert_eq!(back.is_ok(), has);
                    if let Ok(slot) = back {
                        truth[c][slot] = None;
                        ledger.given_back(slot);
                    }
                }
                Step::Die(c) => {
                    let dead = std::mem::replace(&mut consumers[c], Held::new(SLOTS));
                    let had: Vec<_> = dead.slots().collect();
                    prop_assert_eq!(had.len(), dead.count());
                    had.into_iter().for_each(|slot| ledger.given_back(slot));
                    truth[c] = vec![None; SLOTS];
                }
            }
            for (held, truth) in consumers.iter().zip(&truth) {
                let count = truth.iter().flatten().count();
                prop_assert_eq!((held.count(), held.silent().is_some()), (count, count > 0));
            }
            let with_consumers: Vec<_> =
                (0..SLOTS).filter(|slot| truth.iter().any(|held| held[*slot].is_some())).collect();
            prop_assert_eq!(ledger.is_any_sent(), !with_consumers.is_empty());
            prop_assert!(taken.iter().all(|slot| !with_consumers.contains(&slot.index())));
        }
        // All that nobody has can be taken, each once.
        let free = std::iter::from_fn(|| ledger.take()).collect::<Vec<_>>();
        let mut all: Vec<_> = free.iter().chain(&taken).map(Slot::index).collect();
        all.extend((0..SLOTS).filter(|slot| truth.iter().any(|held| held[*slot].is_some())));
        all.sort();
        prop_assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
    }
}
