// Fills `count` uvec4s with a hash of each word's index in the payload and a seed: data that memory compression can't make
// smaller. data[0] is the payload's uvec4 number `first`. The same source is compiled to SPIR-V for Vulkan and passed to
// OpenGL as text. See README.md.
#version 450

layout(local_size_x = 256) in;

layout(std430, binding = 0) writeonly buffer Data {
    uvec4 data[];
};

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    uint first;
    uint count;
    uint seed;
};
#else
layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
layout(location = 2) uniform uint seed;
#endif

// lowbias32: a bijection of the 32-bit words.
uvec4 mixed(uvec4 x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

void main() {
    const uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uint i = gl_GlobalInvocationID.x;
    if (i >= count) {
        return;
    }
    for (;;) {
        const uvec4 w = 4u * (first + i) + uvec4(0u, 1u, 2u, 3u);
        data[i] = mixed(w ^ (seed * 0x9e3779b9u));
        // Not `i += stride; i < count`: near 2^32 the sum would wrap and the loop would never end.
        if (count - i <= stride) {
            break;
        }
        i += stride;
    }
}
