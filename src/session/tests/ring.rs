//! What can be announced.

use super::*;

fn refused(ring: Ring, options: ProducerOptions) -> String {
    field_of(&Producer::unbound(ring, options).unwrap_err()).to_owned()
}

#[test]
fn a_ring_that_a_consumer_would_refuse_is_refused() {
    let options = ProducerOptions::default;
    assert_eq!(refused(ring(0), options()), "ring.slots");
    assert_eq!(refused(ring(65), options()), "ring.slots");
    let many = (0..9).fold(ring(1), |ring, _| ring.semaphore(semaphore(SemaphoreKind::Timeline)));
    assert_eq!(refused(many, options()), "ring.semaphores");
    let binary = ring(1).semaphore(semaphore(SemaphoreKind::Binary));
    assert_eq!(refused(binary, options()), "ring.semaphores");
    let named = |name: &str, format: &str| Ring { name: name.into(), ..Ring::new("", format) };
    assert_eq!(refused(named(&"x".repeat(257), "").slot(buffer(1)), options()), "ring.name");
    assert_eq!(refused(named("", "\x1b[2J").slot(buffer(1)), options()), "ring.format");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let nobody = ProducerOptions { max_consumers: 0, ..ProducerOptions::default() };
    assert_eq!(refused(ring(1), nobody), "options.max_consumers");
    let pace = Pace::DropFrames { held: 0 };
    let never = ProducerOptions { pace, ..ProducerOptions::default() };
    assert_eq!(refused(ring(1), never), "options.pace");
}

#[test]
fn a_slots_payload_is_what_it_is() {
    let slot = SlotPayload::from(buffer(3));
    assert_eq!(slot.try_clone().unwrap().into_buffer().unwrap().desc().size, 3);
    assert!(matches!(slot.into_image(), Err(Error::Mismatch(_))));
    let memory = MemoryPayload::new(memfd(8192), memory_info()).unwrap();
    assert!(matches!(SlotPayload::from(memory).into_buffer(), Err(Error::Mismatch(_))));
}
