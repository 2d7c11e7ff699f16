#version 330 core
// The attribute locations are given by pyrender.
layout(location = 0) in vec3 position;
layout(location = NORMAL_LOC) in vec3 normal;
layout(location = TEXCOORD_0_LOC) in vec2 texcoord_0;
layout(location = INST_M_LOC) in mat4 inst_m;

uniform mat4 M;
uniform mat4 V;
uniform mat4 P;

out vec3 world_m;
out vec3 world_normal;
out vec2 uv;
out float depth_m;

void main() {
    vec4 world = M * inst_m * vec4(position, 1.0);
    vec4 seen = V * world;
    gl_Position = P * seen;
    depth_m = -seen.z;
    world_m = world.xyz;
    world_normal = mat3(M * inst_m) * normal;
    uv = texcoord_0;
}
