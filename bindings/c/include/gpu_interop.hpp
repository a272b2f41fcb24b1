// C++17 over gpu_interop.h: handles that destroy themselves, and exceptions.
//
// A handle is move-only and may be empty. Handles can be destroyed in any order, but a context must
// live longer than its endpoint and everything created from it.
#ifndef GPU_INTEROP_HPP
#define GPU_INTEROP_HPP

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gpu_interop.h"

namespace gi {

// A call that failed. what() is gi_last_error().
class error : public std::runtime_error {
public:
    explicit error(gi_result code)
        : std::runtime_error(gi_last_error()), code_(code), driver_code_(gi_last_driver_code()) {}

    gi_result code() const noexcept { return code_; }

    // A VkResult, a GL error, a CUresult or an errno, if code() is GI_RESULT_DRIVER; otherwise 0.
    std::int64_t driver_code() const noexcept { return driver_code_; }

private:
    gi_result code_;
    std::int64_t driver_code_;
};

// Throws an error if a call failed.
inline void check(gi_result result) {
    if (result != GI_RESULT_OK) throw error(result);
}

// Returns a structure that has a struct_size, with all defaults.
template <class T>
T defaults() {
    T value{};
    value.struct_size = sizeof value;
    return value;
}

// Owns a handle of the C API.
template <class T, void (*Destroy)(T *)>
class handle {
public:
    handle() = default;
    explicit handle(T *owned) noexcept : raw_(owned) {}
    handle(handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~handle() { Destroy(raw_); }

    T *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }

    // For calls that create a handle: destroys the owned one first.
    T **out() {
        Destroy(std::exchange(raw_, nullptr));
        return &raw_;
    }

    // For calls that consume the handle.
    T **consumed() noexcept { return &raw_; }

private:
    T *raw_ = nullptr;
};

// Calls a function that creates a handle, its last argument.
template <class Handle, class Function, class... Arguments>
Handle make(Function function, Arguments... arguments) {
    Handle made;
    check(function(arguments..., made.out()));
    return made;
}

using payload = handle<gi_payload, gi_payload_destroy>;
using ticket = handle<gi_ticket, gi_ticket_destroy>;
using batch = handle<gi_batch, gi_batch_destroy>;
using stage = handle<gi_stage, gi_stage_destroy>;
using producer = handle<gi_producer, gi_producer_destroy>;
using writable_slot = handle<gi_writable_slot, gi_writable_slot_destroy>;
using consumer = handle<gi_consumer, gi_consumer_destroy>;
using session_ring = handle<gi_session_ring, gi_session_ring_destroy>;
using frame = handle<gi_frame, gi_frame_destroy>;

// A borrowed context.
class endpoint : public handle<gi_endpoint, gi_endpoint_destroy> {
public:
    using handle::handle;
    static endpoint vulkan(const gi_vulkan_info &info) {
        return make<endpoint>(gi_endpoint_vulkan, &info);
    }
    // Over the OpenGL context that is current on this thread.
    static endpoint gl(gi_gl_loader loader) { return make<endpoint>(gi_endpoint_gl, loader); }
    // Over the current OpenGL context, which shares objects with that of `other`.
    static endpoint gl_shared(const endpoint &other, gi_gl_loader loader) {
        return make<endpoint>(gi_endpoint_gl_shared, other.get(), loader);
    }
    // Over a CUcontext.
    static endpoint cuda(void *context) { return make<endpoint>(gi_endpoint_cuda, context); }
    gi_api api() const { return gi_endpoint_api(get()); }
    void collect() const { check(gi_endpoint_collect(get())); }
    void wait_idle() const { check(gi_endpoint_wait_idle(get())); }
};

// Memory of a buffer, mapped for the host.
class mapping : public handle<gi_mapping, gi_mapping_destroy> {
public:
    using handle::handle;
    template <class T>
    T *data() const { return static_cast<T *>(gi_mapping_data(get())); }
    std::size_t size() const { return gi_mapping_size(get()); }
};

class buffer : public handle<gi_buffer, gi_buffer_destroy> {
public:
    using handle::handle;
    static buffer create(const endpoint &with, const gi_buffer_desc &desc,
                         const gi_memory_options &options = defaults<gi_memory_options>()) {
        return make<buffer>(gi_buffer_create, with.get(), &desc, &options);
    }
    // If it throws, the payload keeps its descriptor.
    static buffer imported(const endpoint &with, payload &&from) {
        return make<buffer>(gi_buffer_import, with.get(), from.consumed());
    }
    payload exported() const { return make<payload>(gi_buffer_export, get()); }
    gi::mapping map() const { return make<gi::mapping>(gi_buffer_map, get()); }
    // A VkBuffer, GLuint or CUdeviceptr.
    template <class T>
    T native() const { return (T)gi_buffer_handle(get()); }
    std::uint64_t size() const { return gi_buffer_size(get()); }
};

class image : public handle<gi_image, gi_image_destroy> {
public:
    using handle::handle;
    static image create(const endpoint &with, const gi_image_desc &desc,
                        const gi_memory_options &options = defaults<gi_memory_options>()) {
        return make<image>(gi_image_create, with.get(), &desc, &options);
    }
    // If it throws, the payload keeps its descriptor.
    static image imported(const endpoint &with, payload &&from) {
        return make<image>(gi_image_import, with.get(), from.consumed());
    }
    payload exported() const { return make<payload>(gi_image_export, get()); }
    // A VkImage or GLuint.
    template <class T>
    T native() const { return (T)gi_image_handle(get()); }
};

// How a resource is used at a release or an acquire.
inline gi_access use(const buffer &used, std::uint32_t stage = 0, std::uint32_t access = 0) {
    gi_access made{};
    made.buffer = used.get();
    made.stage = stage;
    made.access = access;
    return made;
}
inline gi_access use(const image &used, std::int32_t old_layout = 0, std::int32_t new_layout = 0) {
    gi_access made{};
    made.image = used.get();
    made.old_layout = old_layout;
    made.new_layout = new_layout;
    return made;
}

// The commands of a release or an acquire, with what they cover.
class commands : public gi_commands {
public:
    explicit commands(std::vector<gi_access> list = {})
        : gi_commands(defaults<gi_commands>()), list_(std::move(list)) {
        used = list_.data();
        used_count = list_.size();
    }
    commands(const commands &) = delete;
    commands &operator=(const commands &) = delete;

    // Vulkan: records into a command buffer that is being recorded for a queue of the family.
    commands &into(void *vk_command_buffer, std::uint32_t family) {
        command_buffer = vk_command_buffer;
        queue_family = family;
        return *this;
    }
    // CUDA: enqueues on a stream.
    commands &on(void *cu_stream) {
        stream = cu_stream;
        return *this;
    }

private:
    std::vector<gi_access> list_;
};

// What a Vulkan submit gets.
class sync : public handle<gi_sync, gi_sync_destroy> {
public:
    using handle::handle;
    void merge(sync &&other) { check(gi_sync_merge(get(), other.consumed())); }
    void submit(const endpoint &with, void *vk_queue, void *vk_command_buffer) {
        check(gi_sync_submit(consumed(), with.get(), vk_queue, &vk_command_buffer, 1));
    }
};

// One way between two endpoints.
class handoff {
public:
    handoff(const endpoint &owner, const endpoint &from, const endpoint &to,
            const gi_handoff_options &options = defaults<gi_handoff_options>()) {
        check(gi_handoff_open(owner.get(), from.get(), to.get(), &options, releaser_.out(),
                              acquirer_.out()));
    }
    gi_sync_method method() const { return gi_releaser_method(releaser_.get()); }
    std::string plan() const { return gi_releaser_plan(releaser_.get()); }

    // The second value is empty unless a Vulkan submit remains to be made with it.
    std::pair<ticket, sync> release(const gi_commands &commands) {
        std::pair<ticket, sync> made;
        check(gi_release(releaser_.get(), &commands, made.first.out(), made.second.out()));
        return made;
    }
    // If it throws, the ticket stays valid.
    sync acquire(ticket &&released, const gi_commands &commands) {
        return make<sync>(gi_acquire, acquirer_.get(), released.consumed(), &commands);
    }

private:
    handle<gi_releaser, gi_releaser_destroy> releaser_;
    handle<gi_acquirer, gi_acquirer_destroy> acquirer_;
};

class semaphore : public handle<gi_semaphore, gi_semaphore_destroy> {
public:
    using handle::handle;
    static semaphore create(const endpoint &with, gi_semaphore_kind kind) {
        return make<semaphore>(gi_semaphore_create, with.get(), kind);
    }
    // If it throws, the payload keeps its descriptor.
    static semaphore imported(const endpoint &with, payload &&from) {
        return make<semaphore>(gi_semaphore_import, with.get(), from.consumed());
    }
    payload exported() const { return make<payload>(gi_semaphore_export, get()); }
    std::uint64_t native() const { return gi_semaphore_handle(get()); }
};

} // namespace gi

#endif
