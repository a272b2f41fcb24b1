// What a camera does to light: denoise, bloom, exposure and tone mapping. Every kernel reads images through texture objects,
// clamped at the edges, and writes one level of one image through a surface object: R16G16B16A16_SFLOAT for light,
// sRGB-encoded R8G8B8A8 for the final picture. Images that are read texel by texel have coordinates that count texels and no
// filter; images that are read at another size have normalized coordinates and linear filtering. `width` and `height` are
// those of the written image; each thread writes one texel. See README.md.

typedef unsigned int uint32;

__device__ float3 rgb(float4 texel) {
    return make_float3(texel.x, texel.y, texel.z);
}

__device__ float3 scaled(float3 color, float by) {
    return make_float3(color.x * by, color.y * by, color.z * by);
}

__device__ float3 sum(float3 a, float3 b) {
    return make_float3(a.x + b.x, a.y + b.y, a.z + b.z);
}

__device__ float luminance(float3 color) {
    return 0.2126f * color.x + 0.7152f * color.y + 0.0722f * color.z;
}

__device__ unsigned short half_bits(float value) {
    // The largest half: what is brighter must not become infinite.
    value = fminf(value, 65504.0f);
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ float half_value(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ void write_light(cudaSurfaceObject_t to, int x, int y, float3 color, float alpha) {
    const ushort4 texel =
        make_ushort4(half_bits(color.x), half_bits(color.y), half_bits(color.z), half_bits(alpha));
    surf2Dwrite(texel, to, x * static_cast<int>(sizeof(texel)), y);
}

// The texel that this thread writes, and its middle.
struct Pixel {
    int x;
    int y;
    bool is_inside;
    float u;
    float v;
    // From one texel to the next.
    float du;
    float dv;

    __device__ Pixel(uint32 width, uint32 height)
        : x(blockIdx.x * blockDim.x + threadIdx.x), y(blockIdx.y * blockDim.y + threadIdx.y),
          is_inside(x < static_cast<int>(width) && y < static_cast<int>(height)), u((x + 0.5f) / width),
          v((y + 0.5f) / height), du(1.0f / width), dv(1.0f / height) {}
};

__device__ float brightest(float3 color) {
    return fmaxf(color.x, fmaxf(color.y, color.z));
}

// A texel as it is stored. Coordinates that count texels are exact at any size, which normalized ones are not.
__device__ float4 texel_at(cudaTextureObject_t from, int x, int y) {
    return tex2D<float4>(from, x + 0.5f, y + 0.5f);
}

// Light as the eye compares it, from 0 to 1: bright noise must not outweigh all else.
__device__ float3 compressed(float3 color) {
    return scaled(color, 1.0f / (1.0f + brightest(color)));
}

// The reverse, for halves: the brightest is 65504.
__device__ float3 expanded(float3 color) {
    return scaled(color, 1.0f / fmaxf(1.0f - brightest(color), 1.0f / 65505.0f));
}

__device__ float distance_squared(float3 a, float3 b) {
    const float3 d = make_float3(a.x - b.x, a.y - b.y, a.z - b.z);
    return d.x * d.x + d.y * d.y + d.z * d.z;
}

// A bilateral filter of `radius` texels: neighbours count by how near they are, and by how alike, which `likeness` widens
// (0.05 hardly blurs, 0.5 blurs edges too). `from` is as large as `to`.
extern "C" __global__ void denoise(cudaSurfaceObject_t to, cudaTextureObject_t from, uint32 width, uint32 height,
                                   int radius, float likeness) {
    const Pixel at(width, height);
    if (!at.is_inside) {
        return;
    }
    const float4 middle = texel_at(from, at.x, at.y);
    const float3 own = compressed(rgb(middle));
    // A lone texel, or two, like hardly any of their neighbours, would stay: they are compared as the mean of those.
    float3 around = make_float3(0.0f, 0.0f, 0.0f);
    int alike = 0;
    for (int y = -1; y <= 1; ++y) {
        for (int x = -1; x <= 1; ++x) {
            if (x != 0 || y != 0) {
                const float3 texel = compressed(rgb(texel_at(from, at.x + x, at.y + y)));
                around = sum(around, scaled(texel, 0.125f));
                alike += distance_squared(texel, own) < 4.0f * likeness * likeness ? 1 : 0;
            }
        }
    }
    const float3 reference = alike < 2 ? around : own;
    const float sigma = 0.5f * radius + 0.5f;
    // If nothing resembles the mean either, use the mean.
    float weights = 1e-3f;
    float3 total = scaled(reference, weights);
    for (int y = -radius; y <= radius; ++y) {
        for (int x = -radius; x <= radius; ++x) {
            const float3 texel = compressed(rgb(texel_at(from, at.x + x, at.y + y)));
            const float far = static_cast<float>(x * x + y * y) / (2.0f * sigma * sigma);
            const float unlike = distance_squared(texel, reference) / (2.0f * likeness * likeness);
            const float weight = __expf(-far - unlike);
            total = sum(total, scaled(texel, weight));
            weights += weight;
        }
    }
    write_light(to, at.x, at.y, expanded(scaled(total, 1.0f / weights)), middle.w);
}

// A block of four reads, each of four texels: 16 texels, the bright ones held back so that single ones don't flicker.
__device__ void add_block(cudaTextureObject_t from, float u, float v, float du, float dv, float share, bool hold_back,
                          float3& total, float& weights) {
    for (int corner = 0; corner < 4; ++corner) {
        const float x = corner % 2 == 0 ? -du : du;
        const float y = corner / 2 == 0 ? -dv : dv;
        const float3 texel = rgb(tex2D<float4>(from, u + x, v + y));
        const float weight = hold_back ? share / (1.0f + luminance(texel)) : share;
        total = sum(total, scaled(texel, weight));
        weights += weight;
    }
}

// Half as large: a block in the middle, and one about each corner of the texel. `du` and `dv` step by a texel of `from`.
__device__ float3 halved(cudaTextureObject_t from, const Pixel& at, bool hold_back) {
    const float du = 0.5f * at.du;
    const float dv = 0.5f * at.dv;
    float3 total = make_float3(0.0f, 0.0f, 0.0f);
    float weights = 1e-6f;
    add_block(from, at.u, at.v, du, dv, 0.5f, hold_back, total, weights);
    for (int corner = 0; corner < 4; ++corner) {
        const float u = at.u + (corner % 2 == 0 ? -du : du);
        const float v = at.v + (corner / 2 == 0 ? -dv : dv);
        add_block(from, u, v, du, dv, 0.125f, hold_back, total, weights);
    }
    return scaled(total, 1.0f / weights);
}

// Begins the bloom, half as large as `from`: the light above `threshold`, which sets in softly over `knee` around it.
extern "C" __global__ void bloom_bright(cudaSurfaceObject_t to, cudaTextureObject_t from, uint32 width, uint32 height,
                                        float threshold, float knee) {
    const Pixel at(width, height);
    if (!at.is_inside) {
        return;
    }
    const float3 color = halved(from, at, true);
    const float bright = brightest(color);
    const float soft = fminf(fmaxf(bright - threshold + knee, 0.0f), 2.0f * knee);
    const float above = fmaxf(soft * soft / (4.0f * knee + 1e-6f), bright - threshold);
    write_light(to, at.x, at.y, scaled(color, fmaxf(above, 0.0f) / fmaxf(bright, 1e-6f)), 1.0f);
}

// The next level of the bloom, half as large as `from`.
extern "C" __global__ void bloom_down(cudaSurfaceObject_t to, cudaTextureObject_t from, uint32 width, uint32 height) {
    const Pixel at(width, height);
    if (at.is_inside) {
        write_light(to, at.x, at.y, halved(from, at, false), 1.0f);
    }
}

// Spreads a level of the bloom over the one that is twice as large, which `to` holds: `share` of it is kept, the rest is
// the small one's, widened by a tent of `radius` of its texels.
extern "C" __global__ void bloom_up(cudaSurfaceObject_t to, cudaTextureObject_t from, uint32 width, uint32 height,
                                    float radius, float share) {
    const Pixel at(width, height);
    if (!at.is_inside) {
        return;
    }
    // A texel of `from` is two of `to`.
    const float du = 2.0f * radius * at.du;
    const float dv = 2.0f * radius * at.dv;
    float3 spread = make_float3(0.0f, 0.0f, 0.0f);
    for (int y = -1; y <= 1; ++y) {
        for (int x = -1; x <= 1; ++x) {
            const float weight = (x == 0 ? 0.5f : 0.25f) * (y == 0 ? 0.5f : 0.25f);
            spread = sum(spread, scaled(rgb(tex2D<float4>(from, at.u + x * du, at.v + y * dv)), weight));
        }
    }
    // By the surface, not by a texture: what a texture reads of an image that is being written is undefined.
    const ushort4 kept = surf2Dread<ushort4>(to, at.x * static_cast<int>(sizeof(ushort4)), at.y);
    const float3 own = make_float3(half_value(kept.x), half_value(kept.y), half_value(kept.z));
    write_light(to, at.x, at.y, sum(scaled(own, share), scaled(spread, 1.0f - share)), 1.0f);
}

// A film's response to light: middle grey as it is, bright bent towards white. The curve is Krzysztof Narkowicz's fit of
// ACES; the factor keeps 0.18 unchanged.
__device__ float filmic(float x) {
    x = fmaxf(0.72317f * x, 0.0f);
    return fminf(x * (2.51f * x + 0.03f) / (x * (2.43f * x + 0.59f) + 0.14f), 1.0f);
}

__device__ float srgb(float linear) {
    linear = fminf(fmaxf(linear, 0.0f), 1.0f);
    return linear <= 0.0031308f ? linear * 12.92f : 1.055f * __powf(linear, 1.0f / 2.4f) - 0.055f;
}

// Up to half a step of a byte either way, so that slow gradients have no bands.
__device__ float dithered(int x, int y, uint32 channel) {
    uint32 hash = static_cast<uint32>(x) * 0x9e3779b1u ^ static_cast<uint32>(y) * 0x85ebca77u ^ channel * 0xc2b2ae3du;
    hash = (hash ^ hash >> 15) * 0x2c1b3c6du;
    hash = (hash ^ hash >> 12) * 0x297a2d39u;
    return static_cast<float>(hash >> 8) / 16777216.0f - 0.5f;
}

__device__ unsigned char byte_of(float linear, int x, int y, uint32 channel) {
    return static_cast<unsigned char>(fminf(fmaxf(255.0f * srgb(linear) + dithered(x, y, channel) + 0.5f, 0.0f), 255.0f));
}

// The picture: light and bloom, `bloom_share` of it, exposed by `exposure` stops; if `is_filmic` is 0, what is brighter
// than white is cut off. Without a bloom `bloom_share` is 0 and `bloom` any texture.
extern "C" __global__ void develop(cudaSurfaceObject_t to, cudaTextureObject_t light, cudaTextureObject_t bloom,
                                   uint32 width, uint32 height, float bloom_share, float exposure, uint32 is_filmic) {
    const Pixel at(width, height);
    if (!at.is_inside) {
        return;
    }
    const float4 texel = texel_at(light, at.x, at.y);
    float3 color = rgb(texel);
    if (bloom_share > 0.0f) {
        color = sum(color, scaled(rgb(tex2D<float4>(bloom, at.u, at.v)), bloom_share));
    }
    color = scaled(color, exp2f(exposure));
    if (is_filmic != 0u) {
        color = make_float3(filmic(color.x), filmic(color.y), filmic(color.z));
    }
    const float alpha = fminf(fmaxf(texel.w, 0.0f), 1.0f);
    const uchar4 bytes = make_uchar4(byte_of(color.x, at.x, at.y, 0u), byte_of(color.y, at.x, at.y, 1u),
                                     byte_of(color.z, at.x, at.y, 2u), static_cast<unsigned char>(alpha * 255.0f + 0.5f));
    surf2Dwrite(bytes, to, at.x * static_cast<int>(sizeof(bytes)), at.y);
}
