// Adds the noise of a camera's sensor to light: the square root of the light, as photons arrive at random. Vulkan
// only. See README.md.
#version 450

layout(local_size_x = 8, local_size_y = 8) in;

layout(binding = 0, rgba16f) uniform image2D light;

#ifdef VULKAN
layout(push_constant) uniform Parameters {
    float strength;
    uint seed;
};
#else
layout(location = 0) uniform float strength;
layout(location = 1) uniform uint seed;
#endif

// lowbias32: a bijection of the 32-bit words.
uint mixed(uint x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// Mean 0, variance 1: the sum of four uniform numbers is close enough to a normal distribution.
float chance(inout uint state) {
    float sum = -2.0;
    for (int i = 0; i < 4; ++i) {
        state = mixed(state);
        sum += float(state >> 8) / 16777216.0;
    }
    return sum * 1.7320508;
}

void main() {
    const ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    const ivec2 size = imageSize(light);
    if (any(greaterThanEqual(at, size))) {
        return;
    }
    uint state = mixed(uint(at.y * size.x + at.x) ^ seed * 0x9e3779b9u);
    const vec4 texel = imageLoad(light, at);
    const vec3 noise = vec3(chance(state), chance(state), chance(state));
    const vec3 noisy = texel.rgb + strength * sqrt(max(texel.rgb, 0.0)) * noise;
    imageStore(light, at, vec4(max(noisy, 0.0), texel.a));
}
