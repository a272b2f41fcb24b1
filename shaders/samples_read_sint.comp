// Reads every sample of a signed integer image into a buffer: data[(y * width + x) * samples + s] becomes
// sample s of texel (x, y). One thread per texel. The same source is compiled to SPIR-V for Vulkan and passed to OpenGL as
// text. See README.md.
#version 450

layout(local_size_x = 8, local_size_y = 8) in;

layout(std430, binding = 0) writeonly buffer Data {
    ivec4 data[];
};
layout(binding = 1) uniform isampler2DMS image;

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    uint width;
    uint samples;
};
#else
layout(location = 0) uniform uint width;
layout(location = 1) uniform uint samples;
#endif

void main() {
    const ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    if (any(greaterThanEqual(at, textureSize(image)))) {
        return;
    }
    for (uint s = 0u; s < samples; ++s) {
        data[(uint(at.y) * width + uint(at.x)) * samples + s] = texelFetch(image, at, int(s));
    }
}
