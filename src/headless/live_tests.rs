//! Tests on the drivers of this machine. Where an API isn't there they are skipped, with the reason.

use std::sync::{Arc, Mutex};

use ash::vk;

use super::*;
use crate::error::Missing;
use crate::identity::Uuid;

/// What was opened, or `None` and a word why not: only what is *missing* is skipped.
fn there<T>(opened: Result<T>) -> Option<T> {
    match opened {
        Ok(opened) => Some(opened),
        Err(Error::Missing(missing)) => {
            eprintln!("skipped: {missing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn vulkan() -> Option<Vulkan> {
    there(Vulkan::open(&GpuSelector::Any, &VulkanOptions::default()))
}

fn gl() -> Option<Gl> {
    there(Gl::open(&GpuSelector::Any))
}

/// Submits nothing and waits for it.
fn submit(vulkan: &Vulkan) {
    let device = vulkan.device();
    // SAFETY: the fence is new, the queue is used under its lock, and the wait has no end but the
    // fence's signal, after which nothing uses it.
    unsafe {
        let fence = device.create_fence(&vk::FenceCreateInfo::default(), None).unwrap();
        vulkan.with_queue(|queue| device.queue_submit(queue, &[], fence)).unwrap();
        device.wait_for_fences(&[fence], true, u64::MAX).unwrap();
        device.destroy_fence(fence, None);
    }
}

#[test]
fn what_is_shared_between_threads_may_be() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Vulkan>();
    shared::<Cuda>();
}

#[test]
fn all_apis_are_on_one_gpu() {
    let Some(headless) = there(Headless::open(&GpuSelector::Any, &VulkanOptions::default())) else {
        return;
    };
    let identity = headless.vulkan.identity();
    let vulkan = headless.vulkan.endpoint().unwrap();
    assert_eq!(vulkan.identities(), std::slice::from_ref(identity));
    if let Some(gl) = there(headless.gl()) {
        assert!(gl.is_current());
        identity.check_same(gl.endpoint().unwrap().identities()).unwrap();
    }
    if let Some(cuda) = there(headless.cuda()) {
        identity.check_same(cuda.endpoint().unwrap().identities()).unwrap();
    }
    let gpus = enumerate_gpus();
    let gpu = gpus.iter().find(|gpu| gpu.uuid == identity.device).unwrap();
    assert_eq!(gpu.device_type, Some(headless.vulkan.device_type()));
    assert_eq!(gpu.seen_by.contains(&crate::Api::OpenGl), headless.gl.is_ok());
    assert_eq!(gpu.cuda_ordinal.is_some(), headless.cuda.is_ok());
    assert!(headless.gl().map_or(true, Gl::is_current), "listing GPUs leaves the context current");
}

#[test]
fn a_gpu_that_is_not_there_is_told_with_those_that_are() {
    let wish = GpuSelector::Uuid(Uuid::from_bytes([0xAB; 16]));
    if let Some(vulkan) = vulkan() {
        let error = Vulkan::open(&wish, &VulkanOptions::default()).unwrap_err();
        let uuid = vulkan.identity().device.to_string();
        assert!(matches!(error, Error::Missing(Missing { help: Some(ref help), .. })
            if help.contains(&uuid)));
    }
    if let Some(gl) = gl() {
        let error = Gl::open(&wish).unwrap_err();
        let uuid = gl.identities()[0].device.to_string();
        assert!(error.to_string().contains(&uuid), "{error}");
        assert!(gl.is_current(), "what was current before is again");
    }
    assert!(matches!(Cuda::open(&wish), Err(Error::Missing(_) | Error::Driver(_))));
}

#[test]
fn devices_are_independent_and_outlived_by_what_uses_them() {
    let (Some(first), Some(other)) = (vulkan(), vulkan()) else { return };
    let second = first.second_device().unwrap();
    assert_ne!(first.instance().handle(), other.instance().handle());
    assert_eq!(first.instance().handle(), second.instance().handle());
    assert_ne!(first.device().handle(), second.device().handle());
    let endpoint = first.endpoint().unwrap();
    drop(first);
    // SAFETY: the endpoint keeps the device alive.
    unsafe { endpoint.device().device_wait_idle() }.unwrap();
    drop(endpoint);
    submit(&second);
    submit(&other);
}

#[test]
fn several_threads_share_a_queue() {
    let Some(vulkan) = vulkan() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| submit(&vulkan)));
        }
    });
    vulkan.wait_idle().unwrap();
}

#[test]
fn dropping_a_context_leaves_others_alone() {
    let (Some(first), Some(second)) = (gl(), gl()) else { return };
    assert!(second.is_current() && !first.is_current());
    drop(first);
    assert!(second.is_current());
    let endpoint = second.endpoint().unwrap();
    drop(second);
    assert!(endpoint.is_current(), "the endpoint keeps the context");
    let Some(third) = gl() else { return };
    drop(endpoint);
    assert!(third.is_current());
    third.release_current().unwrap();
    assert!(!third.is_current());
    third.release_current().unwrap();
    third.make_current().unwrap();
    assert!(third.is_current());
}

#[test]
fn contexts_on_several_threads_do_not_end_each_other() {
    let Some(gl) = gl() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..4).for_each(|_| drop(Gl::open(&GpuSelector::Any).unwrap())));
        }
    });
    assert!(gl.is_current());
    gl.make_current().unwrap();
    gl.endpoint().unwrap();
}

#[test]
fn a_context_stands_the_end_of_the_last_instance() {
    let Some(gl) = gl() else { return };
    drop(vulkan());
    assert!(gl.is_current());
    gl.endpoint().unwrap();
    gl.release_current().unwrap();
    drop(Gl::open(&GpuSelector::Any).unwrap());
    gl.make_current().unwrap();
}

#[test]
fn threads_end_while_others_open_and_close() {
    if vulkan().is_none() || gl().is_none() {
        return;
    }
    let open_and_close = || {
        let vulkan = Vulkan::open(&GpuSelector::Any, &VulkanOptions::default()).unwrap();
        let gl = Gl::open(&GpuSelector::Any).unwrap();
        submit(&vulkan);
        gl.release_current().unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    std::thread::scope(|scope| drop(scope.spawn(open_and_close)));
                }
            });
        }
    });
}

#[test]
fn a_mistake_is_reported_by_the_validation_layer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let options = VulkanOptions::default()
        .validation(Validation::Required)
        .synchronisation_validation(true)
        .messages(move |message| into.lock().unwrap().push(message));
    let Some(vulkan) = there(Vulkan::open(&GpuSelector::Any, &options)) else { return };
    assert!(vulkan.is_validated());
    submit(&vulkan);
    assert_eq!(*seen.lock().unwrap(), [], "opening and submitting is no mistake");
    let info = vk::BufferCreateInfo::default().usage(vk::BufferUsageFlags::STORAGE_BUFFER);
    // SAFETY: none: a buffer of 0 bytes breaks a rule, which the drivers put up with and the layer
    // is here to see.
    if let Ok(buffer) = unsafe { vulkan.device().create_buffer(&info, None) } {
        // SAFETY: the buffer is new and unused.
        unsafe { vulkan.device().destroy_buffer(buffer, None) };
    }
    let ids: Vec<_> = seen.lock().unwrap().drain(..).filter_map(|message| message.id).collect();
    assert!(ids.iter().any(|id| id == "VUID-VkBufferCreateInfo-size-00912"), "{ids:?}");
    drop(vulkan);
    assert_eq!(*seen.lock().unwrap(), [], "closing is no mistake");
}
