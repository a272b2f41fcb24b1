// share_buffer.c in C++17: Vulkan writes a buffer that OpenGL reads. Exits with 0 if every byte was
// right.
#include <cstdio>
#include <cstring>
#include <gpu_interop.hpp>
#include <utility>
#include <vector>

#include "contexts.h"

namespace {

// The example's contexts, closed last.
struct scoped_contexts : contexts {
    scoped_contexts() { contexts_open(this); }
    ~scoped_contexts() { contexts_close(this); }
};

// Shares a buffer, and returns whether OpenGL saw what Vulkan wrote.
bool share(const contexts &gpu, const gi::endpoint &vulkan, const gi::endpoint &gl) {
    std::vector<std::uint32_t> words(1024), seen(words.size());
    for (std::size_t i = 0; i < words.size(); i++) words[i] = std::uint32_t(i) * 0x9e3779b9u;
    auto desc = gi::defaults<gi_buffer_desc>();
    desc.size = words.size() * sizeof words[0];
    const auto buffer = gi::buffer::create(vulkan, desc);
    const auto in_gl = gi::buffer::imported(gl, buffer.exported());
    gi::handoff to_gl(vulkan, vulkan, gl);

    // An import that fails is an exception, and leaves the payload.
    auto payload = buffer.exported();
    try {
        gi::image::imported(gl, std::move(payload));
        return false;
    } catch (const gi::error &error) {
        std::printf("a buffer is no image: %s\n", error.what());
        if (!payload || error.code() == GI_RESULT_OK) return false;
    }

    const VkCommandBuffer command_buffer = commands_begin(&gpu);
    vkCmdUpdateBuffer(command_buffer, buffer.native<VkBuffer>(), 0, desc.size, words.data());
    gi::commands written({gi::use(buffer)});
    auto [ticket, sync] = to_gl.release(written.into(command_buffer, gpu.queue_family));
    VK(vkEndCommandBuffer(command_buffer));
    sync.submit(vulkan, gpu.queue, command_buffer);

    to_gl.acquire(std::move(ticket), gi::commands({gi::use(in_gl)}));
    glBindBuffer(GL_COPY_READ_BUFFER, in_gl.native<GLuint>());
    glGetBufferSubData(GL_COPY_READ_BUFFER, 0, GLsizeiptr(desc.size), seen.data());
    return seen == words;
}

} // namespace

int main() {
    scoped_contexts gpu;
    try {
        // The endpoints now destroy themselves, before the contexts are closed.
        const gi::endpoint vulkan(std::exchange(gpu.vulkan, nullptr));
        const gi::endpoint gl(std::exchange(gpu.gl, nullptr));
        const bool right = share(gpu, vulkan, gl);
        vulkan.wait_idle();
        std::printf("Vulkan to OpenGL: %s\n", right ? "every byte right" : "wrong");
        return right ? 0 : 1;
    } catch (const gi::error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.code() == GI_RESULT_MISSING ? 2 : 1;
    }
}
