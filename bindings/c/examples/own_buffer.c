/* Shares a VkBuffer that the application created and allocated itself, submits with a call of its
 * own, and passes the descriptor through code that knows nothing of gpu-interop. Exits with 0 if
 * every byte was right. */
#include <stdio.h>
#include <string.h>

#include "contexts.h"

#define WORDS 1024
#define BYTES (WORDS * 4)

/* The one place where this application submits. */
typedef struct submission {
    const contexts *gpu;
    VkCommandBuffer commands;
    int calls;
} submission;

static int32_t submit(void *user, const gi_submit_parts *parts) {
    submission *made = (submission *)user;
    ZEROED(VkTimelineSemaphoreSubmitInfo, values);
    values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    values.waitSemaphoreValueCount = (uint32_t)parts->wait_count;
    values.pWaitSemaphoreValues = parts->wait_values;
    values.signalSemaphoreValueCount = (uint32_t)parts->signal_count;
    values.pSignalSemaphoreValues = parts->signal_values;
    ZEROED(VkSubmitInfo, info);
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.pNext = &values;
    info.waitSemaphoreCount = (uint32_t)parts->wait_count;
    info.pWaitSemaphores = (const VkSemaphore *)parts->wait_semaphores;
    info.pWaitDstStageMask = parts->wait_stages;
    info.signalSemaphoreCount = (uint32_t)parts->signal_count;
    info.pSignalSemaphores = (const VkSemaphore *)parts->signal_semaphores;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &made->commands;
    made->calls++;
    return vkQueueSubmit(made->gpu->queue, 1, &info, (VkFence)parts->fence);
}

/* Creates the buffer and allocates memory that can be exported. */
static VkBuffer create_buffer(const contexts *gpu, const gi_buffer_desc *desc,
                              gi_adopted_memory *adopted) {
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkMemoryRequirements needs;
    VkPhysicalDeviceMemoryProperties has;
    uint32_t type;
    ZEROED(VkExternalMemoryBufferCreateInfo, external);
    external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO;
    external.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
    ZEROED(VkBufferCreateInfo, create);
    create.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
    create.pNext = &external;
    create.size = desc->size;
    create.usage = desc->usage;
    VK(vkCreateBuffer(gpu->device, &create, NULL, &buffer));
    vkGetBufferMemoryRequirements(gpu->device, buffer, &needs);
    ZEROED(VkExportMemoryAllocateInfo, exported);
    exported.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO;
    exported.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
    ZEROED(VkMemoryAllocateInfo, allocate);
    allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
    allocate.pNext = &exported;
    /* Mesa's OpenGL needs some bytes behind the buffer. */
    allocate.allocationSize = needs.size + 4096;
    vkGetPhysicalDeviceMemoryProperties(gpu->physical_device, &has);
    for (type = has.memoryTypeCount; type-- > 0;)
        if (needs.memoryTypeBits & 1u << type &&
            has.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT)
            allocate.memoryTypeIndex = type;
    VK(vkAllocateMemory(gpu->device, &allocate, NULL, &memory));
    VK(vkBindBufferMemory(gpu->device, buffer, memory, 0));
    adopted->memory = (uint64_t)memory;
    adopted->allocation_size = allocate.allocationSize;
    adopted->memory_type_index = allocate.memoryTypeIndex;
    return buffer;
}

int main(void) {
    contexts gpu;
    uint32_t words[WORDS], seen[WORDS], i;
    int fd, kept, is_right;
    contexts_open(&gpu);
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    desc.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    OPTIONS(gi_adopted_memory, adopted);
    const VkBuffer vk_buffer = create_buffer(&gpu, &desc, &adopted);

    /* The payload as a descriptor and its description, and back. */
    gi_buffer *buffer, *in_gl;
    gi_payload *payload;
    OPTIONS(gi_memory_info, info);
    GI(gi_buffer_adopt(gpu.vulkan, (uint64_t)vk_buffer, &desc, &adopted, &buffer));
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_payload_get_memory_info(payload, &info));
    GI(gi_payload_take_fd(&payload, &fd));
    kept = fd;
    /* A call that fails leaves the descriptor. */
    desc.size = info.allocation_size + 1;
    is_right = gi_payload_new_buffer(&fd, &info, &desc, &payload) == GI_RESULT_INVALID &&
               fd == kept && !payload;
    desc.size = BYTES;
    GI(gi_payload_new_buffer(&fd, &info, &desc, &payload));
    is_right = is_right && fd == -1;
    GI(gi_buffer_import(gpu.gl, &payload, &in_gl));

    /* The application's own submit. */
    gi_releaser *releaser;
    gi_acquirer *acquirer;
    gi_ticket *ticket;
    gi_sync *sync;
    submission made = {&gpu, commands_begin(&gpu), 0};
    GI(gi_handoff_open(gpu.vulkan, gpu.vulkan, gpu.gl, NULL, &releaser, &acquirer));
    for (i = 0; i < WORDS; i++) words[i] = i * 0x9e3779b9u;
    vkCmdUpdateBuffer(made.commands, vk_buffer, 0, BYTES, words);
    ZEROED(gi_access, access);
    access.buffer = buffer;
    OPTIONS(gi_commands, commands);
    commands.command_buffer = made.commands;
    commands.queue_family = gpu.queue_family;
    commands.used = &access;
    commands.used_count = 1;
    GI(gi_release(releaser, &commands, &ticket, &sync));
    VK(vkEndCommandBuffer(made.commands));
    GI(gi_sync_submit_with(&sync, gpu.vulkan, gpu.queue, submit, &made));

    access.buffer = in_gl;
    GI(gi_acquire(acquirer, &ticket, &commands, NULL));
    glBindBuffer(GL_COPY_READ_BUFFER, (GLuint)gi_buffer_handle(in_gl));
    glGetBufferSubData(GL_COPY_READ_BUFFER, 0, BYTES, seen);
    is_right = is_right && made.calls == 1 && memcmp(words, seen, BYTES) == 0;
    printf("Vulkan's own buffer to OpenGL: %s\n", is_right ? "every byte right" : "wrong");

    GI(gi_endpoint_wait_idle(gpu.vulkan));
    gi_releaser_destroy(releaser);
    gi_acquirer_destroy(acquirer);
    gi_buffer_destroy(in_gl);
    gi_buffer_destroy(buffer);
    /* The application's objects after the last handle that wraps them: the endpoint keeps some. */
    gi_endpoint_destroy(gpu.vulkan);
    gpu.vulkan = NULL;
    vkDestroyBuffer(gpu.device, vk_buffer, NULL);
    vkFreeMemory(gpu.device, (VkDeviceMemory)adopted.memory, NULL);
    contexts_close(&gpu);
    return is_right ? 0 : 1;
}
