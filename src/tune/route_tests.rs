//! Routes without any driver: support is a function of capabilities.

use super::*;
use crate::capabilities::SemaphoreSupport;
use crate::desc::BufferDesc;
use crate::fd::SemaphoreHandleType;

fn side(api: Api, kinds: &[SemaphoreKind]) -> Capabilities {
    let support = |kind| {
        let lacks = Missing::new(api, format!("{kind:?} semaphores"), "a handoff");
        let is_there: Support = if kinds.contains(&kind) { Ok(()) } else { Err(lacks) };
        SemaphoreSupport {
            kind,
            handle_type: SemaphoreHandleType::OpaqueFd,
            export: is_there.clone(),
            import: is_there,
        }
    };
    Capabilities {
        api,
        identities: Vec::new(),
        desc: BufferDesc::storage(16).into(),
        memory: Vec::new(),
        semaphores: vec![support(SemaphoreKind::Timeline), support(SemaphoreKind::Binary)],
    }
}

const BOTH: &[SemaphoreKind] = &[SemaphoreKind::Timeline, SemaphoreKind::Binary];

fn possible(stations: &[&Capabilities], in_queue: &Support) -> Vec<String> {
    let owner = side(Api::Vulkan, BOTH);
    let between = RouteEndpoints { owner: &owner, stations, in_queue };
    let routes = Route::ALL.into_iter().filter(|route| route.support(&between).is_ok());
    routes.map(|route| route.to_string()).collect()
}

#[test]
fn a_route_takes_what_all_stations_have() {
    let (vulkan, cuda) = (side(Api::Vulkan, BOTH), side(Api::Cuda, BOTH));
    let gl = side(Api::OpenGl, &[SemaphoreKind::Binary]);
    let all = ["timeline", "binary", "host-wait", "host-wait-spin", "in-queue"];
    assert_eq!(possible(&[&vulkan, &cuda], &Ok(())), all);
    assert_eq!(possible(&[&vulkan, &cuda, &gl], &Ok(())), all[1..4]);
    let bare = side(Api::OpenGl, &[]);
    assert_eq!(possible(&[&bare, &cuda], &Ok(())), all[2..4]);
}

#[test]
fn in_the_queue_are_vulkan_and_cuda_alone_and_what_is_missing_is_named() {
    let (vulkan, cuda) = (side(Api::Vulkan, BOTH), side(Api::Cuda, BOTH));
    let gl = side(Api::OpenGl, BOTH);
    let owner = side(Api::Vulkan, BOTH);
    let refused = |stations: &[&Capabilities], in_queue: &Support| {
        Route::SameQueue.support(&RouteEndpoints { owner: &owner, stations, in_queue }).unwrap_err()
    };
    let lacks = Missing::new(Api::Vulkan, "VK_NVX_binary_import", "CUDA kernels in its queue");
    assert_eq!(refused(&[&vulkan, &cuda], &Err(lacks.clone())), lacks);
    assert_eq!(refused(&[&vulkan, &gl], &Ok(())).api, Api::OpenGl);
    assert_eq!(refused(&[&vulkan, &cuda, &gl], &Ok(())).api, Api::OpenGl);
    assert_eq!(refused(&[&vulkan, &vulkan], &Ok(())).api, Api::Cuda);
    assert_eq!(refused(&[&cuda], &Ok(())).api, Api::Vulkan);
}

#[test]
fn what_a_semaphore_lacks_is_named_with_its_api() {
    let (vulkan, bare) = (side(Api::Vulkan, BOTH), side(Api::OpenGl, &[]));
    let between = RouteEndpoints { owner: &vulkan, stations: &[&vulkan, &bare], in_queue: &Ok(()) };
    let timeline = Route::Semaphore(SemaphoreKind::Timeline);
    let missing = timeline.support(&between).unwrap_err();
    assert_eq!(missing.api, Api::OpenGl);
    assert!(missing.what.contains("Timeline"), "{missing}");
}

#[test]
fn a_route_survives_printing_and_says_what_it_needs() {
    for route in Route::ALL {
        assert_eq!(route.to_string().parse(), Ok(route));
        assert!(!route.needs().is_empty());
        assert!(route.needs().iter().all(|need| !need.to_string().is_empty()));
        assert_eq!(route.handoff().map(|options| options.method), route.method().map(Some));
    }
    let error = "carrier-pigeon".parse::<Route>().unwrap_err().to_string();
    assert!(error.contains("carrier-pigeon") && error.contains("host-wait-spin"), "{error}");
    let spin = Route::HostWait(WaitMode::Spin).handoff().unwrap();
    assert_eq!((spin.method, spin.wait), (Some(SyncMethod::HostWait), WaitMode::Spin));
}
