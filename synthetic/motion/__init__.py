"""Motion clips of all formats, turned onto SMPL's joints."""
