// What a kernel receives at its launch: the parameters, the shape of the grid, the dynamic shared memory. See README.md.

struct Triple {
    unsigned int x, y, z;
};

// Writes the bits of each parameter to a word of its own; those of the structure to three words.
extern "C" __global__ void parameters(unsigned long long* words, unsigned char a, unsigned short b, unsigned int c,
                                      unsigned long long d, float e, double f, Triple g, unsigned char h, int i) {
    words[0] = a;
    words[1] = b;
    words[2] = c;
    words[3] = d;
    words[4] = static_cast<unsigned int>(__float_as_int(e));
    words[5] = static_cast<unsigned long long>(__double_as_longlong(f));
    words[6] = g.x;
    words[7] = g.y;
    words[8] = g.z;
    words[9] = h;
    words[10] = static_cast<unsigned int>(i);
}

// Each thread writes its indices at its position in the order of all threads.
extern "C" __global__ void places(uint4* places) {
    const unsigned int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned int threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned int b = blockIdx.x | blockIdx.y << 8 | blockIdx.z << 16;
    const unsigned int t = threadIdx.x | threadIdx.y << 8 | threadIdx.z << 16;
    const unsigned int grid = gridDim.x | gridDim.y << 8 | gridDim.z << 16;
    const unsigned int shape = blockDim.x | blockDim.y << 8 | blockDim.z << 16;
    places[block * threads + thread] = make_uint4(b, t, grid, shape);
}

// Reverses the words of each block, through one word of dynamic shared memory per thread.
extern "C" __global__ void reversed(unsigned int* words) {
    extern __shared__ unsigned int shared[];
    unsigned int* mine = words + static_cast<unsigned long long>(blockIdx.x) * blockDim.x;
    shared[threadIdx.x] = mine[threadIdx.x];
    __syncthreads();
    mine[threadIdx.x] = shared[blockDim.x - 1u - threadIdx.x];
}
