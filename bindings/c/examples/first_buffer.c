/* The README's example: the shortest way from two contexts to a shared buffer. Exits with 0 if
 * OpenGL saw what Vulkan wrote. */
#include <stdio.h>
#include <string.h>

#include "contexts.h"

#define BYTES 4096

int main(void) {
    contexts app;
    unsigned char written[BYTES], seen[BYTES];
    contexts_open(&app);
    memset(written, 0x5a, BYTES);
    VkCommandBuffer command_buffer = commands_begin(&app);

    /* BEGIN README */
    /* Endpoints over your own contexts: your loader, handles, extensions and features. */
    gi_endpoint *vulkan, *gl;
    gi_vulkan_info info = {sizeof info, (gi_function)vkGetInstanceProcAddr, app.instance,
                           app.physical_device, app.device, VK_API_VERSION_1_2, app.extension_count,
                           app.extensions, app.timeline_semaphore, app.buffer_device_address, 0};
    GI(gi_endpoint_vulkan(&info, &vulkan));
    GI(gi_endpoint_gl(eglGetProcAddress, &gl));

    /* One piece of memory with a view in each API. The import consumes the payload. */
    gi_buffer *buffer, *in_gl;
    gi_payload *payload;
    gi_buffer_desc desc = {sizeof desc, BYTES, 0};
    GI(gi_buffer_create(vulkan, &desc, NULL, &buffer));
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(gl, &payload, &in_gl));

    /* Vulkan writes it, and releases it in the same command buffer. */
    vkCmdUpdateBuffer(command_buffer, (VkBuffer)gi_buffer_handle(buffer), 0, BYTES, written);
    gi_releaser *releaser;
    gi_acquirer *acquirer;
    gi_ticket *ticket;
    gi_sync *sync;
    gi_access used = {buffer, NULL, 0, 0, 0, 0, {0}};
    gi_commands commands = {sizeof commands, command_buffer, NULL, app.queue_family, 0, NULL, &used, 1};
    GI(gi_handoff_open(vulkan, vulkan, gl, NULL, &releaser, &acquirer));
    GI(gi_release(releaser, &commands, &ticket, &sync));
    vkEndCommandBuffer(command_buffer);
    GI(gi_sync_submit(&sync, vulkan, app.queue, (void **)&command_buffer, 1));

    /* OpenGL acquires it, and reads it. */
    used.buffer = in_gl;
    GI(gi_acquire(acquirer, &ticket, &commands, NULL));
    glBindBuffer(GL_COPY_READ_BUFFER, (GLuint)gi_buffer_handle(in_gl));
    glGetBufferSubData(GL_COPY_READ_BUFFER, 0, BYTES, seen);
    /* END README */

    const int is_right = memcmp(written, seen, BYTES) == 0;
    printf("Vulkan to OpenGL: %s\n", is_right ? "every byte right" : "wrong");
    GI(gi_endpoint_wait_idle(vulkan));
    gi_releaser_destroy(releaser);
    gi_acquirer_destroy(acquirer);
    gi_buffer_destroy(in_gl);
    gi_buffer_destroy(buffer);
    gi_endpoint_destroy(gl);
    gi_endpoint_destroy(vulkan);
    contexts_close(&app);
    return !is_right;
}
