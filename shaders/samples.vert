// A triangle that covers everything, for the drawings that write one sample per texel. No vertex buffer. The same source is
// compiled to SPIR-V for Vulkan and passed to OpenGL as text. See README.md.
#version 450

#ifdef VULKAN
#define INDEX gl_VertexIndex
#else
#define INDEX gl_VertexID
#endif

void main() {
    const vec2 corner = vec2((INDEX << 1) & 2, INDEX & 2);
    gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0);
}
