"""Bodies and hands: built from free data, converted from licensed files, posed through smplx."""
