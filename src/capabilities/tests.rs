use proptest::prelude::*;

use super::*;
use crate::desc::BufferDesc;
use crate::error::{DriverError, Error};
use crate::identity::Uuid;

fn missing(api: Api, what: &'static str) -> Missing {
    Missing::new(api, what, "a test")
}

fn identity(byte: u8) -> Identity {
    let uuid = Uuid::from_bytes([byte; 16]);
    Identity { device: uuid, driver: Some(uuid), name: "test".into() }
}

fn support(api: Api, yes: bool, what: &'static str) -> Support {
    if yes { Ok(()) } else { Err(missing(api, what)) }
}

/// Bit by bit: opaque fd export, import; dma-buf export, import; then timeline and binary, each
/// export, import.
fn capabilities(api: Api, bits: u8, gpu: u8, dedicated: Dedicated) -> Capabilities {
    let bit = |n: u8| bits & (1 << n) != 0;
    let memory = [(MemoryHandleType::OpaqueFd, 0), (MemoryHandleType::DmaBuf, 2)]
        .map(|(handle_type, n)| MemorySupport {
            handle_type,
            export: support(api, bit(n), "export"),
            import: support(api, bit(n + 1), "import"),
            dedicated,
        })
        .into();
    let semaphores = [(SemaphoreKind::Timeline, 4), (SemaphoreKind::Binary, 6)]
        .map(|(kind, n)| SemaphoreSupport {
            kind,
            handle_type: SemaphoreHandleType::OpaqueFd,
            export: support(api, bit(n), "semaphore export"),
            import: support(api, bit(n + 1), "semaphore import"),
        })
        .into();
    let desc = BufferDesc::storage(64).into();
    Capabilities { api, identities: vec![identity(gpu)], desc, memory, semaphores }
}

#[test]
fn opaque_fd_comes_first_and_dedicated_is_the_stricter_of_both() {
    let desc = BufferDesc::storage(64).into();
    let from = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let to = capabilities(Api::Cuda, 0xff, 1, Dedicated::Preferred);
    let expected = Plan { handle_type: MemoryHandleType::OpaqueFd, dedicated: true };
    assert_eq!(plan(&from, &to, &desc).unwrap(), expected);
    let to = capabilities(Api::Cuda, 0xff, 1, Dedicated::NotNeeded);
    assert!(!plan(&from, &to, &desc).unwrap().dedicated);
}

#[test]
fn all_importers_share_one_handle_type() {
    let desc = BufferDesc::storage(64).into();
    let from = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let both = capabilities(Api::Vulkan, 0x0a, 1, Dedicated::NotNeeded);
    let dma_buf = capabilities(Api::Vulkan, 0x08, 1, Dedicated::Required);
    let opaque = capabilities(Api::Cuda, 0x02, 1, Dedicated::NotNeeded);
    let found = plan_all(&from, &[both.clone(), dma_buf.clone()], &desc).unwrap();
    assert_eq!(found.to_string(), "dma-buf, dedicated allocation");
    let found = plan_all(&from, &[both, opaque.clone()], &desc).unwrap();
    assert_eq!(found.to_string(), "opaque fd, shared allocation");
    assert!(matches!(plan_all(&from, &[dma_buf, opaque], &desc), Err(Error::Missing(_))));
}

#[test]
fn a_plan_prints_what_was_chosen_and_why() {
    let all = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let binary = capabilities(Api::OpenGl, 0xcf, 1, Dedicated::NotNeeded);
    let print = |to, wanted| plan_handoff(&all, &all, to, wanted).unwrap().to_string();
    assert_eq!(print(&all, None), "timeline semaphore");
    let lacks = "timeline semaphore: OpenGL lacks semaphore import, needed for a test";
    assert_eq!(print(&binary, None), format!("binary semaphore ({lacks})"));
    let other = "the caller asked for another method";
    let expected = format!("host wait (timeline semaphore, binary semaphore: {other})");
    assert_eq!(print(&binary, Some(SyncMethod::HostWait)), expected);
}

#[test]
fn a_method_whose_semaphore_fails_is_replaced_by_the_next() {
    let all = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let failed = DriverError::new(Api::Vulkan, "vkGetSemaphoreFdKHR", -3, "a test");
    let mut rejected = vec![(SyncMethod::Timeline, Rejected::Failed(failed.clone().into()))];
    let plan =
        |rejected: &[_]| plan_handoff_without(&all, &all, &all, None, rejected.to_vec()).unwrap();
    let expected = format!("binary semaphore (timeline semaphore: {failed})");
    assert_eq!(plan(&rejected).to_string(), expected);
    rejected.push((SyncMethod::Binary, Rejected::Failed(failed.clone().into())));
    let expected = format!("host wait (timeline semaphore, binary semaphore: {failed})");
    assert_eq!(plan(&rejected).to_string(), expected);
}

#[test]
fn another_gpu_is_a_mismatch_unless_both_support_dma_bufs() {
    let desc = BufferDesc::storage(64).into();
    let from = capabilities(Api::Vulkan, 0x0f, 1, Dedicated::NotNeeded);
    let to = capabilities(Api::Vulkan, 0x03, 2, Dedicated::NotNeeded);
    assert!(matches!(plan(&from, &to, &desc), Err(Error::Mismatch(_))));
    let to = capabilities(Api::Vulkan, 0x0f, 2, Dedicated::NotNeeded);
    assert_eq!(plan(&from, &to, &desc).unwrap().handle_type, MemoryHandleType::DmaBuf);
}

#[test]
fn capabilities_of_another_resource_are_refused() {
    let caps = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let other = BufferDesc::storage(65).into();
    assert!(matches!(plan(&caps, &caps, &other), Err(Error::Invalid(_))));
}

#[test]
fn a_requested_method_that_is_missing_is_an_error() {
    let none = capabilities(Api::OpenGl, 0x0f, 1, Dedicated::NotNeeded);
    let all = capabilities(Api::Vulkan, 0xff, 1, Dedicated::NotNeeded);
    let error = plan_handoff(&all, &all, &none, Some(SyncMethod::Binary)).unwrap_err();
    assert!(matches!(error, Error::Missing(ref m) if m.api == Api::OpenGl), "{error}");
    let host = plan_handoff(&none, &none, &none, Some(SyncMethod::HostWait)).unwrap();
    assert_eq!(host.method, SyncMethod::HostWait);
}

proptest! {
    #[test]
    fn a_plan_is_supported_by_both_sides(a: u8, b: u8) {
        let desc = BufferDesc::storage(64).into();
        let from = capabilities(Api::Vulkan, a, 1, Dedicated::NotNeeded);
        let to = capabilities(Api::OpenGl, b, 1, Dedicated::NotNeeded);
        let (opaque, dma) = (a & 1 != 0 && b & 2 != 0, a & 4 != 0 && b & 8 != 0);
        match plan(&from, &to, &desc) {
            Ok(found) if opaque => prop_assert_eq!(found.handle_type, MemoryHandleType::OpaqueFd),
            Ok(found) => {
                prop_assert!(dma);
                prop_assert_eq!(found.handle_type, MemoryHandleType::DmaBuf);
            }
            Err(Error::Missing(m)) => {
                prop_assert!(!opaque && !dma);
                prop_assert_eq!(m.api, if a & 1 == 0 { Api::Vulkan } else { Api::OpenGl });
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_handoff_always_has_a_method_and_a_reason_against_each_better_one(o: u8, a: u8, b: u8) {
        let owner = capabilities(Api::Vulkan, o, 1, Dedicated::NotNeeded);
        let from = capabilities(Api::Cuda, a, 1, Dedicated::NotNeeded);
        let to = capabilities(Api::OpenGl, b, 1, Dedicated::NotNeeded);
        let can = |n: u8| o & (1 << n) != 0 && a & (2 << n) != 0 && b & (2 << n) != 0;
        let best = if can(4) { SyncMethod::Timeline }
            else if can(6) { SyncMethod::Binary }
            else { SyncMethod::HostWait };
        let found = plan_handoff(&owner, &from, &to, None).unwrap();
        prop_assert_eq!(found.method, best);
        let tried: Vec<_> = found.rejected.iter().map(|(method, _)| *method).collect();
        let better: Vec<_> = SyncMethod::ORDER.into_iter().filter(|m| *m < best).collect();
        prop_assert_eq!(tried, better);
    }
}
