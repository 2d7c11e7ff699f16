#version 330 core
// Alpha is the garment id / 255. The second target says which triangle of the person is seen (0: none) and how far along the
// gaze the surface lies.
struct Material {
    sampler2D base_color_texture;
#ifdef HAS_EMISSIVE_TEX
    sampler2D emissive_texture;  // not emission: the shadow on the floor, over shadow_size_m around the origin
#endif
};

uniform Material material;
uniform float shadow_size_m;
uniform int first_triangle;  // of this mesh of the person, counted from 1; 0: not the person

#ifdef HAS_EMISSIVE_TEX
in vec2 floor_m;
#endif
in vec3 light_even;
in vec3 light_odd;
in vec2 uv;
layout(location = 0) out vec4 frag_color;
layout(location = 1) out vec2 frag_label;

void main() {
    vec3 light = max(light_even + (gl_FrontFacing ? light_odd : -light_odd), vec3(0.08));
#ifdef HAS_EMISSIVE_TEX
    light *= texture(material.emissive_texture, floor_m / shadow_size_m + 0.5).r;
#endif
    vec3 colour = texture(material.base_color_texture, uv).rgb;
    colour = sqrt(clamp(colour * colour * light, 0.0, 1.0));  // a gamma of 2 is much cheaper than 2.2
    float garment = 0.0;
    if (first_triangle > 0) {
        ivec2 size = textureSize(material.base_color_texture, 0);
        garment = texelFetch(material.base_color_texture, clamp(ivec2(fract(uv) * vec2(size)), ivec2(0), size - 1), 0).a;
    }
    frag_color = vec4(colour, garment);
    frag_label = vec2(first_triangle > 0 ? float(first_triangle + gl_PrimitiveID) : 0.0, 1.0 / gl_FragCoord.w);
}
