// The shared scene: metal and lacquer over a chequered floor at dusk, lit by a lamp that moves. Writes radiance, or,
// with settings.x at 1, what a screen can show, in linear colours: the image encodes them. The same source is compiled to
// SPIR-V for Vulkan and passed to OpenGL as text. See README.md.
#version 450

layout(location = 0) in vec3 place;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) flat in vec4 colour;   // a: how metallic
layout(location = 4) flat in vec4 material; // kind, ±1 for seen directly or in the floor, roughness, emission

const int OCCLUDERS = 64;

layout(std140, binding = 0) uniform Scene {
    mat4 view_projection;
    vec4 eye;
    vec4 light;        // a: its radius
    vec4 light_colour;
    vec4 settings;     // 1 for a screen, how many occluders
    vec4 occluders[OCCLUDERS]; // spheres: centre, radius
};

layout(location = 0) out vec4 result;

const int SOLID = 0;
const int FLOOR = 1;
const int SKY = 2;
const int KNOT = 3;

const vec3 SUN = normalize(vec3(-0.55, 0.13, -0.83));

vec3 sky(vec3 direction) {
    const float height = clamp(direction.y, 0.0, 1.0);
    vec3 light = mix(vec3(0.50, 0.215, 0.135), vec3(0.105, 0.115, 0.27), smoothstep(0.0, 0.32, height));
    light = mix(light, vec3(0.012, 0.026, 0.10), smoothstep(0.10, 0.80, height));
    const float towards = max(dot(direction, SUN), 0.0);
    light += vec3(0.95, 0.42, 0.14) * (0.20 * pow(towards, 8.0) + 0.6 * pow(towards, 64.0));
    return light + vec3(9.0, 6.0, 3.4) * smoothstep(0.9991, 0.9996, towards);
}

/// How much of the lamp, which is a ball, is seen from `from`: 0 to 1.
float visible(vec3 from) {
    vec3 way = light.xyz - from;
    const float length_of_way = length(way);
    way /= length_of_way;
    float seen = 1.0;
    const int count = int(settings.y);
    for (int i = 0; i < count; i++) {
        const vec3 to_centre = occluders[i].xyz - from;
        const float along = clamp(dot(to_centre, way), 0.0, length_of_way);
        // The lamp, as wide as it looks from here at that distance.
        const float blur = 1.6 * light.w * along / length_of_way + 0.004;
        const float past = length(to_centre - way * along) - occluders[i].w;
        seen = min(seen, smoothstep(-blur, blur, past));
    }
    return seen;
}

/// What is left of the sky's light under the occluders.
float open_sky(vec3 from) {
    float open = 1.0;
    const int count = int(settings.y);
    for (int i = 0; i < count; i++) {
        const vec3 to_centre = occluders[i].xyz - from;
        const float distance_squared = dot(to_centre, to_centre);
        const float radius = occluders[i].w;
        open *= 1.0 - 0.55 * max(to_centre.y, 0.0) * inversesqrt(distance_squared)
            * min(radius * radius / distance_squared, 1.0);
    }
    return open;
}

vec3 lamp_light(vec3 from) {
    const vec3 way = light.xyz - from;
    return light_colour.rgb / (1.0 + dot(way, way));
}

/// Squares, averaged over the footprint `size`.
float chequers(vec2 at, vec2 size) {
    size = max(size, vec2(1e-3));
    const vec2 part = 2.0 * (abs(fract((at - 0.5 * size) * 0.5) - 0.5) - abs(fract((at + 0.5 * size) * 0.5) - 0.5)) / size;
    return 0.5 - 0.5 * part.x * part.y;
}

vec3 floor_light(vec3 at, vec2 footprint) {
    const vec3 albedo = mix(vec3(0.028, 0.030, 0.042), vec3(0.62, 0.60, 0.57), chequers(at.xz * 0.8, footprint * 0.8));
    const vec3 to_light = normalize(light.xyz - at);
    const vec3 direct = lamp_light(at) * max(to_light.y, 0.0) * visible(at);
    return albedo * (direct + vec3(0.24, 0.22, 0.30) * open_sky(at));
}

/// Into the dusk, with the distance.
vec3 far_away(vec3 near, float distance_to, vec3 direction) {
    const float clear = exp(-0.0016 * distance_to * distance_to);
    return mix(sky(normalize(vec3(direction.x, 0.015, direction.z))), near, clear);
}

/// What is seen from `from` in `direction`, but for the other solids.
vec3 surroundings(vec3 from, vec3 direction, float roughness) {
    if (direction.y > -0.004) {
        return sky(direction);
    }
    const float away = -from.y / direction.y;
    const vec3 at = from + away * direction;
    const vec2 footprint = vec2((0.01 + roughness) * away);
    return far_away(floor_light(at, footprint), length(at.xz - eye.xz), direction);
}

vec3 solid(vec3 albedo, vec3 n, vec3 view) {
    const float metallic = colour.a;
    const float roughness = material.z;
    const vec3 to_light = light.xyz - place;
    const vec3 l = normalize(to_light);
    const vec3 h = normalize(l + view);
    const float n_l = max(dot(n, l), 0.0);
    const float n_v = max(dot(n, view), 1e-3);
    const float n_h = max(dot(n, h), 0.0);
    const vec3 head_on = mix(vec3(0.045), albedo, metallic);
    const vec3 mirror = head_on + (1.0 - head_on) * pow(1.0 - n_v, 5.0) * (1.0 - roughness);
    // The highlight: Trowbridge and Reitz, with a lamp that is not a point.
    const float a = roughness * roughness + 0.02;
    const float d = n_h * n_h * (a * a - 1.0) + 1.0;
    const float highlight = a * a / (3.14159 * d * d) * 0.25;
    const vec3 lamp = lamp_light(place) * n_l;
    const vec3 ambient = mix(vec3(0.10, 0.08, 0.09), vec3(0.13, 0.15, 0.30), 0.5 + 0.5 * n.y);
    const vec3 diffuse = albedo * (1.0 - metallic) * (lamp + ambient);
    const vec3 reflected = surroundings(place, reflect(-view, n), roughness * 0.4);
    return diffuse + mirror * reflected + lamp * highlight * (head_on + 0.04);
}

/// The curve of film, after Narkowicz.
vec3 for_screen(vec3 light) {
    return clamp(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0.0, 1.0);
}

void main() {
    const int kind = int(material.x);
    // An instance in the floor is looked at from below.
    const vec3 from = vec3(eye.x, eye.y * material.y, eye.z);
    const vec3 look = normalize(place - from);
    vec3 n = normalize(normal);
    vec3 light = vec3(0.0);
    float opacity = 1.0;
    if (kind == SKY) {
        light = sky(look);
    } else if (kind == FLOOR) {
        const vec2 footprint = abs(dFdx(place.xz)) + abs(dFdy(place.xz));
        const float glance = 1.0 - max(-look.y, 0.0);
        const float mirror = 0.10 + 0.62 * pow(glance, 4.0);
        const float away = length(place.xz - from.xz);
        const vec3 near = floor_light(place, footprint);
        // What is mirrored is drawn already; far away only the sky is.
        light = far_away(near, away, look);
        opacity = 1.0 - mirror * exp(-0.002 * away * away);
    } else {
        vec3 albedo = colour.rgb;
        if (kind == KNOT) {
            const vec3 band = 0.5 + 0.5 * cos(6.28318 * (uv.x * 2.0 + vec3(0.02, 0.22, 0.48)));
            albedo = mix(albedo, band, 0.55);
        }
        light = solid(albedo, dot(n, look) > 0.0 ? -n : n, -look) + colour.rgb * material.w;
    }
    result = vec4(settings.x > 0.5 ? for_screen(light) : light, opacity);
}
