// Samples a whole picture, one texel per pixel: the pass that compares a shared texture with a private one. The same
// source is compiled to SPIR-V for Vulkan and passed to OpenGL as text. See README.md.
#version 450

layout(location = 2) in vec2 uv;

layout(binding = 1) uniform sampler2D picture;

layout(location = 0) out vec4 result;

void main() {
    result = textureLod(picture, uv, 0.0);
}
