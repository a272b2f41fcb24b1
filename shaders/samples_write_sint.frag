// Writes one sample of a signed integer image, from a buffer.
// data[(y * width + x) * samples + sample_index] is the value of texel (x, y). The sample mask selects the sample,
// so that no per-sample shading is needed. The same source is compiled to SPIR-V for Vulkan and passed to OpenGL as text. See
// README.md.
#version 450

layout(std430, binding = 0) readonly buffer Data {
    ivec4 data[];
};

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    uint width;
    uint samples;
    uint sample_index;
};
#else
layout(location = 0) uniform uint width;
layout(location = 1) uniform uint samples;
layout(location = 2) uniform uint sample_index;
#endif

layout(location = 0) out ivec4 color;

void main() {
    const uvec2 at = uvec2(gl_FragCoord.xy);
    // Drivers also run helper invocations beyond the edge: lavapipe 25.2.8 crashes if one reads beyond the buffer.
    const uint i = min((at.y * width + at.x) * samples + sample_index, uint(data.length()) - 1u);
    color = data[i];
}
