// Draws a frame: `count` uvec4s of four pixels each, RGBA8, red in the low byte. A pixel is a moving pattern of waves whose
// low bits are a hash of its position and the frame's number, so that every word identifies its frame and position. data[0]
// is the frame's uvec4 number `first`. The same source is compiled to SPIR-V for Vulkan and passed to OpenGL as text. See
// README.md.
#version 450

layout(local_size_x = 256) in;

layout(std430, binding = 0) writeonly buffer Data {
    uvec4 data[];
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

void main() {
    const uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    uint i = gl_GlobalInvocationID.x;
    if (i >= count) {
        return;
    }
    for (;;) {
        data[i] = pixels(4u * (first + i));
        // Not `i += stride; i < count`: near 2^32 the sum would wrap and the loop would never end.
        if (count - i <= stride) {
            break;
        }
        i += stride;
    }
}
