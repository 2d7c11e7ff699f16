#version 330 core
// Diffuse light from nine spherical-harmonic coefficients (Ramamoorthi and Hanrahan 2001), at the vertices: triangles are small.
// The attribute locations are given by pyrender.
layout(location = 0) in vec3 position;
layout(location = NORMAL_LOC) in vec3 normal;
layout(location = TEXCOORD_0_LOC) in vec2 texcoord_0;

uniform mat4 camera;  // clip space from world
uniform float lit;    // 0: the texture holds its light already
uniform vec3 sh[9];

#ifdef HAS_EMISSIVE_TEX
out vec2 floor_m;
#endif
out vec3 light_even;  // a surface seen from behind has the opposite normal: even - odd
out vec3 light_odd;
out vec2 uv;

void main() {
    gl_Position = camera * vec4(position, 1.0);
#ifdef HAS_EMISSIVE_TEX
    floor_m = position.xz;
#endif
    uv = texcoord_0;
    vec3 n = normalize(normal);
    float open = lit < 0.5 ? 1.0 : min(length(normal), 1.0);  // the share of light that arrives where other limbs are near
    const float c1 = 0.429043, c2 = 0.511664, c3 = 0.743125, c4 = 0.886227, c5 = 0.247708;
    light_even = lit < 0.5 ? vec3(1.0) : c1 * sh[8] * (n.x * n.x - n.y * n.y) + c3 * sh[6] * n.z * n.z + c4 * sh[0] - c5 * sh[6]
        + 2.0 * c1 * (sh[4] * n.x * n.y + sh[7] * n.x * n.z + sh[5] * n.y * n.z);
    light_odd = lit < 0.5 ? vec3(0.0) : 2.0 * c2 * (sh[3] * n.x + sh[1] * n.y + sh[2] * n.z);
    light_even *= open;
    light_odd *= open;
}
