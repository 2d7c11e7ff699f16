#version 330 core
layout(location = 0) in vec3 position;
layout(location = 1) in vec4 light_number;  // the root of the light that arrives; the number of the triangle that begins here
layout(location = 2) in vec2 texcoord;

uniform mat4 camera;  // clip space from world, row 0 of the image at the bottom

#ifdef SHADOWED
uniform float shadow_size_m;
out vec2 shadow_uv;
#endif
out vec3 light;
out vec2 uv;
flat out float number;

void main() {
    gl_Position = camera * vec4(position, 1.0);
#ifdef SHADOWED
    shadow_uv = position.xz / shadow_size_m + 0.5;
#endif
    light = light_number.rgb;
    number = light_number.a;
    uv = texcoord;
}
