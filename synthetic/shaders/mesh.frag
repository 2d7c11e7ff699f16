#version 330 core
// Diffuse light from nine spherical-harmonic coefficients (Ramamoorthi and Hanrahan 2001); alpha is the garment id / 255.
// The second target says which triangle of the person is seen (0: none) and how far along the gaze the surface lies.
struct Material {
    sampler2D base_color_texture;
#ifdef HAS_EMISSIVE_TEX
    sampler2D emissive_texture;  // not emission: the shadow on the floor, over shadow_size_m around the origin
#endif
};

uniform Material material;
uniform vec3 sh[9];
uniform float shadow_size_m;
uniform float is_person;

in vec3 world_m;
in vec3 world_normal;
in vec2 uv;
in float depth_m;
layout(location = 0) out vec4 frag_color;
layout(location = 1) out vec2 frag_label;

vec3 irradiance(vec3 n) {
    const float c1 = 0.429043, c2 = 0.511664, c3 = 0.743125, c4 = 0.886227, c5 = 0.247708;
    return c1 * sh[8] * (n.x * n.x - n.y * n.y) + c3 * sh[6] * n.z * n.z + c4 * sh[0] - c5 * sh[6]
        + 2.0 * c1 * (sh[4] * n.x * n.y + sh[7] * n.x * n.z + sh[5] * n.y * n.z)
        + 2.0 * c2 * (sh[3] * n.x + sh[1] * n.y + sh[2] * n.z);
}

void main() {
    vec3 n = normalize(world_normal);
    if (!gl_FrontFacing) n = -n;
    vec3 light = max(irradiance(n), vec3(0.08));
#ifdef HAS_EMISSIVE_TEX
    light *= texture(material.emissive_texture, vec2(world_m.x, world_m.z) / shadow_size_m + 0.5).r;
#endif
    vec3 colour = texture(material.base_color_texture, uv).rgb;
    colour = sqrt(clamp(colour * colour * light, 0.0, 1.0));  // a gamma of 2 is much cheaper than 2.2
    float garment = 0.0;
    if (is_person > 0.5) {
        ivec2 size = textureSize(material.base_color_texture, 0);
        garment = texelFetch(material.base_color_texture, clamp(ivec2(fract(uv) * vec2(size)), ivec2(0), size - 1), 0).a;
    }
    frag_color = vec4(colour, garment);
    frag_label = vec2(is_person * float(gl_PrimitiveID + 1), depth_m);
}
