// Images, texel by texel. `store_*` writes one layer, face or volume of a level through a surface object: the hash that
// the tests' CPU reference computes for each texel. `fetch_*` reads one through a texture object, as the texture unit returns
// it, into a buffer with one uint4 per texel. There is one of each per dimensionality; the size of a texel, and whether
// floats are read, are parameters. See README.md.

typedef unsigned int uint32;

// lowbias32: a bijection of the 32-bit words.
__device__ uint32 mixed(uint32 x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// What a word of a texel may hold.
enum Kind {
    ANY_BITS = 0,
    SIGNED_BYTES = 1,  // -127 to 127: there are two bytes for -1
    HALVES = 2,        // normal numbers
    FLOATS = 3,        // normal numbers
};

__device__ uint32 normal_half(uint32 bits) {
    const uint32 exponent = bits >> 10 & 0x1fu;
    return exponent == 0u || exponent == 0x1fu ? (bits & ~0x7c00u) | 0x3c00u : bits;
}

__device__ uint32 normal_float(uint32 bits) {
    const uint32 exponent = bits >> 23 & 0xffu;
    return exponent == 0u || exponent == 0xffu ? (bits & ~0x7f800000u) | 0x3f800000u : bits;
}

__device__ uint32 tamed(uint32 word, uint32 kind) {
    switch (kind) {
    case SIGNED_BYTES:
        for (int shift = 0; shift < 32; shift += 8) {
            if ((word >> shift & 0xffu) == 0x80u) {
                word |= 1u << shift;
            }
        }
        return word;
    case HALVES:
        return normal_half(word & 0xffffu) | normal_half(word >> 16) << 16;
    case FLOATS:
        return normal_float(word);
    default:
        return word;
    }
}

// Word `w` of a tightly packed layer.
__device__ uint32 word_at(uint32 w, uint32 kind, uint32 seed) {
    return tamed(mixed(w ^ (seed * 0x9e3779b9u)), kind);
}

// A position in a layer or volume: x before y before z.
struct Place {
    uint32 index;
    int x;
    int y;
    int z;

    __device__ Place(uint32 index, uint32 width, uint32 height)
        : index(index), x(index % width), y(index / width % height), z(index / width / height) {}
};

__device__ uint32 first_index() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ uint32 stride() {
    return gridDim.x * blockDim.x;
}

// x counts bytes in all of them.
struct Store1d {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int) {
        surf1Dwrite(texel, surface, at.x * static_cast<int>(sizeof(T)));
    }
};
struct Store1dLayered {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int layer) {
        surf1DLayeredwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), layer);
    }
};
struct Store2d {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int) {
        surf2Dwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), at.y);
    }
};
struct Store2dLayered {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int layer) {
        surf2DLayeredwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), at.y, layer);
    }
};
struct Store3d {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int) {
        surf3Dwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), at.y, at.z);
    }
};
struct StoreCube {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int face) {
        surfCubemapwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), at.y, face);
    }
};
struct StoreCubeLayered {
    template <class T> static __device__ void write(T texel, cudaSurfaceObject_t surface, const Place& at, int face) {
        surfCubemapLayeredwrite(texel, surface, at.x * static_cast<int>(sizeof(T)), at.y, face);
    }
};

template <class Store>
__device__ void store(cudaSurfaceObject_t surface, uint3 size, int layer, uint32 texel_bytes, uint32 kind, uint32 seed) {
    const uint32 count = size.x * size.y * size.z;
    for (uint32 i = first_index(); i < count; i += stride()) {
        const Place at(i, size.x, size.y);
        const uint32 byte = i * texel_bytes;
        const uint32 w = byte / 4u;
        const uint32 x = word_at(w, kind, seed);
        switch (texel_bytes) {
        case 1:
            Store::write(static_cast<unsigned char>(x >> byte % 4u * 8u), surface, at, layer);
            break;
        case 2:
            Store::write(static_cast<unsigned short>(x >> byte % 4u * 8u), surface, at, layer);
            break;
        case 4:
            Store::write(x, surface, at, layer);
            break;
        case 8:
            Store::write(make_uint2(x, word_at(w + 1u, kind, seed)), surface, at, layer);
            break;
        case 16:
            Store::write(make_uint4(x, word_at(w + 1u, kind, seed), word_at(w + 2u, kind, seed),
                                    word_at(w + 3u, kind, seed)),
                         surface, at, layer);
            break;
        }
    }
}

#define STORE(name, Store)                                                                                         \
    extern "C" __global__ void name(cudaSurfaceObject_t surface, uint32 width, uint32 height, uint32 depth,        \
                                    uint32 layer, uint32 texel_bytes, uint32 kind, uint32 seed) {                  \
        store<Store>(surface, make_uint3(width, height, depth), layer, texel_bytes, kind, seed);                   \
    }

STORE(store_1d, Store1d)
STORE(store_1d_layered, Store1dLayered)
STORE(store_2d, Store2d)
STORE(store_2d_layered, Store2dLayered)
STORE(store_3d, Store3d)
STORE(store_cube, StoreCube)
STORE(store_cube_layered, StoreCubeLayered)

// A layer of a level, and how large it is.
struct Layer {
    uint3 size;
    int layer;
    uint32 level;
};

// The middle of a texel, from -1 to 1 across a cube's face, as the direction that shows it.
__device__ float3 direction(const Place& at, const Layer& of) {
    const float s = 2.0f * (at.x + 0.5f) / of.size.x - 1.0f;
    const float t = 2.0f * (at.y + 0.5f) / of.size.y - 1.0f;
    switch (of.layer % 6) {
    case 0:
        return make_float3(1.0f, -t, -s);
    case 1:
        return make_float3(-1.0f, -t, s);
    case 2:
        return make_float3(s, 1.0f, t);
    case 3:
        return make_float3(s, -1.0f, -t);
    case 4:
        return make_float3(s, -t, 1.0f);
    default:
        return make_float3(-s, -t, -1.0f);
    }
}

// Those without a level read one level, with coordinates that count texels.
struct Fetch1d {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer&) {
        return tex1D<T>(texture, at.x + 0.5f);
    }
};
struct Fetch1dLayered {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        return tex1DLayered<T>(texture, at.x + 0.5f, of.layer);
    }
};
struct Fetch2d {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer&) {
        return tex2D<T>(texture, at.x + 0.5f, at.y + 0.5f);
    }
};
struct Fetch2dLayered {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        return tex2DLayered<T>(texture, at.x + 0.5f, at.y + 0.5f, of.layer);
    }
};
struct Fetch3d {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer&) {
        return tex3D<T>(texture, at.x + 0.5f, at.y + 0.5f, at.z + 0.5f);
    }
};
struct FetchCube {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        const float3 to = direction(at, of);
        return texCubemap<T>(texture, to.x, to.y, to.z);
    }
};
struct FetchCubeLayered {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        const float3 to = direction(at, of);
        return texCubemapLayered<T>(texture, to.x, to.y, to.z, of.layer / 6);
    }
};
// These read one of all levels, with normalized coordinates.
struct Fetch2dLod {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        const float level = of.level;
        return tex2DLod<T>(texture, (at.x + 0.5f) / of.size.x, (at.y + 0.5f) / of.size.y, level);
    }
};
struct Fetch2dLayeredLod {
    template <class T> static __device__ T read(cudaTextureObject_t texture, const Place& at, const Layer& of) {
        const float level = of.level;
        return tex2DLayeredLod<T>(texture, (at.x + 0.5f) / of.size.x, (at.y + 0.5f) / of.size.y, of.layer, level);
    }
};

template <class Fetch> __device__ void fetch(uint4* texels, cudaTextureObject_t texture, Layer of, uint32 as_floats) {
    const uint32 count = of.size.x * of.size.y * of.size.z;
    for (uint32 i = first_index(); i < count; i += stride()) {
        const Place at(i, of.size.x, of.size.y);
        if (as_floats != 0u) {
            const float4 texel = Fetch::template read<float4>(texture, at, of);
            texels[i] = make_uint4(__float_as_uint(texel.x), __float_as_uint(texel.y), __float_as_uint(texel.z),
                                   __float_as_uint(texel.w));
        } else {
            texels[i] = Fetch::template read<uint4>(texture, at, of);
        }
    }
}

#define FETCH(name, Fetch)                                                                                         \
    extern "C" __global__ void name(uint4* texels, cudaTextureObject_t texture, uint32 width, uint32 height,       \
                                    uint32 depth, uint32 layer, uint32 level, uint32 as_floats) {                  \
        Layer of;                                                                                                  \
        of.size = make_uint3(width, height, depth);                                                                \
        of.layer = layer;                                                                                          \
        of.level = level;                                                                                          \
        fetch<Fetch>(texels, texture, of, as_floats);                                                              \
    }

FETCH(fetch_1d, Fetch1d)
FETCH(fetch_1d_layered, Fetch1dLayered)
FETCH(fetch_2d, Fetch2d)
FETCH(fetch_2d_layered, Fetch2dLayered)
FETCH(fetch_3d, Fetch3d)
FETCH(fetch_cube, FetchCube)
FETCH(fetch_cube_layered, FetchCubeLayered)
FETCH(fetch_2d_lod, Fetch2dLod)
FETCH(fetch_2d_layered_lod, Fetch2dLayeredLod)

// Any positions in a two-dimensional image: `coordinates` holds x, y and, for an image of all levels, the level of each.
extern "C" __global__ void sample_2d(float4* texels, const float* coordinates, uint32 count, cudaTextureObject_t texture,
                                     uint32 has_levels) {
    for (uint32 i = first_index(); i < count; i += stride()) {
        const float x = coordinates[3u * i];
        const float y = coordinates[3u * i + 1u];
        texels[i] = has_levels != 0u ? tex2DLod<float4>(texture, x, y, coordinates[3u * i + 2u])
                                     : tex2D<float4>(texture, x, y);
    }
}

// Rows of texels in linear memory, `pitch` bytes apart: the hash for each position, byte by byte.
extern "C" __global__ void store_rows(unsigned char* first_texel, uint32 width, uint32 height, uint32 pitch,
                                      uint32 texel_bytes, uint32 kind, uint32 seed) {
    const uint32 row = width * texel_bytes;
    for (uint32 i = first_index(); i < row * height; i += stride()) {
        const uint32 word = word_at(i / 4u, kind, seed);
        first_texel[static_cast<unsigned long long>(i / row) * pitch + i % row] = word >> i % 4u * 8u;
    }
}

// The same rows tightly packed.
extern "C" __global__ void fetch_rows(unsigned char* texels, const unsigned char* first_texel, uint32 width,
                                      uint32 height, uint32 pitch, uint32 texel_bytes) {
    const uint32 row = width * texel_bytes;
    for (uint32 i = first_index(); i < row * height; i += stride()) {
        texels[i] = first_texel[static_cast<unsigned long long>(i / row) * pitch + i % row];
    }
}

// The nearest that a channel of such a kind can hold. ANY_BITS is 0 to 1 in 255 steps here.
__device__ uint32 nearest(float number, uint32 kind) {
    switch (kind) {
    case SIGNED_BYTES:
        return static_cast<uint32>(__float2int_rn(fminf(fmaxf(number, -1.0f), 1.0f) * 127.0f)) & 0xffu;
    case HALVES: {
        unsigned short half;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(number));
        return half;
    }
    case FLOATS:
        return __float_as_uint(number);
    default:
        return __float2uint_rn(__saturatef(number) * 255.0f);
    }
}

// Stores numbers, four per texel, in a plain image of one or four one-byte channels. Surfaces take bits, so the kernel
// rounds.
extern "C" __global__ void store_numbers(cudaSurfaceObject_t surface, uint32 width, uint32 height, const float4* numbers,
                                         uint32 texel_bytes, uint32 kind) {
    for (uint32 i = first_index(); i < width * height; i += stride()) {
        const Place at(i, width, height);
        const uint4 near = make_uint4(nearest(numbers[i].x, kind), nearest(numbers[i].y, kind), nearest(numbers[i].z, kind),
                                      nearest(numbers[i].w, kind));
        switch (texel_bytes) {
        case 1:
            Store2d::write(static_cast<unsigned char>(near.x), surface, at, 0);
            break;
        case 4:
            Store2d::write(near.x | near.y << 8 | near.z << 16 | near.w << 24, surface, at, 0);
            break;
        case 8:
            Store2d::write(make_uint2(near.x | near.y << 16, near.z | near.w << 16), surface, at, 0);
            break;
        case 16:
            Store2d::write(near, surface, at, 0);
            break;
        }
    }
}
