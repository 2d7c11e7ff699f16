#version 330 core
// Colours are roots of light: a gamma of 2. Alpha is 1 on the person. The second target, where there is one, says which triangle.
uniform sampler2D picture;
#ifdef SHADOWED
uniform sampler2D shadow;  // the root of the share of light that arrives at the floor, over shadow_size_m around the origin
in vec2 shadow_uv;
#endif
in vec3 light;
in vec2 uv;
flat in float number;
layout(location = 0) out vec4 frag_color;
layout(location = 1) out float frag_number;

void main() {
    vec3 colour = texture(picture, uv).rgb * light;
#ifdef SHADOWED
    colour *= texture(shadow, shadow_uv).r;
#endif
    frag_color = vec4(colour, number);
    frag_number = number;
}
