/* Vulkan writes an image that OpenGL reads as a texture, then OpenGL writes the texture and Vulkan
 * reads the image: one piece of memory, no copy in between. Exits with 0 if every texel was right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contexts.h"

#define WIDTH 61
#define HEIGHT 47
#define TEXELS (WIDTH * HEIGHT)

static uint32_t texel(uint32_t seed, uint32_t i) { return (i ^ seed << 16) * 0x9e3779b9u; }

static size_t count_right(const uint32_t *texels, uint32_t seed) {
    size_t right = 0;
    uint32_t i;
    for (i = 0; i < TEXELS; i++) right += texels[i] == texel(seed, i);
    return right;
}

/* The whole image, for copies from and to a buffer. */
static VkBufferImageCopy whole_image(void) {
    ZEROED(VkBufferImageCopy, copy);
    copy.imageSubresource.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT;
    copy.imageSubresource.layerCount = 1;
    copy.imageExtent.width = WIDTH;
    copy.imageExtent.height = HEIGHT;
    copy.imageExtent.depth = 1;
    return copy;
}

/* Makes the image ready to be written, whatever it held. */
static void discard(VkCommandBuffer commands, VkImage image) {
    ZEROED(VkImageMemoryBarrier, barrier);
    barrier.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER;
    barrier.dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    barrier.newLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    barrier.image = image;
    barrier.subresourceRange.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT;
    barrier.subresourceRange.levelCount = 1;
    barrier.subresourceRange.layerCount = 1;
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
                         VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1, &barrier);
}

int main(void) {
    contexts gpu;
    uint32_t *texels = (uint32_t *)malloc(TEXELS * 4), *mapped, i;
    size_t to_gl_right, to_vulkan_right;
    const VkBufferImageCopy whole = whole_image();
    if (!texels) return 1;
    contexts_open(&gpu);

    /* One image with a view in each API, and a handoff in each direction. */
    gi_image *image, *in_gl;
    gi_buffer *staging;
    gi_mapping *mapping;
    gi_payload *payload;
    gi_releaser *vulkan_release, *gl_release;
    gi_acquirer *gl_acquire, *vulkan_acquire;
    gi_ticket *ticket;
    gi_sync *sync;
    OPTIONS(gi_image_desc, desc);
    desc.format = VK_FORMAT_R8G8B8A8_UNORM;
    desc.width = WIDTH;
    desc.height = HEIGHT;
    desc.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT |
                 VK_IMAGE_USAGE_SAMPLED_BIT;
    GI(gi_image_desc_for_gl(gpu.vulkan, &desc));
    GI(gi_image_create(gpu.vulkan, &desc, NULL, &image));
    GI(gi_image_export(image, &payload));
    GI(gi_image_import(gpu.gl, &payload, &in_gl));
    GI(gi_handoff_open(gpu.vulkan, gpu.vulkan, gpu.gl, NULL, &vulkan_release, &gl_acquire));
    GI(gi_handoff_open(gpu.vulkan, gpu.gl, gpu.vulkan, NULL, &gl_release, &vulkan_acquire));

    OPTIONS(gi_buffer_desc, bytes);
    bytes.size = TEXELS * 4;
    OPTIONS(gi_memory_options, host);
    host.location = GI_MEMORY_LOCATION_HOST_VISIBLE;
    GI(gi_buffer_create(gpu.vulkan, &bytes, &host, &staging));
    GI(gi_buffer_map(staging, &mapping));
    mapped = (uint32_t *)gi_mapping_data(mapping);
    const VkImage vk_image = (VkImage)gi_image_handle(image);
    const VkBuffer vk_staging = (VkBuffer)gi_buffer_handle(staging);

    /* Vulkan writes, and releases in the same command buffer. */
    for (i = 0; i < TEXELS; i++) mapped[i] = texel(1, i);
    VkCommandBuffer commands = commands_begin(&gpu);
    discard(commands, vk_image);
    vkCmdCopyBufferToImage(commands, vk_staging, vk_image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1,
                           &whole);
    ZEROED(gi_access, vulkan_access);
    vulkan_access.image = image;
    vulkan_access.stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
    vulkan_access.access = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    vulkan_access.old_layout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    vulkan_access.new_layout = VK_IMAGE_LAYOUT_GENERAL;
    OPTIONS(gi_commands, in_vulkan);
    in_vulkan.command_buffer = commands;
    in_vulkan.queue_family = gpu.queue_family;
    in_vulkan.used = &vulkan_access;
    in_vulkan.used_count = 1;
    GI(gi_release(vulkan_release, &in_vulkan, &ticket, &sync));
    VK(vkEndCommandBuffer(commands));
    GI(gi_sync_submit(&sync, gpu.vulkan, gpu.queue, (void **)&commands, 1));

    /* OpenGL acquires and reads, then writes and releases. */
    ZEROED(gi_access, gl_access);
    gl_access.image = in_gl;
    OPTIONS(gi_commands, in_opengl);
    in_opengl.used = &gl_access;
    in_opengl.used_count = 1;
    GI(gi_acquire(gl_acquire, &ticket, &in_opengl, NULL));
    glBindTexture(gi_image_gl_target(in_gl), (GLuint)gi_image_handle(in_gl));
    glGetTexImage(GL_TEXTURE_2D, 0, GL_RGBA, GL_UNSIGNED_BYTE, texels);
    to_gl_right = count_right(texels, 1);
    for (i = 0; i < TEXELS; i++) texels[i] = texel(2, i);
    glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, WIDTH, HEIGHT, GL_RGBA, GL_UNSIGNED_BYTE, texels);
    GI(gi_release(gl_release, &in_opengl, &ticket, NULL));

    /* Vulkan acquires in the layout of the release, and copies to memory that the host maps. */
    GI(gi_endpoint_wait_idle(gpu.vulkan));
    in_vulkan.command_buffer = commands = commands_begin(&gpu);
    vulkan_access.old_layout = 0;
    vulkan_access.new_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    GI(gi_acquire(vulkan_acquire, &ticket, &in_vulkan, &sync));
    vkCmdCopyImageToBuffer(commands, vk_image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, vk_staging, 1,
                           &whole);
    VK(vkEndCommandBuffer(commands));
    GI(gi_sync_submit(&sync, gpu.vulkan, gpu.queue, (void **)&commands, 1));
    GI(gi_endpoint_wait_idle(gpu.vulkan));
    to_vulkan_right = count_right(mapped, 2);

    printf("Vulkan to OpenGL: %zu of %d texels right\n", to_gl_right, TEXELS);
    printf("OpenGL to Vulkan: %zu of %d texels right\n", to_vulkan_right, TEXELS);
    gi_mapping_destroy(mapping);
    gi_buffer_destroy(staging);
    gi_releaser_destroy(vulkan_release);
    gi_acquirer_destroy(gl_acquire);
    gi_releaser_destroy(gl_release);
    gi_acquirer_destroy(vulkan_acquire);
    gi_image_destroy(in_gl);
    gi_image_destroy(image);
    contexts_close(&gpu);
    free(texels);
    return to_gl_right == TEXELS && to_vulkan_right == TEXELS ? 0 : 1;
}
