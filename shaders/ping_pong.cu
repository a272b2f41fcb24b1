// One step of the ping-pong over `count` uint4s: x = x * 1664525 + (w * 2654435761 + step_size) modulo 2^32, where w is the
// word's index in the payload. data[0] is the payload's uint4 number `first`. See README.md.

extern "C" __global__ void ping_pong(uint4* data, unsigned int first, unsigned int count, unsigned int step_size) {
    const unsigned long long stride = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
    // 64 bits wide: near 2^32 a narrower index would wrap and the loop would never end.
    unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += stride) {
        const unsigned int w = 4u * (first + static_cast<unsigned int>(i));
        uint4 x = data[i];
        x.x = x.x * 1664525u + (w * 2654435761u + step_size);
        x.y = x.y * 1664525u + ((w + 1u) * 2654435761u + step_size);
        x.z = x.z * 1664525u + ((w + 2u) * 2654435761u + step_size);
        x.w = x.w * 1664525u + ((w + 3u) * 2654435761u + step_size);
        data[i] = x;
    }
}
