// Counts the words of a frame that are what draw.comp writes, and those that are not. data[0] is the frame's uvec4 number
// `first`. The same source is compiled to SPIR-V for Vulkan and passed to OpenGL as text. See README.md.
#version 450

layout(local_size_x = 256) in;

layout(std430, binding = 0) readonly buffer Data {
    uvec4 data[];
};

// Added to, so that a frame may be checked in several parts.
layout(std430, binding = 1) buffer Found {
    uint right;
    uint wrong;
    // The index of the first wrong word of the frame, if `wrong` is not 0: the lowest found so far.
    uint first_wrong;
};

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    uint first;
    uint count;
    uint frame;
    uint width_log2;
};
#else
layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
layout(location = 2) uniform uint frame;
layout(location = 3) uniform uint width_log2;
#endif

// lowbias32: a bijection of the 32-bit words.
uvec4 mixed(uvec4 x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// From 0 up to 255 and down again while t goes from 0 to 1023, without a corner; the same again every 1024.
uvec4 wave(uvec4 t) {
    t &= 1023u;
    const uvec4 u = min(t, 1023u - t);
    return (u * u * (1536u - 2u * u)) >> 19;
}

// The words w of a frame; w is the first of four pixels in a row.
uvec4 pixels(uint w) {
    const uvec4 words = w + uvec4(0u, 1u, 2u, 3u);
    const uvec4 x = ((words & ((1u << width_log2) - 1u)) << 12) >> width_log2;
    const uvec4 y = uvec4(((w >> width_log2) << 12) >> width_log2);
    const uvec4 dx = x - 2048u;
    const uvec4 dy = y - 1024u;
    const uvec4 a = wave((2u * x + 24u * frame) >> 2);
    const uvec4 b = wave((3u * y - 16u * frame) >> 2);
    const uvec4 c = wave((x + 2u * y + 40u * frame) >> 2);
    const uvec4 d = wave(((dx * dx + dy * dy) >> 10) - 8u * frame);
    const uvec4 red = (a + c) >> 1;
    const uvec4 green = (b + d) >> 1;
    const uvec4 blue = (c + d + 2u * b) >> 2;
    const uvec4 noise = mixed(words ^ (frame * 0x9e3779b9u));
    // Two frames fewer than 256 apart differ in the high byte of every word.
    const uvec4 mark = (words * 2654435761u >> 24) + frame;
    return (red & 0xfcu) | (green & 0xfcu) << 8 | (blue & 0xfcu) << 16 | (noise & 0x030303u) | mark << 24;
}

shared uint group_right;
shared uint group_wrong;

void main() {
    if (gl_LocalInvocationIndex == 0u) {
        group_right = 0u;
        group_wrong = 0u;
    }
    barrier();
    const uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uint i = gl_GlobalInvocationID.x;
    uint thread_right = 0u;
    uint thread_wrong = 0u;
    while (i < count) {
        const uint w = 4u * (first + i);
        const uvec4 found = data[i];
        const uvec4 expected = pixels(w);
        const bvec4 same = equal(found, expected);
        if (all(same)) {
            thread_right += 4u;
        } else {
            const uint matching = uint(same.x) + uint(same.y) + uint(same.z) + uint(same.w);
            thread_right += matching;
            thread_wrong += 4u - matching;
            const uint at = same.x ? (same.y ? (same.z ? 3u : 2u) : 1u) : 0u;
            atomicMin(first_wrong, w + at);
        }
        // Not `i += stride`: near 2^32 the sum would wrap and the loop would never end.
        if (count - i <= stride) {
            break;
        }
        i += stride;
    }
    atomicAdd(group_right, thread_right);
    if (thread_wrong != 0u) {
        atomicAdd(group_wrong, thread_wrong);
    }
    barrier();
    if (gl_LocalInvocationIndex == 0u) {
        atomicAdd(right, group_right);
        if (group_wrong != 0u) {
            atomicAdd(wrong, group_wrong);
        }
    }
}
