//! The shaders that read or write every texel of a texture, for each target and type.

use gpu_interop::glow;

/// What a shader does with a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A compute shader samples each texel into the buffer.
    Sample,
    /// A compute shader stores each texel from the buffer.
    Store,
    /// A fragment shader draws each texel of one slice from the buffer.
    Draw,
    /// The vertex shader for it: one triangle over all pixels.
    Cover,
}

/// The type of a texel in shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Float,
    Uint,
    Sint,
}

/// The buffer, the uniforms, and the place in the texture of the buffer's `i`th element.
const COMMON: &str = "
layout(std430, binding = 0) buffer Texels { uvec4 texels[]; };
layout(location = 0) uniform uvec4 extent; // of the level, and samples a texel
layout(location = 1) uniform uvec3 place;  // level, layer, slice
ivec3 texel_at(uint i) {
    i /= extent.w;
    return ivec3(i % extent.x, i / extent.x % extent.y, i / (extent.x * extent.y));
}
uint texel_count() { return extent.x * extent.y * extent.z * extent.w; }
";

/// The direction to the centre of a texel of a cube's face (OpenGL 4.6, table 8.19).
const DIRECTION: &str = "
vec3 direction(ivec2 at, uint face) {
    vec2 st = (vec2(at) + 0.5) / vec2(extent.xy) * 2.0 - 1.0;
    switch (face) {
        case 0u: return vec3(1.0, -st.t, -st.s);
        case 1u: return vec3(-1.0, -st.t, st.s);
        case 2u: return vec3(st.s, 1.0, st.t);
        case 3u: return vec3(st.s, -1.0, -st.t);
        case 4u: return vec3(st.s, -st.t, 1.0);
        default: return vec3(-st.s, -st.t, -1.0);
    }
}
";

const COVER: &str = "#version 450
void main() {
    gl_Position = vec4(4.0 * (gl_VertexID & 1) - 1.0, 2.0 * (gl_VertexID & 2) - 1.0, 0.0, 1.0);
}
";

/// How a texel is fetched and stored: the suffix of the sampler and image types, the sampler's
/// expression, the image's coordinates.
fn dialect(target: u32) -> (&'static str, &'static str, &'static str) {
    match target {
        glow::TEXTURE_1D => ("1D", "texelFetch(image, at.x, level)", "at.x"),
        glow::TEXTURE_1D_ARRAY => {
            ("1DArray", "texelFetch(image, ivec2(at.x, layer), level)", "ivec2(at.x, layer)")
        }
        glow::TEXTURE_2D_ARRAY => {
            ("2DArray", "texelFetch(image, ivec3(at.xy, layer), level)", "ivec3(at.xy, layer)")
        }
        glow::TEXTURE_2D_MULTISAMPLE => ("2DMS", "texelFetch(image, at.xy, s)", "at.xy, s"),
        glow::TEXTURE_2D_MULTISAMPLE_ARRAY => {
            ("2DMSArray", "texelFetch(image, ivec3(at.xy, layer), s)", "ivec3(at.xy, layer), s")
        }
        glow::TEXTURE_3D => ("3D", "texelFetch(image, at, level)", "at"),
        glow::TEXTURE_CUBE_MAP => {
            // A cube is sampled in a direction; texels of its faces are not fetched.
            ("Cube", "textureLod(image, direction(at.xy, layer), level)", "ivec3(at.xy, layer)")
        }
        glow::TEXTURE_CUBE_MAP_ARRAY => (
            "CubeArray",
            "textureLod(image, vec4(direction(at.xy, layer % 6u), layer / 6u), level)",
            "ivec3(at.xy, layer)",
        ),
        _ => ("2D", "texelFetch(image, at.xy, level)", "at.xy"),
    }
}

/// The source of a shader for textures of `target` and texels of `ty`.
pub(super) fn source(access: Access, target: u32, ty: Type) -> String {
    let (kind, fetch, coordinates) = dialect(target);
    let (prefix, vector, to_bits, from_bits) = match ty {
        Type::Float => ("", "vec4", "floatBitsToUint", "uintBitsToFloat"),
        Type::Uint => ("u", "uvec4", "", ""),
        Type::Sint => ("i", "ivec4", "uvec4", "ivec4"),
    };
    let head = format!("#version 450\n{COMMON}{DIRECTION}");
    let compute = "layout(local_size_x = 64) in;\n";
    let here = "uint i = gl_GlobalInvocationID.x;
    if (i >= texel_count()) return;
    ivec3 at = texel_at(i);
    int s = int(i % extent.w);
    int level = int(place.x);
    uint layer = place.y;";
    match access {
        Access::Cover => COVER.to_owned(),
        Access::Sample => format!(
            "{head}{compute}layout(binding = 0) uniform {prefix}sampler{kind} image;
void main() {{
    {here}
    texels[i] = {to_bits}({fetch});
}}
"
        ),
        Access::Store => format!(
            "{head}{compute}layout(binding = 0) writeonly uniform {prefix}image{kind} image;
void main() {{
    {here}
    imageStore(image, {coordinates}, {from_bits}(texels[i]));
}}
"
        ),
        Access::Draw => {
            // Naming the sample makes the shader run once for each.
            let sample = if kind.contains("MS") { "uint(gl_SampleID)" } else { "0u" };
            format!(
                "{head}layout(location = 0) out {vector} pixel;
void main() {{
    uvec2 at = uvec2(gl_FragCoord.xy);
    uint texel = (place.z * extent.y + at.y) * extent.x + at.x;
    // Drivers also run the shader for pixels outside the image.
    uint i = min(texel * extent.w + {sample}, uint(texels.length()) - 1u);
    pixel = {from_bits}(texels[i]);
}}
"
            )
        }
    }
}
