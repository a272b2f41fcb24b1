// Darkens a picture towards its corners, as a lens does: the natural vignette, by the fourth power of the cosine. The
// picture is sampled as linear light; what is written is sRGB-encoded again. The same source is compiled to SPIR-V for
// Vulkan and passed to OpenGL as text. See README.md.
#version 450

layout(local_size_x = 8, local_size_y = 8) in;

layout(binding = 0) uniform sampler2D picture;
layout(binding = 1, rgba8) writeonly uniform image2D framed;

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    float strength;
};
#else
layout(location = 0) uniform float strength;
#endif

vec3 srgb(vec3 linear) {
    const vec3 curved = 1.055 * pow(linear, vec3(1.0 / 2.4)) - 0.055;
    return mix(curved, 12.92 * linear, lessThanEqual(linear, vec3(0.0031308)));
}

void main() {
    const ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    const ivec2 size = imageSize(framed);
    if (any(greaterThanEqual(at, size))) {
        return;
    }
    const vec4 texel = texelFetch(picture, at, 0);
    // 0 in the middle, 1 in the corners.
    const vec2 from_middle = vec2(2 * at + 1 - size);
    const float distance_squared = dot(from_middle, from_middle) / dot(vec2(size), vec2(size));
    const float cosine_squared = 1.0 / (1.0 + strength * distance_squared);
    const vec3 light = clamp(texel.rgb * cosine_squared * cosine_squared, 0.0, 1.0);
    imageStore(framed, at, vec4(srgb(light), texel.a));
}
