// The scene that samples the shared picture: a turning cube with the picture on its faces, over a dark glossy floor. Writes what
// a screen can show, in linear colours: the image encodes them. The same source is compiled to SPIR-V for Vulkan and passed
// to OpenGL as text. See README.md.
#version 450

layout(location = 0) in vec3 place;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) flat in vec4 colour;
layout(location = 4) flat in vec4 material; // kind, ±1 for seen directly or in the floor

const int OCCLUDERS = 64;

layout(std140, binding = 0) uniform Scene {
    mat4 view_projection;
    vec4 eye;
    vec4 light;
    vec4 light_colour;
    vec4 settings;             // zw: the part of the picture that a face shows
    vec4 occluders[OCCLUDERS]; // the first: the cube's centre and how wide its shadow is
};

layout(binding = 1) uniform sampler2D picture;

layout(location = 0) out vec4 result;

const int FACE = 0;
const int FLOOR = 1;
const int BACKDROP = 2;

/// Of a face, the share of its side.
const float FRAME = 0.028;

/// A pattern finer than the steps of eight bits, so that slow gradients show none.
float noise(vec2 at) {
    return fract(52.9829189 * fract(dot(at, vec2(0.06711056, 0.00583715))));
}

vec3 backdrop(vec3 look) {
    const float height = clamp(look.y * 1.3 + 0.30, 0.0, 1.0);
    const vec3 light = mix(vec3(0.052, 0.060, 0.078), vec3(0.006, 0.008, 0.014), smoothstep(0.0, 1.0, height));
    const vec3 glow = vec3(0.085, 0.095, 0.125) * exp(-7.0 * (look.x * look.x + 2.2 * look.y * look.y));
    return light + glow;
}

vec3 face(vec3 n, vec3 view) {
    const vec3 to_light = light.xyz - place;
    const vec3 l = normalize(to_light);
    const float diffuse = max(dot(n, l), 0.0);
    const float highlight = pow(max(dot(n, normalize(l + view)), 0.0), 160.0);
    // Antialiased by how much of a pixel is frame.
    const vec2 inward = min(uv, 1.0 - uv);
    const float edge = min(inward.x, inward.y);
    const float within = clamp((edge - FRAME) / max(fwidth(edge), 1e-5) + 0.5, 0.0, 1.0);
    const vec2 on_face = (uv - 0.5) / (1.0 - 2.0 * FRAME);
    const vec3 shown = texture(picture, on_face * settings.zw + 0.5).rgb;
    const vec3 frame = vec3(0.055, 0.058, 0.065) * (0.5 + 2.2 * diffuse) + 0.25 * highlight;
    const vec3 glass = shown * (0.50 + 0.55 * diffuse) + vec3(0.30) * highlight;
    return mix(frame, glass, within);
}

void main() {
    const int kind = int(material.x);
    const vec3 from = vec3(eye.x, eye.y * material.y, eye.z);
    const vec3 look = normalize(place - from);
    vec3 shade;
    float opacity = 1.0;
    if (kind == BACKDROP) {
        shade = backdrop(look);
    } else if (kind == FLOOR) {
        const vec3 l = light.xyz - place;
        const float lit = light_colour.r * normalize(l).y / (1.0 + 0.35 * dot(l, l));
        // The cube keeps the light off the floor below it.
        const vec2 off = place.xz - occluders[0].xz;
        const float under = 1.0 - 0.85 * exp(-dot(off, off) / (occluders[0].w * occluders[0].w));
        const float away = length(place.xz);
        const vec3 horizon = backdrop(vec3(look.x, 0.0, look.z));
        shade = mix(horizon, vec3(0.034, 0.037, 0.045) * lit * under, exp(-0.010 * away * away));
        const float glance = 1.0 - max(-look.y, 0.0);
        opacity = 1.0 - (0.20 + 0.5 * pow(glance, 3.0)) * exp(-0.03 * away * away);
    } else {
        shade = face(normalize(normal), -look);
    }
    result = vec4(clamp(shade + (noise(gl_FragCoord.xy) - 0.5) / 1800.0, 0.0, 1.0), opacity);
}
