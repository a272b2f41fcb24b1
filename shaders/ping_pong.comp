// One step of the ping-pong over `count` uvec4s: x = x * 1664525 + (w * 2654435761 + step_size) modulo 2^32, where w is the
// word's index in the payload. data[0] is the payload's uvec4 number `first`. The same source is compiled to SPIR-V for
// Vulkan and passed to OpenGL as text. See README.md.
#version 450

layout(local_size_x = 256) in;

layout(std430, binding = 0) buffer Data {
    uvec4 data[];
};

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    uint first;
    uint count;
    uint step_size;
};
#else
layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
layout(location = 2) uniform uint step_size;
#endif

void main() {
    const uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uint i = gl_GlobalInvocationID.x;
    if (i >= count) {
        return;
    }
    for (;;) {
        const uvec4 w = 4u * (first + i) + uvec4(0u, 1u, 2u, 3u);
        data[i] = data[i] * 1664525u + (w * 2654435761u + step_size);
        // Not `i += stride; i < count`: near 2^32 the sum would wrap and the loop would never end.
        if (count - i <= stride) {
            break;
        }
        i += stride;
    }
}
