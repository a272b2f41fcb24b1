// The one vertex shader of the demo scenes: meshes, drawn in instances. All matrices are made for Vulkan's clip space; for
// OpenGL the host changes the range of depth. The same source is compiled to SPIR-V for Vulkan and passed to OpenGL as text.
// See README.md.
#version 450

layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
// Of an instance:
layout(location = 3) in mat4 model;
layout(location = 7) in vec4 colour;
layout(location = 8) in vec4 material;

const int OCCLUDERS = 64;

layout(std140, binding = 0) uniform Scene {
    mat4 view_projection;
    vec4 eye;
    vec4 light;
    vec4 light_colour;
    vec4 settings;
    vec4 occluders[OCCLUDERS];
};

layout(location = 0) out vec3 out_place;
layout(location = 1) out vec3 out_normal;
layout(location = 2) out vec2 out_uv;
layout(location = 3) flat out vec4 out_colour;
layout(location = 4) flat out vec4 out_material;

void main() {
    const vec3 place = (model * vec4(position, 1.0)).xyz;
    out_place = place;
    // Models turn, move and scale evenly: no inverse is needed.
    out_normal = mat3(model) * normal;
    out_uv = uv;
    out_colour = colour;
    out_material = material;
    // material.y is -1 if the instance is its own reflection in the floor; it is shaded like the original.
    gl_Position = view_projection * vec4(place.x, place.y * material.y, place.z, 1.0);
}
