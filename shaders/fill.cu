// Fills `count` uint4s with a hash of each word's index in the payload and a seed: data that memory compression can't make
// smaller. data[0] is the payload's uint4 number `first`. See README.md.

// lowbias32: a bijection of the 32-bit words.
__device__ unsigned int mixed(unsigned int x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

extern "C" __global__ void fill(uint4* data, unsigned int first, unsigned int count, unsigned int seed) {
    const unsigned int key = seed * 0x9e3779b9u;
    const unsigned long long stride = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
    // 64 bits wide: near 2^32 a narrower index would wrap and the loop would never end.
    unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += stride) {
        const unsigned int w = 4u * (first + static_cast<unsigned int>(i));
        data[i] = make_uint4(mixed(w ^ key), mixed((w + 1u) ^ key), mixed((w + 2u) ^ key), mixed((w + 3u) ^ key));
    }
}
