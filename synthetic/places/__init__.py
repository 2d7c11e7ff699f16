"""What is around a person: rooms, things, photos, panoramas, meshes."""
